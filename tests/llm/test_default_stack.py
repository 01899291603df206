"""The three decorators together: stacked by hand they are what the builder makes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aether.config import ProviderConfig
from aether.errors import BadRequestError, CircuitOpenError, ServerError
from aether.extensions.llm.builder import build_stack
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider, Usage
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import KIND, LLMProvider, StreamChunk
from aether.registry import Registry
from tests.llm.scripted import Scripted, a_request, an_answer, deltas, text_until_error


def by_hand(provider: Scripted) -> tuple[LLMProvider, Usage]:
    stack = CostTrackingProvider(CircuitBreakerProvider(RetryingProvider(provider)))
    return stack, stack.usage


def by_builder(provider: Scripted) -> tuple[LLMProvider, Usage]:
    registry = Registry()
    registry.add(KIND, "scripted", lambda: provider)
    stack = build_stack(ProviderConfig(provider="scripted"), registry=registry, usage=Usage())
    return stack.provider, stack.usage


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults: Any = RetryingProvider.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "random", lambda: 0.0)


SCRIPTS: dict[str, list[Any]] = {
    "answers": [an_answer()],
    "recovers": [ServerError("no"), [StreamChunk(), ServerError("no")], deltas("42")],
    "refuses": [BadRequestError("no", status=400)],
    "breaks": [[StreamChunk(text="It "), ServerError("no")], deltas("42")],
    "fails": [ServerError("no")],
}


async def play(make: Callable[[Scripted], tuple[LLMProvider, Usage]], name: str) -> list[Any]:
    """What a user sees of seven calls, one after another."""
    provider = Scripted(*SCRIPTS[name])
    stack, usage = make(provider)
    seen: list[Any] = [repr(stack)]
    for _ in range(7):
        text, error = await text_until_error(stack.stream(a_request()))  # type: ignore[attr-defined]  # of a wrapper, which has it
        seen += [text, type(error), getattr(error, "attempts", None), provider.calls]
    seen += [usage.total_requests, [entry.state for entry in usage.ledger], usage.by_model.keys()]
    return seen


@pytest.mark.parametrize("name", SCRIPTS)
async def test_stacked_by_hand_it_behaves_like_the_builders(name: str) -> None:
    assert await play(by_hand, name) == await play(by_builder, name)


@pytest.mark.parametrize("make", [by_hand, by_builder])
async def test_five_failed_calls_open_the_circuit(make: Any) -> None:
    provider = Scripted(ServerError("no"))
    stack, usage = make(provider)
    assert repr(stack) == "CostTracking > CircuitBreaker > Retrying > Scripted"
    errors: list[Any] = []
    for _ in range(6):
        with pytest.raises((ServerError, CircuitOpenError)) as caught:
            await stack.complete(a_request())
        errors.append(caught.value)
    assert [error.attempts for error in errors[:5]] == [3] * 5
    assert isinstance(errors[5], CircuitOpenError)
    assert provider.calls == len(usage.ledger) == 15


@pytest.mark.parametrize("make", [by_hand, by_builder])
async def test_many_calls_at_once_do_not_meet(make: Any) -> None:
    script: list[Any] = [ServerError("no"), an_answer("1"), an_answer("2")] * 2
    provider = Scripted(*script, an_answer("3"))
    stack, usage = make(provider)
    results = await asyncio.gather(*(stack.complete(a_request()) for _ in range(50)))
    assert len(results) == usage.total_requests == 50
    assert provider.calls == len(usage.ledger) == 52
    contexts = {id(request.context) for request in provider.requests}
    assert len(contexts) == 50


async def test_every_call_has_a_context_of_its_own() -> None:
    provider = Scripted(an_answer())
    stack, _ = by_hand(provider)
    request = a_request()
    for _ in range(2):
        await stack.complete(request)
    first, second = provider.requests
    assert request.context is None
    assert first.context is not second.context
