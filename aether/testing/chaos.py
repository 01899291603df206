"""A decorator that makes a provider fail now and then, for tests without sockets.

It must not know what it wraps, nor who calls it: one seed gives the same faults to the same calls.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Literal

from aether.errors import (
    ConfigurationError,
    OverloadedError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)
from aether.llm.contracts import LLMProvider, LLMRequest, LLMResponse, StreamChunk
from aether.llm.streaming import open_stream
from aether.llm.wrapper import ProviderWrapper

__all__ = ["CHAOS", "ChaosProvider", "Trouble"]

Trouble = Literal[
    "rate_limit",
    "overloaded",
    "server",
    "connection",
    "timeout",
    "protocol",
    "lost_answer",
    "cut",
    "truncated",
    "delay",
]
"""What may go wrong.

The first six are raised before the inner provider is asked: a `RateLimitError` (with a
`retry_after` of a second), `OverloadedError`, `ServerError`, `ProviderConnectionError`,
`RequestTimeoutError` or `ProtocolError`. `lost_answer`: it was asked, and instead of its answer
comes a `ProviderConnectionError`. `cut`: a stream breaks off anywhere before its final chunk, with
a `StreamInterruptedError` that has what was handed out as its `partial`, or with a
`ProviderConnectionError` if that was nothing; `truncated`: it just ends, without its final chunk.
For a call that is no stream these two are `lost_answer`. `delay` does not fail: all goes well, but
late.
"""

CHAOS: Mapping[Trouble, float] = {
    "rate_limit": 0.02,
    "overloaded": 0.02,
    "server": 0.02,
    "connection": 0.02,
    "timeout": 0.02,
    "lost_answer": 0.02,
    "cut": 0.04,
    "truncated": 0.02,
    "delay": 0.02,
}
"""How often each happens if nothing else is said: one call in five has trouble, of which every
tenth is a `delay`, which does not fail."""

_ERRORS: Mapping[str, tuple[type[ProviderError], str, Mapping[str, object]]] = {
    "rate_limit": (RateLimitError, "too many requests", {"status": 429, "retry_after": 1.0}),
    "overloaded": (OverloadedError, "no capacity", {"status": 503}),
    "server": (ServerError, "an internal error", {"status": 500}),
    "connection": (
        ProviderConnectionError,
        "the connection could not be made",
        {"kind": "connect"},
    ),
    "timeout": (RequestTimeoutError, "no answer in time", {"kind": "read"}),
    "protocol": (ProtocolError, "an answer that is none", {}),
}


class ChaosProvider(ProviderWrapper):
    """Passes calls on, and lets some of them go wrong, as a provider and its network would.

        chaos = ChaosProvider(FakeProvider("Hello."), troubles={"overloaded": 0.5}, seed=7)
        client = Aether(RetryingProvider(chaos))

    Whatever is to bear the trouble stands around it: a client puts no retry around a provider that
    it is given. `troubles` says how often each `Trouble` happens, as a share of the calls from 0 to
    1; together they are at most 1. `CHAOS` if it is not given: one call in five has trouble, of
    each kind but `protocol`. Each attempt of a retry is a call. The same `seed` gives the same
    troubles to the same sequence of calls.

    `happened` has the trouble of each call so far, or `None`, in the order in which they began; a
    stream begins when its first chunk is asked for. `delay` is in seconds, waited for with `sleep`.
    Cancellation passes at once. A stream that is to break off is read to its end before its first
    chunk is handed out, so that `inner` has always answered whole.
    """

    def __init__(
        self,
        inner: LLMProvider,
        *,
        seed: int = 0,
        troubles: Mapping[Trouble, float] = CHAOS,
        delay: float = 0.05,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        super().__init__(inner)
        known = {*_ERRORS, "lost_answer", "cut", "truncated", "delay"}
        if unknown := troubles.keys() - known:
            raise ConfigurationError(
                f"There is no such trouble: {', '.join(sorted(unknown))}. "
                f"Known are {', '.join(sorted(known))}."
            )
        shares = troubles.values()
        if any(not 0 <= share <= 1 for share in shares) or math.fsum(shares) > 1 + 1e-9:
            raise ConfigurationError(
                "The shares of troubles are from 0 to 1, and at most 1 together."
            )
        self._troubles = dict(troubles)
        self._chance = random.Random(seed)  # noqa: S311 - which call fails is no secret
        self._delay = delay
        self._sleep = sleep
        self.happened: list[Trouble | None] = []

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        trouble = self._next_trouble()
        await self._begin(trouble)
        response = await self.inner.complete(request)
        if trouble in ("lost_answer", "cut", "truncated"):
            raise ProviderConnectionError("Chaos: the answer was lost on its way.", kind="reset")
        return response

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        trouble = self._next_trouble()
        where = self._chance.random()
        await self._begin(trouble)
        if trouble not in ("lost_answer", "cut", "truncated"):
            async with open_stream(self.inner, request) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        async with open_stream(self.inner, request) as chunks:
            whole = [chunk async for chunk in chunks]
        kept = 0 if trouble == "lost_answer" else int(where * len(whole))
        for chunk in whole[:kept]:
            yield chunk
        if trouble == "truncated":
            return
        if not any(chunk.has_content for chunk in whole[:kept]):
            raise ProviderConnectionError("Chaos: the stream was lost on its way.", kind="reset")
        raise StreamInterruptedError(
            "Chaos: the stream broke off.",
            kind="reset",
            partial=LLMResponse(
                "".join(chunk.text for chunk in whole[:kept]),
                request.model or self.default_model or "",
                reasoning="".join(chunk.reasoning or "" for chunk in whole[:kept]) or None,
            ),
        )

    def _next_trouble(self) -> Trouble | None:
        drawn = self._chance.random()
        happens: Trouble | None = None
        for trouble, share in self._troubles.items():
            if drawn < share:
                happens = trouble
                break
            drawn -= share
        self.happened.append(happens)
        return happens

    async def _begin(self, trouble: Trouble | None) -> None:
        if trouble == "delay":
            await self._sleep(self._delay)
        elif trouble is not None and trouble in _ERRORS:
            kind, message, fields = _ERRORS[trouble]
            raise kind(f"Chaos: {message}.", **fields)  # type: ignore[arg-type]  # of the table
