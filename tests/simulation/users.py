"""Users: what each of them does with the clients, how they change their minds, and fate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

from aether import Agent
from aether.errors import CircuitOpenError, RateLimitError
from aether.llm.call import CallContext
from aether.llm.contracts import LLMRequest, Message, StreamChunk
from aether.llm.streaming import open_stream
from tests.simulation.calls import Operation, current_operation
from tests.simulation.settling import OwnError, settle
from tests.simulation.world import World

__all__ = ["User", "crash"]

MOST_OPERATIONS = 4


class User:
    """One of the many, with a mind of its own."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self._chance = world.chance(f"user {number}")
        self.operations: list[Operation] = []

    async def live(self) -> None:
        """Do something at some time, and again if it is told to come back."""
        chance = self._chance
        wait: float | None = chance.choice((0.0, 0.0, chance.uniform(0.0, 60.0)))
        while wait is not None and len(self.operations) < MOST_OPERATIONS:
            await asyncio.sleep(wait)
            error = await self._operate()
            wait = _comes_back(error, self._world.return_rate, chance.random())

    async def _operate(self) -> BaseException | None:
        chance, world = self._chance, self._world
        kind, act = chance.choices(_KINDS, world.weights)[0]
        tag = f"u{self._number}.{len(self.operations)}"
        operation = Operation(tag, kind, started=world.loop.time())
        operation.client = chance.choice(world.clients)
        if kind in _OF_SESSIONS:
            operation.client, operation.session = chance.choice(world.sessions)
        self.operations.append(operation)
        context = copy_context()
        context.run(current_operation.set, operation)
        patience = chance.choice((None, None, None, None, None, 0.0, chance.uniform(0.0, 20.0)))
        task = world.loop.create_task(self._in_time(operation, act, patience), context=context)
        world.running[operation] = task
        if chance.random() < 0.2:
            await self._cancel_sometime(operation, task)
        await asyncio.wait({task})
        del world.running[operation]
        return settle(world, operation, task)

    async def _in_time(self, operation: Operation, act: Act, patience: float | None) -> str | None:
        async with asyncio.timeout(patience):
            return await act(self, operation)

    async def _cancel_sometime(self, operation: Operation, task: asyncio.Task[Any]) -> None:
        """Cancel it, once or twice, a few steps or some time from now."""
        chance = self._chance
        if chance.random() < 0.5:
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
        else:
            await asyncio.wait({task}, timeout=chance.choice((0.06, 0.5, 3.0, 30.0)))
        self._world.interrupt(operation)
        if chance.random() < 0.3:
            await asyncio.sleep(chance.choice((0.0, 0.0, 0.01)))
            self._world.interrupt(operation)

    # What they do. Each returns the text that it got, or `None` if it left.

    async def _ask(self, operation: Operation) -> str | None:
        return str(await operation.client.ask(_prompt(operation), **self._options(operation)))

    async def _stream(self, operation: Operation) -> str | None:
        stream = operation.client.stream(_prompt(operation), **self._options(operation))
        return await self._read(operation, stream)

    async def _ask_session(self, operation: Operation) -> str | None:
        self._world.turns.asked_for(operation)
        return str(await operation.session.ask(_prompt(operation), **self._options(operation)))

    async def _stream_session(self, operation: Operation) -> str | None:
        stream = operation.session.stream(_prompt(operation), **self._options(operation))
        self._world.turns.asked_for(operation)
        return await self._read(operation, stream)

    async def _history(self, operation: Operation) -> str | None:
        states = self._world.turns.states[operation.session.session_id]
        before = len(states)
        found = tuple((message.role, message.text) for message in await operation.session.history())
        possible = found in states[before - 1 :]
        self._world.judge.check(possible, "I9: %s read %s, which never was", operation.tag, found)
        return None

    async def _clear(self, operation: Operation) -> str | None:
        await operation.session.clear()
        return None

    async def _run_agent(self, operation: Operation) -> str | None:
        tools = self._world.tools
        agent = Agent("boss", tools=[tools.plain[0], tools.delegating], client=operation.client)
        result = await agent.run(_prompt(operation), max_tool_iterations=3)
        used = [
            call
            for tag, calls in self._world.calls.items()
            if tag == operation.tag or tag.startswith(f"{operation.tag}>")
            for call in calls
            if call.whole
        ]
        counted = result.usage.requests == len(used)
        self._world.judge.check(counted, "I12: %s used %s for %s", operation.tag, result, used)
        return result.text

    async def _call_stack(self, operation: Operation) -> str | None:
        """A call of the stack by hand, with a deadline."""
        chance, world = self._chance, self._world
        stack = chance.choice(world.stacks)
        deadline = world.loop.time() + chance.choice((0.0, 0.5, 10.0, 200.0))
        request = LLMRequest(
            [Message("user", _prompt(operation))],
            chance.choice(world.models),
            context=CallContext(deadline=deadline),
        )
        if chance.random() < 0.5:
            return (await stack.provider.complete(request)).text
        operation.streamed = True
        final: StreamChunk | None = None
        async with open_stream(stack.provider, request) as chunks:
            async for chunk in chunks:
                operation.shown.append(chunk.text)
                final = chunk
        assert final is not None
        assert final.response is not None
        return final.response.text

    def _options(self, operation: Operation) -> dict[str, Any]:
        chance = self._chance
        options: dict[str, Any] = {"model": chance.choice(self._world.models)}
        if chance.random() < 0.4:
            tools = self._world.tools
            every = [*tools.plain, tools.delegating]
            options["tools"] = chance.sample(every, k=chance.randint(1, 3))
            options["max_tool_iterations"] = 3
            operation.sequential = chance.random() < 0.3
            options["parallel_tools"] = not operation.sequential
        return options

    async def _read(self, operation: Operation, stream: Any) -> str | None:
        """Read a stream to its end, or leave it in one of the ways there are."""
        operation.streamed = True
        chance = self._chance
        way = chance.choice(("end", "end", "end", "break", "close", "raise", "drop", "keep"))
        leave_at = -1 if way == "end" else chance.randrange(5)
        pause = chance.choice((0.0, 0.0, 0.0, 1.0))
        if way == "keep":
            operation.kept = stream
        if way in ("drop", "keep", "close"):
            text = await self._read_on(operation, stream, leave_at, pause)
            if way == "close":
                await stream.aclose()
                self._check_closed(operation)
            return text
        async with stream:
            text = await self._read_on(operation, stream, leave_at, pause)
            if text is None and way == "raise":
                raise OwnError
        self._check_closed(operation)
        return text

    def _check_closed(self, operation: Operation) -> None:
        calls = self._world.calls.get(operation.tag, [])
        closed = not any(call.holds_connection for call in calls)
        self._world.judge.check(closed, "I10: %s has closed its stream, in vain", operation.tag)

    async def _read_on(
        self, operation: Operation, stream: Any, leave_at: int, pause: float
    ) -> str | None:
        if leave_at == 0:
            return None
        check = self._world.judge.check
        final: StreamChunk | None = None
        count = 0
        async for chunk in stream:
            check(final is None, "I7: %s got a chunk after the final one", operation.tag)
            count += 1
            if chunk.text:
                operation.shown.append(chunk.text)
            if chunk.is_final:
                final = chunk
                operation.whole = True
            elif count == leave_at:
                return None
            if pause:
                await asyncio.sleep(pause)
        check(final is not None, "I7: %s got no final chunk", operation.tag)
        return None if final is None or final.response is None else str(final.response.text)


async def crash(world: World, after: float) -> None:
    """A process dies some time from now, and is started again: what it had not stored is lost."""
    await asyncio.sleep(after)
    client = world.clients[0]
    for operation in world.running:
        if operation.client is client:
            operation.crashed = True
            world.interrupt(operation)
    world.restart(client)


def _comes_back(error: BaseException | None, rate: float, chance: float) -> float | None:
    """In how many seconds a user tries again: as it was told, if it was."""
    if isinstance(error, CircuitOpenError | RateLimitError) and error.retry_after and chance < 0.8:
        return error.retry_after if chance < 0.4 else error.retry_after * chance
    return 10 * chance if chance < rate else None


def _prompt(operation: Operation) -> str:
    return f"[{operation.tag}] What next?"


Act = Callable[[User, Operation], Awaitable[str | None]]
_KINDS: list[tuple[str, Act]] = [
    ("ask", User._ask),
    ("stream", User._stream),
    ("ask session", User._ask_session),
    ("stream session", User._stream_session),
    ("stack", User._call_stack),
    ("agent", User._run_agent),
    ("history", User._history),
    ("clear", User._clear),
]
_OF_SESSIONS = {"ask session", "stream session", "history", "clear"}
