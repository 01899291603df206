"""Cancelling at every point where a run can be suspended: nothing stays open, lost or half said."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from aether import Aether, ProviderConfig
from aether.events import EVENT_NAMES, Event
from aether.http.contracts import HTTPResponse

CALLS = [
    {"index": i, "id": f"c{i}", "function": {"name": "step", "arguments": "{}"}} for i in (0, 1)
]
USAGE = {"prompt_tokens": 3, "completion_tokens": 4}


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], "usage": USAGE}).encode() + b"\n\n"


STREAMS = (
    [chunk({"content": "let "}), chunk({"tool_calls": CALLS}), chunk({}, "tool_calls")],
    [chunk({"content": "a"}), chunk({"content": "b"}), chunk({}, "stop"), b"data: [DONE]\n\n"],
)
MESSAGES = ({"content": "", "tool_calls": CALLS}, {"content": "ab"})


class Suspending:
    """Suspends where a real transport may. Its first answer calls tools, its second is text."""

    def __init__(self) -> None:
        self.requests = 0
        self.open = 0

    async def request(self, method: str, url: str, **_: Any) -> HTTPResponse:
        with self._exchange() as number:
            await asyncio.sleep(0)
            choice: dict[str, Any] = {"message": MESSAGES[number], "finish_reason": "stop"}
            body = json.dumps({"choices": [choice], "usage": USAGE}).encode()
            return HTTPResponse(200, {}, body)

    @asynccontextmanager
    async def stream(self, method: str, url: str, **_: Any) -> AsyncIterator[Body]:
        with self._exchange() as number:
            await asyncio.sleep(0)
            yield Body(self, STREAMS[number])

    async def aclose(self) -> None:
        return

    @contextmanager
    def _exchange(self) -> Iterator[int]:
        self.requests += 1
        self.open += 1
        try:
            yield self.requests - 1
        finally:
            self.open -= 1


class Body:
    status = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - as the port has it

    def __init__(self, transport: Suspending, pieces: Sequence[bytes]) -> None:
        self._transport = transport
        self._pieces = pieces

    async def chunks(self) -> AsyncIterator[bytes]:
        self._transport.open += 1
        try:
            for piece in self._pieces:
                await asyncio.sleep(0)
                yield piece
        finally:
            self._transport.open -= 1


async def step() -> str:
    await asyncio.sleep(0)
    return "ok"


async def ask(client: Aether) -> None:
    assert await client.ask("go", tools=[step]) == "ab"


async def stream(client: Aether) -> None:
    texts = [text async for text in client.stream_text("go", tools=[step])]
    assert texts == ["let ", "a", "b"]


async def leave(client: Aether) -> None:
    async for text in client.stream_text("go", tools=[step]):
        if text == "a":
            break
    await asyncio.sleep(0)


async def ask_in_session(client: Aether) -> None:
    assert await client.session("s").ask("go", tools=[step]) == "ab"


async def stream_in_session(client: Aether) -> None:
    texts = [text async for text in client.session("s").stream_text("go", tools=[step])]
    assert texts == ["let ", "a", "b"]


@pytest.mark.row("M9", "T6")
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("slow_subscribers", [False, True])
@pytest.mark.parametrize("flow", [ask, stream, leave, ask_in_session, stream_in_session])
async def test_a_cancelled_run_leaves_nothing_behind(
    flow: Callable[[Aether], Awaitable[None]],
    slow_subscribers: bool,
    times: int,
) -> None:
    outcomes: list[bool] = []
    while not outcomes or outcomes[-1]:
        outcomes.append(await _cancel_after(len(outcomes), flow, slow_subscribers, times))
        assert len(outcomes) < 200
    assert len(outcomes) > 5  # points at which it was cancelled, until it was over before


async def _cancel_after(
    ticks: int, flow: Callable[[Aether], Awaitable[None]], slow_subscribers: bool, times: int
) -> bool:
    """Whether the run was still under way, and so was cancelled."""
    transport = Suspending()
    config = ProviderConfig(
        "openai",
        model="m",
        api_key="sk-canary-0123456789",
        transport=transport,
        options={"api": "chat"},
    )
    seen: list[Event] = []

    async def slow(event: Event) -> None:
        await asyncio.sleep(0)

    async with Aether(config=config) as client:
        for name in EVENT_NAMES:
            client.events.subscribe(name, seen.append)
            if slow_subscribers:
                client.events.subscribe(name, slow)
        run = asyncio.ensure_future(flow(client))
        for _ in range(ticks):
            await asyncio.sleep(0)
        for _ in range(times):
            run.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([run], timeout=5)
        assert run.done()
        for _ in range(8):
            await asyncio.sleep(0)

        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert transport.open == 0
        names = Counter(event.name for event in seen)
        for kind in ("request", "stream", "tool"):
            ends = names[f"{kind}.complete"] + names[f"{kind}.error"]
            assert names[f"{kind}.start"] == ends
        states = [entry.state for entry in client.usage.ledger]
        assert len(states) == transport.requests
        assert "pending" not in states
        stored = await client.session("s").history()
        whole = flow in (ask_in_session, stream_in_session) and not run.cancelled()
        assert len(stored) == (2 if whole else 0)
        if not run.cancelled():
            run.result()
        return run.cancelled()
