"""Cancelled at any point, or left, a call that is made twice leaves nothing of either behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from aether.errors import AetherError, ServerError
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.fallback import FallbackProvider
from aether.extensions.llm.hedging import HedgingProvider
from aether.llm.contracts import LLMProvider, LLMRequest, LLMResponse, StreamChunk
from aether.llm.policies import Hedge
from tests.faults.sweep import (
    PATIENCE_SECONDS,
    WAYS,
    Cancelling,
    Way,
    every_pair_of_points,
    every_point,
    pause,
)
from tests.llm.scripted import Timer, a_request, an_answer, deltas

Script = tuple[int, bool]
"""So many suspensions until the answer, or, if it is false, until the error."""

SCRIPTS: dict[str, tuple[Script, Script]] = {
    "the first wins": ((4, True), (6, True)),
    "the second wins": ((20, True), (2, True)),
    "both at once": ((4, True), (2, True)),
    "the first fails": ((4, False), (6, True)),
    "the second fails": ((9, True), (2, False)),
    "both fail": ((4, False), (6, False)),
    "the first alone": ((1, True), (0, True)),
}


class Paced:
    """Each step of it can be suspended, as over a network, and its cleaning up too."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.count = 0
        self.open = 0

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        texts = [chunk async for chunk in self.stream(request)]
        assert texts[-1].response is not None
        return texts[-1].response

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        pauses, answers = self._scripts[self.count]
        self.count += 1
        self.open += 1
        try:
            yield StreamChunk()
            for _ in range(pauses):
                await pause()
            if not answers:
                raise ServerError("no")
            for chunk in deltas("It ", "is ", "42."):
                yield chunk
                await pause()
        finally:
            try:
                await pause()
            finally:
                self.open -= 1


def _soon(_: float, call: Callable[[], None]) -> Timer:
    """After two turns of the loop."""
    timer, loop = Timer(call), asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, timer)
    return timer


def build(*scripts: Script) -> tuple[CostTrackingProvider, Paced]:
    inner = Paced(*scripts)
    hedge = Hedge(after=0.0, max_share=1.0)
    return CostTrackingProvider(HedgingProvider(inner, hedge, call_later=_soon)), inner


async def complete(stack: Any) -> None:
    assert (await stack.complete(a_request())).text == "It is 42."


async def stream(stack: Any) -> None:
    chunks = [chunk async for chunk in stack.stream(a_request())]
    assert "".join(chunk.text for chunk in chunks) == "It is 42."


async def left_early(stack: Any) -> None:
    chunks = stack.stream(a_request())
    try:
        async for chunk in chunks:
            if chunk.text:
                break
    finally:
        await chunks.aclose()


FLOWS: dict[str, Callable[[Any], Awaitable[None]]] = {
    "complete": complete,
    "stream": stream,
    "left early": left_early,
}


async def attempt(flow: str, name: str, cancelling: Cancelling) -> None:
    stack, inner = build(*SCRIPTS[name])
    before = asyncio.all_tasks()

    async def run() -> None:
        try:
            await FLOWS[flow](stack)
        except AetherError as error:
            assert "fail" in name, error

    await cancelling.run(run())
    assert asyncio.all_tasks() == before
    assert inner.open == 0
    entries = stack.usage.ledger
    assert len(entries) == inner.count
    assert all(each.state != "pending" for each in entries)


@pytest.fixture(autouse=True)
def _without_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("flow", FLOWS)
async def test_nothing_is_left_at_any_point(flow: str, name: str, way: Way) -> None:
    async def at(cancelling: Cancelling) -> None:
        await attempt(flow, name, cancelling)

    assert await every_point(way, at) > 3


@pytest.mark.parametrize("name", ["the first wins", "the second wins", "the first fails"])
@pytest.mark.parametrize("flow", FLOWS)
async def test_nor_at_any_two(flow: str, name: str) -> None:
    async def at(cancelling: Cancelling) -> None:
        await attempt(flow, name, cancelling)

    assert await every_pair_of_points(at) > 3


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("name", ["the first wins", "the second wins", "the second fails"])
async def test_a_call_that_was_not_cancelled_leaves_no_cancellation(flow: str, name: str) -> None:
    """The first is interrupted as by a limit of time: whoever called must not notice."""
    stack, _ = build(*SCRIPTS[name])
    task = asyncio.current_task()
    assert task is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        await FLOWS[flow](stack)
        assert task.cancelling() == 0
        await asyncio.sleep(0)


async def test_in_a_task_that_was_cancelled_before_it_works_too() -> None:
    """As in code that cleans up: its own cancellation stays as it is."""
    seen: list[Any] = []

    async def cleaning_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stack, _ = build(*SCRIPTS["the second wins"])
            seen.append((await stack.complete(a_request())).text)
            task = asyncio.current_task()
            seen.append(task and task.cancelling())

    task = asyncio.ensure_future(cleaning_up())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert seen == ["It is 42.", 1]


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("flow", FLOWS)
async def test_nothing_of_a_call_waits_for_the_collector(flow: str, name: str) -> None:
    """Whole, and cancelled after so many turns of the loop."""

    async def attempt_once(turns: int) -> None:
        stack, _ = build(*SCRIPTS[name])
        task = asyncio.ensure_future(FLOWS[flow](stack))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})  # what it raises would hold this frame, and the frame it
        assert task.cancelled() or isinstance(task.exception(), AetherError | None)

    await attempt_once(100)
    gc.collect()
    for turns in (*range(1, 30), 100):
        await attempt_once(turns)
    await asyncio.sleep(0)
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        found = [each for each in gc.garbage if type(each).__name__ in ("_Call", "Race", "Branch")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not found


# --- falling back, in the same way --------------------------------------------------------------


class BreaksOff(Paced):
    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        async with aclosing(super().stream(request)) as chunks:
            async for chunk in chunks:
                if chunk.text == "is ":
                    raise ServerError("down")
                yield chunk


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", ["fails", "breaks off"])
@pytest.mark.parametrize("flow", FLOWS)
async def test_of_a_fallback_nothing_is_left_either(flow: str, first: str, way: Way) -> None:
    async def at(cancelling: Cancelling) -> None:
        a = Paced((3, False)) if first == "fails" else BreaksOff((3, True))
        b = Paced((3, True))
        providers: list[LLMProvider] = [b]
        stack = CostTrackingProvider(FallbackProvider(a, providers, after_content="restart"))
        before = asyncio.all_tasks()

        async def run() -> None:
            if flow == "stream":
                chunks = [chunk async for chunk in stack.stream(a_request())]
                assert chunks[-1].response == an_answer("It is 42.", attempts=2)
            else:
                await FLOWS[flow](stack)

        await cancelling.run(run())
        assert asyncio.all_tasks() == before
        assert a.open == b.open == 0
        assert len(stack.usage.ledger) == a.count + b.count

    assert await every_point(way, at) > 3
