"""What a run costs as things grow around it. The steps are counted, not timed."""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import pytest

from aether import Aether, ProviderConfig
from aether.http.contracts import HTTPResponse
from aether.llm.contracts import ToolCall
from aether.registry import Registry
from aether.testing.faults.protocols import PROTOCOLS
from aether.testing.wires import Reply, WireRequest
from aether.tools import Tool, build_tool

TURNS = 50
MOST_STEPS_A_MESSAGE = 70
"""To write it once more into a request."""

each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
each_way = pytest.mark.parametrize("way", ["ask", "stream"])


class Steps:
    """The calls that are made in this thread, of Python functions and from them into C."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self._on = False

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is done inside."""
        collects = gc.isenabled()
        gc.disable()  # else it would finalize now and then what others have left
        self._on = True
        sys.setprofile(self._count)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._on = False
            if collects:
                gc.enable()

    @contextmanager
    def but_for(self) -> Iterator[None]:
        """Do not count what is done inside."""
        on, self._on = self._on, False
        try:
            yield
        finally:
            self._on = on

    def _count(self, _: FrameType, event: str, called: Any) -> None:
        if self._on and event in ("call", "c_call"):
            self.counted["steps"] += 1
            if event == "c_call" and called.__name__.startswith("validate_"):
                self.counted["validations"] += 1


@dataclass(frozen=True)
class Piecemeal:
    status: int
    headers: dict[str, str]
    pieces: Sequence[bytes]

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


class InProcess:
    """A transport to a model that calls `tool_0` for some turns, and then answers."""

    def __init__(self, protocol: str, turns: int) -> None:
        self._wire = PROTOCOLS[protocol].wire
        self._turns = turns
        self.steps = Steps()
        self.seen: list[Counter[str]] = []
        """What was counted by the time of each request."""

    async def request(
        self, method: str, url: str, *, headers: Any, body: Any = None, **_: Any
    ) -> HTTPResponse:
        with self.steps.but_for():
            reply, request = self._answer(method, url, headers, body)
            return HTTPResponse(200, self._headers(), self._wire.body(reply, request))

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, headers: Any, body: Any = None, **_: Any
    ) -> AsyncIterator[Piecemeal]:
        with self.steps.but_for():
            reply, request = self._answer(method, url, headers, body)
            events = self._wire.stream(reply, request).events
            typed = {**self._headers(), "content-type": self._wire.stream_type}
            answer = Piecemeal(200, typed, events)
        yield answer

    async def aclose(self) -> None: ...

    def _answer(self, method: str, url: str, headers: Any, body: Any) -> tuple[Reply, WireRequest]:
        self.seen.append(Counter(self.steps.counted))
        turn = len(self.seen)
        call = ToolCall(f"call_{turn}", "tool_0", {"a": turn})
        reply = Reply(calls=[call]) if turn <= self._turns else Reply("Done.")
        address = urlsplit(url)
        return reply, WireRequest(method, f"{address.path}?{address.query}", headers, body)

    @staticmethod
    def _headers() -> dict[str, str]:
        return {"content-type": "application/json"}


def client_of(protocol: str, transport: InProcess, registry: Registry | None = None) -> Aether:
    config = ProviderConfig(
        protocol.partition(".")[0],
        model="test-model-1",
        api_key="sk-canary",
        base_url="http://127.0.0.1:9" + PROTOCOLS[protocol].base_path,
        options=PROTOCOLS[protocol].options,
        transport=transport,
    )
    return Aether(config=config, registry=registry)


async def run(client: Aether, way: str, tools: Sequence[str | Tool], **options: Any) -> str:
    if way == "ask":
        return await client.ask("Go.", tools=tools, **options)
    return "".join([text async for text in client.stream_text("Go.", tools=tools, **options)])


async def same(a: int) -> int:
    return a


_TOOL = build_tool(same, trusted=True)


def tool_named(name: str) -> Tool:
    return dataclasses.replace(_TOOL, name=name)


async def steps_with(registered: int, protocol: str, way: str) -> Counter[str]:
    """What a flow of two turns takes that offers three tools, of so many that there are."""

    registry = Registry()
    for number in range(registered):
        registry.add("tool", f"tool_{number}", tool_named(f"tool_{number}"))
    counted: list[Counter[str]] = []
    for _ in range(3):  # the first ones load what is loaded once
        transport = InProcess(protocol, turns=1)
        async with client_of(protocol, transport, registry) as client:
            with transport.steps.counting():
                assert await run(client, way, ["tool_0", "tool_1", "tool_2"]) == "Done."
        counted.append(transport.steps.counted)
    return counted[-1]


@each_way
@each_protocol
async def test_tools_that_are_registered_and_not_offered_cost_a_call_nothing(
    protocol: str, way: str
) -> None:
    few = await steps_with(3, protocol, way)

    assert few["steps"] > 100
    assert await steps_with(1000, protocol, way) == few


@each_way
@each_protocol
async def test_a_turn_costs_more_only_by_what_it_sends_more(protocol: str, way: str) -> None:
    tools = [tool_named("tool_0")]
    transport = InProcess(protocol, TURNS)
    async with client_of(protocol, transport) as client:
        with transport.steps.counting():
            assert await run(client, way, tools, max_tool_iterations=TURNS + 1) == "Done."

    turns = [after - before for before, after in pairwise(transport.seen)]
    grown = [after["steps"] - before["steps"] for before, after in pairwise(turns)]
    assert len(turns) == TURNS
    assert set(grown[2:]) == {grown[2]}  # an answer and a result, whatever stands before them
    assert grown[2] <= 2 * MOST_STEPS_A_MESSAGE
    assert {turn["validations"] for turn in turns[1:]} == {turns[1]["validations"]}
