"""What an adapter holds, and when it lets go: connections, cancellation, closing, the ledger.

It must not know a protocol.
"""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from aether.errors import ClientClosedError
from aether.llm.contracts import CallContext, LLMRequest, Message
from aether.llm.streaming import open_stream
from aether.testing._provider_tests.answering import COUNTS, close
from aether.testing._provider_tests.harness import (
    BOTH_WAYS,
    FULL,
    HELLO,
    AdapterHarness,
    agrees,
    outcome,
)
from aether.testing.faults import Answer
from aether.testing.faults.server import turns
from aether.testing.wires import Reply, WireRequest

__all__ = ["LifecycleTests"]

Point = Literal["before the answer", "after its head", "in its middle"]
POINTS = pytest.mark.parametrize("point", ["before the answer", "after its head", "in its middle"])


class LifecycleTests(AdapterHarness):
    """Connections, cancellation, closing, concurrency, the ledger."""

    @POINTS
    @BOTH_WAYS
    async def test_a_cancelled_call_closes_its_connection_at_once(
        self, streaming: bool, point: Point
    ) -> None:
        with _no_collector():
            async with self._serving(lambda request: self._hanging(request, point)) as (
                provider,
                server,
            ):
                call = outcome(provider, self.request(), streaming=streaming)
                task = asyncio.ensure_future(call)
                await server.until_hanging()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await server.until_left()
                server.reply = HELLO
                came = await outcome(provider, self.request(), streaming=streaming)
                agrees(came.succeeded(), HELLO, self.wire)

    async def test_leaving_a_stream_early_closes_its_connection_at_once(self) -> None:
        with _no_collector():
            async with self._streaming(FULL) as (provider, server, stream):
                for ending in ("hanging", "whole"):
                    server.reply = self._events(stream.events[:-1], ending)
                    for _ in range(3):
                        async with open_stream(provider, self.request()) as chunks:
                            async for _ in chunks:
                                break
                        await server.until_left()
                await server.until_open(1)  # no more than one that is kept for reuse
                server.reply = HELLO
                came = await outcome(provider, self.request(), streaming=True)
                agrees(came.succeeded(), HELLO, self.wire)

    @BOTH_WAYS
    async def test_closing_closes_every_connection(self, streaming: bool) -> None:
        with _no_collector():
            async with self._serving(HELLO) as (provider, server):
                came = await asyncio.gather(
                    *(outcome(provider, self.request(), streaming=streaming) for _ in range(3))
                )
                for each in came:
                    agrees(each.succeeded(), HELLO, self.wire)
                server.reply = Answer([b"no"], 500)
                await outcome(provider, self.request(), streaming=streaming)
                await close(provider)
                await server.until_open(0)

    @BOTH_WAYS
    async def test_a_call_after_closing_is_an_error(self, streaming: bool) -> None:
        async with self._serving(HELLO) as (provider, server):
            if not hasattr(provider, "aclose"):
                pytest.skip("this provider has no aclose()")
            await outcome(provider, self.request(), streaming=streaming)
            await close(provider)
            await close(provider)
            asked = len(server.requests)
            came = await outcome(provider, self.request(), streaming=streaming)
            assert isinstance(came.error, ClientClosedError), f"it is {came.error!r}"
            assert len(server.requests) == asked

    async def test_calls_at_once_each_get_their_own_answer(self) -> None:
        count = 6
        arrived: list[WireRequest] = []
        everyone = asyncio.Event()

        async def script(request: WireRequest) -> Reply:
            arrived.append(request)
            place = len(arrived)
            if place == count:
                everyone.set()
            await everyone.wait()
            await turns(count - place)  # the last that came is the first to be answered
            question = re.search(rb"question-(\d)", request.body)
            assert question is not None, "the user's text is not in the body"
            return Reply(text=f"This is the answer to {question[1].decode()}.")

        async with self._serving(script) as (provider, _):
            came = await asyncio.gather(
                *(
                    outcome(provider, self._asking(f"question-{number}"), streaming=number % 2 == 0)
                    for number in range(count)
                )
            )
        for number, each in enumerate(came):
            assert each.succeeded().text == f"This is the answer to {number}."

    @BOTH_WAYS
    async def test_an_attempt_is_in_the_ledger_once_with_its_counts(self, streaming: bool) -> None:
        context = CallContext()
        async with self._serving(FULL) as (provider, _):
            request = self.request(context=context)
            response = (await outcome(provider, request, streaming=streaming)).succeeded()
        if not context.entries:
            pytest.skip("this provider leaves the ledger to others")
        assert len(context.entries) == 1
        entry = context.entries[0]
        assert entry.state == "exact"
        for name in COUNTS:
            assert getattr(entry, name) == getattr(response, name)

    @BOTH_WAYS
    async def test_an_attempt_that_failed_is_in_the_ledger_once(self, streaming: bool) -> None:
        refused = self.wire.error("rate_limit", "Wait.")
        answers = [
            Answer([refused.body], refused.status, refused.headers),
            Answer(None, ending="reset"),
        ]
        for answer in answers:
            context = CallContext()
            async with self._serving(answer) as (provider, _):
                await outcome(provider, self.request(context=context), streaming=streaming)
            if not context.entries:
                pytest.skip("this provider leaves the ledger to others")
            states = [entry.state for entry in context.entries]
            expected = "not_billed" if answer.status == refused.status else "unknown"
            assert states == [expected]

    async def test_a_stream_that_broke_off_is_in_the_ledger_once(self) -> None:
        context = CallContext()
        async with self._streaming(FULL) as (provider, server, stream):
            server.reply = self._events(stream.events[: stream.settled - 1], "broken")
            await outcome(provider, self.request(context=context), streaming=True)
        if not context.entries:
            pytest.skip("this provider leaves the ledger to others")
        assert [entry.state for entry in context.entries] in (["estimated"], ["exact"])

    @POINTS
    @BOTH_WAYS
    async def test_a_cancelled_attempt_is_in_the_ledger_once(
        self, streaming: bool, point: Point
    ) -> None:
        context = CallContext()
        async with self._serving(lambda request: self._hanging(request, point)) as (
            provider,
            server,
        ):
            request = self.request(context=context)
            task = asyncio.ensure_future(outcome(provider, request, streaming=streaming))
            await server.until_hanging()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        if not context.entries:
            pytest.skip("this provider leaves the ledger to others")
        assert len(context.entries) == 1
        assert context.entries[0].state in ("unknown", "estimated")

    def _asking(self, text: str) -> LLMRequest:
        return self.request(messages=[Message(role="user", content=text)])

    def _hanging(self, request: WireRequest, point: Point) -> Answer:
        if point == "before the answer":
            return Answer(None, ending="hanging")
        streamed = self.wire.wants_stream(request)
        kind = self.wire.stream_type if streamed else "application/json"
        pieces: list[bytes] = []
        if point == "in its middle" and streamed:
            stream = self.wire.stream(FULL, request)
            pieces = list(stream.events[: stream.settled // 2])
        elif point == "in its middle":
            body = self.wire.body(FULL, request)
            pieces = [body[: len(body) // 2]]
        return Answer(pieces, headers={"content-type": kind}, ending="hanging")


@contextmanager
def _no_collector() -> Iterator[None]:
    """What is let go of, is so without the garbage collector."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
