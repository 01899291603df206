"""Every subset of the layers lets go and keeps its books, also where a call goes wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from aether import Aether, Budget
from aether.errors import DeadlineExceededError, ServerError, StreamInterruptedError
from aether.events import EVENT_NAMES, Event
from aether.llm.contracts import CallContext, LLMRequest, LLMResponse, StreamChunk, ToolCall
from aether.llm.streaming import OwnedStream
from tests.client.test_every_stack import (
    INPUT,
    OUTPUT,
    WORDS,
    Server,
    build,
    stacks,
    without_collector,
)

TIMEOUT = 1.0
AT_ONCE = 256
"""So many stacks share the wait for their deadlines."""
WAYS = ["whole", "streamed"]


class Hanging(Server):
    """Says a word, where it can, and then nothing more, unless it has a step to play."""

    def __init__(self, step: BaseException | None = None) -> None:
        super().__init__()
        self.step = step
        self.contexts: list[CallContext | None] = []
        self.reached = asyncio.Event()

    def __call__(self, timeout: Any = None) -> Hanging:
        return self

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        self._serve()
        self.contexts.append(request.context)
        self.open += 1
        try:
            await self._go_wrong()
        finally:
            self.open -= 1
        return self._answer(request)

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        self._serve()
        self.contexts.append(request.context)
        self.open += 1
        try:
            yield StreamChunk(WORDS[0])
            await self._go_wrong()
        finally:
            self.open -= 1

    async def _go_wrong(self) -> None:
        self.reached.set()
        if self.step is not None:
            raise self.step
        await asyncio.Event().wait()


class Calling(Server):
    """Calls a tool first, and answers when it has the result."""

    def __call__(self, timeout: Any = None) -> Calling:
        return self

    def _answer(self, request: LLMRequest) -> LLMResponse:
        answer = super()._answer(request)
        if request.messages[-1].role == "tool":
            return answer
        calls = [ToolCall("c1", "look", {})]
        return answer.model_copy(update={"tool_calls": calls, "finish_reason": "tool_calls"})


class Case:
    """One stack, what was told of it, and what its servers and its budget have seen."""

    def __init__(
        self, chosen: dict[str, bool], server: Server, spare: Server | None = None
    ) -> None:
        self.chosen = chosen
        self.server = server
        self.spare = spare or Server()
        self.client: Aether
        self.budget: Budget
        self.client, self.budget = build(chosen, server, self.spare)
        self.events: Counter[str] = Counter()
        self.runs: set[str] = set()
        for name in EVENT_NAMES:
            self.client.on(name)(self._note)

    def _note(self, event: Event) -> None:
        self.events.update([event.name])
        self.runs.add(event.run_id)

    async def ask(self, way: str, **options: Any) -> str:
        if way == "whole":
            return await self.client.ask("Hi", **options)
        return "".join([text async for text in self.client.stream_text("Hi", **options)])

    def check_end(self, way: str, *, served: int = 1, failed: bool = True) -> None:
        """Nothing is open, and each beginning has had one end."""
        kind = "request" if way == "whole" else "stream"
        end = "error" if failed else "complete"
        turns = served if way == "whole" and not failed else 1
        assert (self.server.served, self.server.open, self.spare.open) == (served, 0, 0)
        assert self.events[f"{kind}.start"] == self.events[f"{kind}.{end}"] == turns
        assert not self.events[f"{kind}.{'complete' if failed else 'error'}"]
        if self.chosen["with_cost_tracking"]:
            assert len(self.client.usage.ledger) == served + self.spare.served
        if self.chosen["budget"]:
            assert self.budget.spent_requests == served + self.spare.served

    def check_context(self, server: Server) -> None:
        """What it got says of which run it is, and when that must have ended."""
        assert isinstance(server, Hanging)
        [context] = server.contexts
        assert context is not None
        assert {context.run_id} == self.runs
        assert context.deadline is not None


async def every(
    work: Callable[[Case], Awaitable[None]],
    make: Callable[[], Server],
    spare: Callable[[], Server] = Server,
) -> None:
    """Do it with every stack, many at once."""

    async def one(case: Case) -> None:
        try:
            async with case.client:
                await work(case)
        except BaseException as error:
            error.add_note(f"stack: {[name for name in case.chosen if case.chosen[name]]}")
            raise

    left = list(stacks())
    while left:
        cases = [Case(chosen, make(), spare()) for chosen in left[:AT_ONCE]]
        del left[:AT_ONCE]
        with without_collector():
            async with asyncio.TaskGroup() as group:
                for case in cases:
                    group.create_task(one(case))
            assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("way", WAYS)
async def test_each_ends_with_the_deadline_of_the_call(way: str) -> None:
    async def check(case: Case) -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await case.ask(way, timeout=TIMEOUT)
        case.check_end(way)
        case.check_context(case.server)
        assert caught.value.attempts == 1
        assert case.spare.served == 0
        states = {"whole": "unknown", "streamed": "estimated"}
        if case.chosen["with_cost_tracking"]:
            assert [entry.state for entry in case.client.usage.ledger] == [states[way]]
        if way == "streamed":
            assert caught.value.partial is not None
            assert caught.value.partial.text == WORDS[0]

    await every(check, Hanging)


@pytest.mark.parametrize("way", WAYS)
async def test_each_ends_with_its_task(way: str) -> None:
    async def check(case: Case) -> None:
        assert isinstance(case.server, Hanging)
        task = asyncio.ensure_future(case.ask(way, timeout=60.0))
        await case.server.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        case.check_end(way)
        assert case.spare.served == 0

    await every(check, Hanging)


@pytest.mark.parametrize("way", WAYS)
async def test_whoever_is_asked_instead_has_no_more_time_and_draws_on_the_same_budget(
    way: str,
) -> None:
    async def check(case: Case) -> None:
        if not case.chosen["fallbacks"]:
            return
        budget = Budget(requests=10)
        with pytest.raises(DeadlineExceededError) as caught:
            await case.ask(way, timeout=TIMEOUT, budget=budget)
        case.check_end(way)
        case.check_context(case.spare)
        assert case.spare.served == 1
        assert budget.spent_requests == 2
        assert (caught.value.partial is not None) == (way == "streamed")

    def failing() -> Server:
        server = Server()
        server.failing = 1
        server.error = ServerError("out of order", status=500, retryable=False)
        return server

    await every(check, failing, Hanging)


async def test_no_text_is_repeated_after_what_was_shown() -> None:
    """The error, with what had come, and no other attempt."""

    async def read(stream: OwnedStream[str], shown: list[str]) -> None:
        async for text in stream:
            shown.append(text)  # noqa: PERF401 - what came before the error counts

    def bare(case: Case) -> bool:
        return not any(case.chosen[name] for name in ("with_retry", "fallbacks"))

    async def check(case: Case) -> None:
        shown: list[str] = []
        with pytest.raises(ServerError if bare(case) else StreamInterruptedError):
            await read(case.client.stream_text("Hi"), shown)
        assert shown == [WORDS[0]]
        case.check_end("streamed")
        assert case.spare.served == 0

    await every(check, lambda: Hanging(ServerError("out of order", status=500, retryable=True)))


@pytest.mark.parametrize("way", WAYS)
async def test_each_turn_of_a_tool_loop_is_a_call_of_its_own(way: str) -> None:
    async def look() -> str:
        """Look."""
        return "seen"

    async def check(case: Case) -> None:
        text = await case.ask(way, tools=[look], timeout=60.0)
        assert text == "".join(WORDS) * (1 if way == "whole" else 2)
        case.check_end(way, served=2, failed=False)
        assert case.events["tool.start"] == case.events["tool.complete"] == 1
        if case.chosen["with_cost_tracking"]:
            usage = case.client.usage
            assert (usage.total_input_tokens, usage.total_output_tokens) == (2 * INPUT, 2 * OUTPUT)
        if case.chosen["budget"]:
            assert case.budget.spent_tokens == 2 * (INPUT + OUTPUT)

    await every(check, Calling)
