"""What a server of faults did with one request, and what a provider would bill for it.

It must not know how the answer was sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from aether.llm.contracts import TokenUsage
from aether.llm.sizing import estimate_tokens
from aether.testing.wires.contracts import Reply, WireRequest, arguments_text

__all__ = ["Outcome", "Served", "true_usage"]

Outcome = Literal["pending", "whole", "cut", "left"]
"""`pending`: it is under way. `whole`: all of the answer was written, as the faults had made it.
`cut`: less, as the script said, or not how it ends; so is an answer in raw bytes. `left`: less,
since the peer had left, or the server was stopped."""


_ROUNDING = 1e-6


@dataclass(slots=True)
class Served:
    """One request, and what came of it. The tokens are those that a provider would bill: 0, and
    not unknown, where it would bill none.

    A request that was refused costs nothing. One that a model answered costs its whole input, and
    the output that was written: all of it where the answer is no stream, since such an answer is
    written before it is sent, and of a stream the share of its events that was sent, in which what
    was thought comes first. An event was sent, too, if only the line ends lack that close it.
    """

    request: WireRequest
    faults: tuple[str, ...] = ()
    """What was done to the answer, by name."""
    status: int | None = None
    """`None` if no status line was written."""
    outcome: Outcome = "pending"
    model: str | None = None
    """The model that answered."""
    reply: Reply | None = None
    """What it answered, all of it, however much of that was sent; `None` if no model ran."""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    pieces: int = 0
    """Events, or other pieces of the body, that were written whole."""
    bytes_written: int = 0

    @property
    def billed(self) -> bool:
        """Whether a model ran for it."""
        return self.input_tokens > 0 or self.output_tokens > 0

    def bill(self, reply: Reply, *, share: float) -> None:
        """A model read the whole input and wrote this share, from 0 to 1, of the reply."""
        usage = true_usage(reply, self.request)
        self.model, self.reply = reply.model, reply
        self.input_tokens = usage.input_tokens or 0
        self.cache_read_tokens = usage.cache_read_tokens or 0
        self.cache_write_tokens = usage.cache_write_tokens or 0
        written = (usage.output_tokens or 0) * min(share, 1.0)
        self.output_tokens = ceil(written - _ROUNDING)
        self.reasoning_tokens = min(usage.reasoning_tokens or 0, self.output_tokens)


def true_usage(reply: Reply, request: WireRequest) -> TokenUsage:
    """What the reply says that it used, and where it says nothing, a token for four characters."""
    told = reply.usage or TokenUsage()
    written = len(reply.text) + len(reply.reasoning)
    written += sum(len(call.name) + len(arguments_text(call)) for call in reply.calls)
    return TokenUsage(
        input_tokens=told.input_tokens
        if told.input_tokens is not None
        else max(1, estimate_tokens(len(request.body))),
        output_tokens=told.output_tokens
        if told.output_tokens is not None
        else estimate_tokens(written),
        cache_read_tokens=told.cache_read_tokens,
        cache_write_tokens=told.cache_write_tokens,
        reasoning_tokens=told.reasoning_tokens,
    )
