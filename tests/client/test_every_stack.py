"""Every subset of the layers composes: 1,024 stacks, each as the builder orders it."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import pytest

from aether import Aether, Budget, Hedge, ProviderConfig, RateLimit
from aether.errors import ServerError
from aether.extensions.llm.explaining import ORDER, warnings_about
from aether.extensions.llm.retrying import RetryingProvider
from aether.http.contracts import Timeout
from aether.llm.contracts import LLMRequest, LLMResponse, StreamChunk
from aether.llm.streaming import final_chunk
from aether.llm.wrapper import ProviderWrapper, layers_of
from aether.registry import Registry

OUTER = ("layers", "cache", "fallbacks", "hedge", "budget")
INNER = ("rate_limit", "timeout")
FLAGS = ("with_retry", "with_circuit_breaker", "with_cost_tracking")
INPUT, OUTPUT = 7, 3
WORDS = ("It ", "is ", "42.")


class Server:
    """A provider that counts what it served, and fails at first if it is told to."""

    def __init__(self) -> None:
        self.served = 0
        self.open = 0
        self.failing = 0
        self.error = ServerError("out of order", status=500, retryable=True)

    def __call__(self, timeout: Any = None) -> Server:
        return self

    default_model = "scripted-1"

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        self._serve()
        return self._answer(request)

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        self._serve()
        self.open += 1
        try:
            for word in WORDS:
                yield StreamChunk(word)
            yield final_chunk(self._answer(request))
        finally:
            self.open -= 1

    def _serve(self) -> None:
        self.served += 1
        if self.failing:
            self.failing -= 1
            raise self.error

    def _answer(self, request: LLMRequest) -> LLMResponse:
        return LLMResponse(
            text="".join(WORDS),
            model=request.model or self.default_model,
            input_tokens=INPUT,
            output_tokens=OUTPUT,
            finish_reason="stop",
            provider="scripted",
        )


def stacks() -> Iterator[dict[str, bool]]:
    names = (*OUTER, *FLAGS, *INNER)
    for values in product((False, True), repeat=len(names)):
        yield dict(zip(names, values, strict=True))


@contextmanager
def without_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def build(chosen: dict[str, bool], server: Server, spare: Server) -> tuple[Aether, Budget]:
    """The client with the layers that were chosen, and the budget that it has or might have."""
    registry = Registry()
    registry.register("llm_provider", "scripted")(server)
    budget = Budget(requests=100, tokens=10_000_000)
    given: dict[str, Any] = {
        "layers": [ProviderWrapper],
        "cache": True,
        "fallbacks": [spare],
        "hedge": Hedge(after=60.0),
        "budget": budget,
        "rate_limit": RateLimit(requests_per_minute=1_000_000),
    }
    options = {name: given[name] for name in given if chosen[name]}
    options |= {name: chosen[name] for name in FLAGS}
    timeout = Timeout(first_content=60.0, stall=60.0) if chosen["timeout"] else None
    config = ProviderConfig(provider="scripted", timeout=timeout)
    return Aether(config=config, registry=registry, **options), budget


async def check(chosen: dict[str, bool]) -> None:
    server, spare = Server(), Server()
    client, budget = build(chosen, server, spare)
    events: Counter[str] = Counter()
    for name in ("request.start", "request.complete", "request.error"):
        client.on(name)(lambda event: events.update([event.name]))
    for name in ("stream.start", "stream.complete", "stream.error"):
        client.on(name)(lambda event: events.update([event.name]))

    async with client:
        whole = await client.complete("Whole?")
        async with client.stream("Streamed?") as stream:
            chunks = [chunk async for chunk in stream]
        assert "".join(chunk.text for chunk in chunks) == whole.text == "".join(WORDS)
        assert [chunk.is_final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1].response == whole
        assert (server.served, server.open) == (2, 0)

        with without_collector():
            async with client.stream("Left?") as stream:
                async for _ in stream:
                    break
            assert server.open == 0
        assert events == {
            "request.start": 1,
            "request.complete": 1,
            "stream.start": 2,
            "stream.complete": 1,
            "stream.error": 1,
        }

        made = server.served
        if chosen["with_cost_tracking"]:
            usage = client.usage
            assert [entry.state for entry in usage.ledger] == ["exact", "exact", "estimated"]
            assert usage.total_requests == 2
            assert usage.total_input_tokens == 2 * INPUT
            assert usage.total_output_tokens == 2 * OUTPUT
        if chosen["budget"]:
            left = client.usage.ledger[-1] if chosen["with_cost_tracking"] else None
            if left is not None:
                of_left = (left.input_tokens or 0) + (left.output_tokens or 0)
                assert budget.spent_tokens == 2 * (INPUT + OUTPUT) + of_left
            assert budget.spent_requests == made == 3

        if chosen["cache"]:
            spent = budget.spent_requests
            first = await client.complete("Again?", temperature=0.0)
            again = await client.complete("Again?", temperature=0.0)
            assert (first.cached, again.cached, again.text) == (False, True, first.text)
            assert server.served == made + 1
            assert budget.spent_requests == spent + chosen["budget"]

    assert list(warnings_about(client.provider)) == []
    names = [type(layer).__name__ for layer in layers_of(client.provider)]
    assert [name for name in ORDER if name in names] == [name for name in names if name in ORDER]


@pytest.mark.parametrize("flags", list(product((False, True), repeat=3)), ids=str)
async def test_a_stack_answers_counts_and_lets_go_whatever_it_is_made_of(
    flags: tuple[bool, bool, bool],
) -> None:
    for chosen in stacks():
        if tuple(chosen[name] for name in FLAGS) == flags:
            try:
                await check(chosen)
            except BaseException as error:
                error.add_note(f"stack: {[name for name in chosen if chosen[name]]}")
                raise


async def test_what_fails_is_retried_or_answered_by_a_fallback_whatever_stands_around(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_once = partial(RetryingProvider, base_delay=0.0)
    monkeypatch.setattr("aether.extensions.llm.builder.RetryingProvider", at_once)
    for chosen in stacks():
        server, spare = Server(), Server()
        client, budget = build(chosen, server, spare)
        server.failing = 1
        async with client:
            if chosen["with_retry"]:
                expected = (2, 0)
            elif chosen["fallbacks"]:
                expected = (1, 1)
            else:
                with pytest.raises(ServerError):
                    await client.ask("Hi")
                continue
            assert await client.ask("Hi") == "".join(WORDS)
        assert (server.served, spare.served) == expected
        if chosen["with_cost_tracking"]:
            assert len(client.usage.ledger) == 2
            assert client.usage.total_requests == 1
        if chosen["budget"]:
            assert budget.spent_requests == 2
