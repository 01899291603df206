"""What layers are told: how many requests a minute, when to ask twice, whom to ask instead.

It must not know how any of it is done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from aether.errors import AetherError, ConfigurationError
from aether.llm.contracts import LLMProvider

__all__ = ["AfterContent", "Fallbacks", "Hedge", "RateLimit"]

AfterContent = Literal["raise", "restart", "continue"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How much a client may ask of one model in a minute; `None` is what the provider says.

    Calls beyond it wait, first come, first served. At most `max_waiting` do, and none longer than
    its deadline allows: it fails at once.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_waiting: int = field(default=1_000, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value > 0):
                raise ConfigurationError(f"RateLimit({name}=) must be above 0, not {value!r}.")
        waiting = self.max_waiting
        if isinstance(waiting, bool) or not isinstance(waiting, int) or waiting < 0:
            raise ConfigurationError(
                f"RateLimit(max_waiting=) must be a whole number of at least 0, not {waiting!r}."
            )


@dataclass(frozen=True, slots=True)
class Hedge:
    """When a call is made a second time, so that the quicker answer counts.

    That is after so many seconds without content, or where `after` is `None`, when 95 % of the
    latest calls had brought some; for at most `max_share` of the calls. `model` asks another one
    (`provider:model`, or a model of the same provider).
    """

    after: float | None = None
    max_share: float = 0.05
    model: str | None = None

    def __post_init__(self) -> None:
        if self.after is not None and not (_is_number(self.after) and self.after >= 0):
            raise ConfigurationError(
                f"Hedge(after=) is in seconds, at least 0, not {self.after!r}."
            )
        if not (_is_number(self.max_share) and 0 < self.max_share <= 1):
            raise ConfigurationError(
                f"Hedge(max_share=) is above 0 and at most 1, not {self.max_share!r}."
            )
        if self.model is not None and not (isinstance(self.model, str) and self.model):
            raise ConfigurationError(f"Hedge(model=) is a model's name, not {self.model!r}.")


@dataclass(frozen=True, slots=True)
class Fallbacks:
    """Whom to ask, in this order, when a provider cannot answer: `provider:model`, or providers.

    `after_content` says what happens when a stream breaks of which its reader has got a part
    already. `raise`: the error. `restart`: a chunk whose `restart` is true, and then another
    provider's whole answer. `continue`: another provider goes on from where it broke, if its model
    can; else the error.

    `on` says of an error whether the next one is asked, in place of the rule: that is where the
    error speaks against the provider, and not where it is the caller's own matter.
    """

    targets: Sequence[str | LLMProvider]
    after_content: AfterContent = "raise"
    on: Callable[[AetherError], bool] | None = None

    def __post_init__(self) -> None:
        targets = self.targets
        if isinstance(targets, str) or not isinstance(targets, Sequence) or not targets:
            raise ConfigurationError(
                'fallbacks is a list such as ["anthropic:claude-haiku-5-5"] that is not empty.'
            )
        for target in targets:
            named = isinstance(target, str) and target
            if not named and (isinstance(target, type) or not isinstance(target, LLMProvider)):
                raise ConfigurationError(
                    "A fallback is provider:model or a provider, which has `async def "
                    f"complete(self, request)`; {target!r} is neither."
                )
        if self.after_content not in get_args(AfterContent):
            raise ConfigurationError(
                f"after_content is raise, restart or continue, not {self.after_content!r}."
            )
        # A class is called too, but what it makes of an error is true of every error.
        if self.on is not None and (isinstance(self.on, type) or not callable(self.on)):
            raise ConfigurationError(
                "Fallbacks(on=) is a function of an error that says whether the next provider is "
                f"asked, not {self.on!r}."
            )


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max
