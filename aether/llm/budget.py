"""Budgets: hard limits on what calls may use, that hold for all of them together.

It must not know a price, nor who calls a provider.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Literal, NoReturn, Self, get_args

from aether.errors import ConfigurationError
from aether.llm.holding import Account, lock

__all__ = ["Budget", "checked_budget", "in_dollars", "with_parents"]

UnknownPrice = Literal["refuse", "ignore"]


class Budget:
    """A limit on what calls may use: in US dollars, tokens, requests, or several of them.

    It holds for all calls that are given it, from any task, thread or event loop, however many are
    under way at once. Before a call the most that it can use is set aside here and in all parents;
    afterwards what it has used is spent, and the rest given back. A limit of 0 refuses every call.

    Tokens are those of input and output together. Requests are attempts: one that is tried again
    counts again.

    A limit in dollars needs prices. A call of a model whose price is not known is refused
    (`unknown_price="refuse"`), or its dollars are not limited (`"ignore"`): its tokens and requests
    are.

    Figures are live, and safe to read from any thread. A copy of a budget is the budget itself.
    Raises `ConfigurationError` for what is no limit.
    """

    __slots__ = ("__weakref__", "_parent", "_unknown_price", "account")

    def __init__(
        self,
        usd: float | Decimal | None = None,
        tokens: int | None = None,
        requests: int | None = None,
        parent: Budget | None = None,
        *,
        unknown_price: UnknownPrice = "refuse",
    ) -> None:
        account = Account(
            None if usd is None else _dollars(usd),
            None if tokens is None else _count("tokens", tokens),
            None if requests is None else _count("requests", requests),
        )
        if parent is not None and not isinstance(parent, Budget):
            raise ConfigurationError(f"Budget(parent=) is another Budget, not {parent!r}.")
        if unknown_price not in get_args(UnknownPrice):
            raise ConfigurationError(
                f"Budget(unknown_price=) is 'refuse' or 'ignore', not {unknown_price!r}."
            )
        if parent is None and usd is None and tokens is None and requests is None:
            raise ConfigurationError(
                "A budget needs a limit: Budget(usd=5), Budget(tokens=100_000) or "
                "Budget(requests=20)."
            )
        if parent is not None and self in with_parents([parent]):
            raise ConfigurationError("A budget cannot be its own parent.")
        self._parent = parent
        self._unknown_price: UnknownPrice = unknown_price
        self.account = account
        """For the layer that keeps calls within it."""

    @property
    def parent(self) -> Budget | None:
        """The budget that all of this one's calls draw on, too."""
        return self._parent

    @property
    def unknown_price(self) -> UnknownPrice:
        """What becomes of a call whose price is not known, where there is a limit in dollars."""
        return self._unknown_price

    @property
    def usd(self) -> float | None:
        """The limit in US dollars."""
        return None if self.account.usd is None else float(self.account.usd)

    @property
    def tokens(self) -> int | None:
        """The limit in tokens."""
        return self.account.tokens

    @property
    def requests(self) -> int | None:
        """The limit in requests."""
        return self.account.requests

    @property
    def spent_usd(self) -> float:
        """US dollars that calls have used, calls that were broken off included.

        Attempts without a price are left out: `unpriced_requests` says how many. Prices are looked
        up only for calls that some budget limits in dollars.
        """
        return float(self.account.spent.usd)

    @property
    def spent_tokens(self) -> int:
        """Tokens that calls have used."""
        return self.account.spent.tokens

    @property
    def spent_requests(self) -> int:
        """Attempts that were made."""
        return self.account.spent.requests

    @property
    def remaining_usd(self) -> float | None:
        """US dollars that a call could still draw; what is set aside is taken off. Never below 0.

        `None` without such a limit. What parents have left is theirs to say.
        """
        with lock:
            left = self.account.left(self).usd
        return None if left is None else float(left)

    @property
    def remaining_tokens(self) -> int | None:
        """Tokens that a call could still draw, like `remaining_usd`."""
        with lock:
            return self.account.left(self).tokens

    @property
    def remaining_requests(self) -> int | None:
        """Attempts that could still be made, like `remaining_usd`."""
        with lock:
            return self.account.left(self).requests

    @property
    def uncertain_usd(self) -> float:
        """Calls may have used so many US dollars more than `spent_usd` says, and no more.

        It is the sum, at the dearest price, of what attempts can have used of which the provider
        did not say: it timed out, or its stream was broken off.
        """
        return float(self.account.beyond.usd)

    @property
    def uncertain_tokens(self) -> int:
        """The same in tokens."""
        return self.account.beyond.tokens

    @property
    def unpriced_requests(self) -> int:
        """Attempts that have used tokens of which `spent_usd` says nothing."""
        return self.account.unpriced

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a budget cannot be pickled: a second one, in another process, would not hold together "
            "with this"
        )

    def __repr__(self) -> str:
        account = self.account
        with lock:
            left, held = account.left(self), account.held
            spent, beyond = account.spent, account.beyond
        told: list[str] = []
        if left.usd is not None:
            doubt = f", {in_dollars(beyond.usd)} uncertain" if beyond.usd else ""
            aside = f", {in_dollars(held.usd)} set aside" if held.usd else ""
            told.append(
                f"usd={account.usd:f}: {in_dollars(spent.usd)} spent{doubt}{aside}, "
                f"{in_dollars(left.usd)} left"
            )
            if account.unpriced:
                told.append(f"unpriced requests: {account.unpriced}")
        if left.tokens is not None:
            aside = f", {held.tokens} set aside" if held.tokens else ""
            told.append(f"tokens={account.tokens}: {spent.tokens} spent{aside}, {left.tokens} left")
        if left.requests is not None:
            aside = f", {held.requests} set aside" if held.requests else ""
            told.append(
                f"requests={account.requests}: {spent.requests} spent{aside}, {left.requests} left"
            )
        if self._parent is not None:
            told.append(f"parent={self._parent!r}")
        return f"Budget({'; '.join(told)})"


def checked_budget(budget: object) -> Budget | None:
    """The budget, or `None`. Raises `TypeError` for anything else."""
    if budget is not None and not isinstance(budget, Budget):
        raise TypeError(f"budget is a Budget, such as Budget(usd=5), not {budget!r}")
    return budget


def with_parents(budgets: Iterable[Budget]) -> tuple[Budget, ...]:
    """The budgets with all their parents, each once, however often it is reached."""
    found: dict[int, Budget] = {}
    for budget in budgets:
        current: Budget | None = budget
        while current is not None and id(current) not in found:
            found[id(current)] = current
            current = current.parent
    return tuple(found.values())


def in_dollars(usd: Decimal) -> str:
    """For a person: four decimals, or four digits of what is less than a dollar."""
    decimals = 4 if not usd or usd >= 1 else 3 - usd.adjusted()
    whole, _, part = f"{usd:.{decimals}f}".partition(".")
    return f"${whole}.{part.rstrip('0'):0<2}"


def _dollars(usd: object) -> Decimal:
    limit: Decimal | None = None
    if isinstance(usd, Decimal):
        limit = usd
    elif isinstance(usd, float):
        limit = Decimal(repr(float(usd)))  # what was written, not what the machine made of it
    elif isinstance(usd, int) and not isinstance(usd, bool):
        limit = Decimal(usd)
    if limit is None or not limit.is_finite() or limit < 0:
        raise ConfigurationError(f"Budget(usd=) is in US dollars, at least 0, not {usd!r}.")
    return limit


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"Budget({name}=) is a whole number of at least 0, not {value!r}.")
    return value
