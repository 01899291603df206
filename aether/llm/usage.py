"""Tokens and money: what was used, and the ledger entry of one attempt.

It must not know where a price comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Literal, TypeVar

__all__ = ["EntryState", "LedgerEntry", "TokenUsage", "add_known"]

N = TypeVar("N", int, float)

EntryState = Literal["pending", "exact", "estimated", "unknown", "not_billed"]


def add_known(a: N | None, b: N | None) -> N | None:
    """The sum of what is known; `None` if neither is."""
    if a is None:
        return b
    return a if b is None else a + b


@dataclass(slots=True)
class TokenUsage:
    """Tokens over any number of provider calls.

    Input includes what was read from and written to a prompt cache; output includes reasoning.
    A count is the sum of what was reported, and `None` if no call reported it. `cost_usd` is
    `None` if no price is known.
    """

    requests: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            self.requests + other.requests,
            add_known(self.input_tokens, other.input_tokens),
            add_known(self.output_tokens, other.output_tokens),
            add_known(self.cache_read_tokens, other.cache_read_tokens),
            add_known(self.cache_write_tokens, other.cache_write_tokens),
            add_known(self.reasoning_tokens, other.reasoning_tokens),
            add_known(self.cost_usd, other.cost_usd),
        )


@dataclass(slots=True)
class LedgerEntry:
    """What one attempt (one HTTP request; one call, for a provider without HTTP) cost.

    `exact`: the provider reported its usage. `estimated`: it was billed, and what the provider did
    not report is our estimate. `unknown`: it may have been billed; there are only the counts that
    the provider reported. `not_billed`: it was refused or never sent. `pending`: it is under way.
    """

    provider: str | None = None
    model: str | None = None
    state: EntryState = "pending"
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    """What the provider says that it cost, where it says so: that counts, not a table's price."""
    run_id: str | None = None
    request_id: str | None = None
    error: str | None = None
    """The name of the error's class, where the attempt failed."""
    requested_model: str | None = None
    """The model that was asked for; `model` is the one that answered, once that is known."""
    started_at: datetime = field(default_factory=partial(datetime.now, UTC))
    token_details: dict[str, int] = field(default_factory=dict)
    """Parts of the counts that may have a price of their own, as `LLMResponse.token_details`."""
    most_input_tokens: int | None = None
    """Where `input_tokens` is an estimate or unknown, there were no more than this; else `None`."""
    most_output_tokens: int | None = None
    """The same of `output_tokens`, which then may have been less, too."""
