"""Estimates: what a call would use at least and at most, before it is sent.

It must not know how they are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from aether.llm.budget import in_dollars

__all__ = ["Estimate", "Expected"]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a call, or all turns of a loop, would use. `usd` is `None` if no price is known."""

    requests: int
    input_tokens: int
    output_tokens: int
    usd: float | None

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call would use at least and at most, and which model it would ask.

    At least is about what is sent in one turn, answered with nothing. At most is what a budget
    would set aside for each turn, where no attempt fails: a token for each byte that is sent,
    answered with `max_tokens`, or else the longest answer of the model, at its dearest price for
    such tokens. Of later turns nothing is known but that no model reads more than 2,097,152 tokens.
    What tools themselves use, such as agents that are delegated to, is not in it.
    """

    model: str | None
    least: Expected
    most: Expected

    def __str__(self) -> str:
        """In one line, for a person."""
        least, most = self.least, self.most
        cost = "cost not known"
        if least.usd is not None and most.usd is not None:
            cost = " to ".join(in_dollars(Decimal(repr(usd))) for usd in (least.usd, most.usd))
        requests = "1 request" if most.requests == 1 else f"1 to {most.requests} requests"
        return (
            f"{cost}: {requests} to {self.model or 'an unnamed model'}, {least.input_tokens} to "
            f"{most.input_tokens} tokens of input, up to {most.output_tokens} of output"
        )
