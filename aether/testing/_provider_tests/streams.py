"""How an adapter reads a stream: alike however its bytes are cut, and never a part for the whole.

It must not know a protocol.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import pytest

from aether.errors import StreamInterruptedError
from aether.llm.contracts import LLMProvider, TokenUsage, ToolCall
from aether.llm.streaming import open_stream
from aether.testing._provider_tests.answering import ADD
from aether.testing._provider_tests.harness import (
    BOTH_WAYS,
    FULL,
    HELLO,
    AdapterHarness,
    Outcome,
    agrees,
    outcome,
)
from aether.testing.faults import Answer, Ending, FaultServer
from aether.testing.wires import Reply

__all__ = ["StreamTests"]

TINY = Reply(text="é!")
SHORT = Reply(
    text="Füße",
    calls=[ToolCall("call000Aa", "add", {"a": 1})],
    usage=TokenUsage(input_tokens=9, output_tokens=3),
)
REPLIES = {
    "text": HELLO,
    "everything": FULL,
    "a call alone": Reply(calls=[ToolCall("call000Aa", "add", {"a": 1, "b": 2})]),
    "nothing": Reply(),
}


class StreamTests(AdapterHarness):
    """Splitting, and early ends."""

    cuts: int = 900
    """At how many places the shortest stream is cut in two, where it has more; fewer for longer
    ones. Places near the ends of events and inside of characters come first."""

    @pytest.mark.parametrize("name", REPLIES)
    @BOTH_WAYS
    async def test_an_answer_says_what_was_sent(self, streaming: bool, name: str) -> None:
        reply = REPLIES[name]
        async with self._serving(reply) as (provider, _):
            came = await outcome(provider, self.request(tools=[ADD]), streaming=streaming)
        agrees(came.succeeded(), reply, self.wire)
        assert not streaming or came.text == reply.text

    async def test_a_stream_is_read_alike_wherever_it_is_cut_in_two(self) -> None:
        for reply, cuts in ((TINY, self.cuts), (SHORT, self.cuts // 3)):
            async with self._streaming(reply) as (provider, server, stream):
                data = b"".join(stream.events)
                for place in _places(stream.events, cuts):
                    await self._reads(provider, server, [data[:place], data[place:]], reply)

    async def test_a_stream_is_read_alike_in_pieces_of_any_size(self) -> None:
        chance = random.Random(1)  # noqa: S311 - the same pieces each time
        async with self._streaming(FULL) as (provider, server, stream):
            data = b"".join(stream.events)
            for size in (1, 2, 3, len(data)):
                split = [data[at : at + size] for at in range(0, len(data), size)]
                await self._reads(provider, server, split, FULL)
            for _ in range(20):
                cuts = sorted(chance.sample(range(1, len(data)), 30))
                split = [data[at:to] for at, to in pairwise([0, *cuts, len(data)])]
                await self._reads(provider, server, split, FULL)

    async def test_line_ends_and_comments_of_an_event_stream_change_nothing(self) -> None:
        if self.wire.stream_type != "text/event-stream":
            pytest.skip(f"its streams are {self.wire.stream_type}")
        async with self._streaming(FULL) as (provider, server, stream):
            plain = [event.replace(b"\r\n", b"\n") for event in stream.events]
            for line_end in (b"\n", b"\r\n", b"\r"):
                split = [event.replace(b"\n", line_end) for event in plain]
                await self._reads(provider, server, split, FULL)
            split = [b": a comment\n\n" + event for event in plain]
            await self._reads(provider, server, split, FULL)

    async def test_text_is_handed_out_as_it_comes(self) -> None:
        async with self._streaming(HELLO) as (provider, server, stream):
            events = stream.events[: stream.settled - 1]
            server.reply = self._events(events, "hanging")
            text = ""
            async with (
                asyncio.timeout(self.patience),
                open_stream(provider, self.request()) as chunks,
            ):
                async for chunk in chunks:  # if it waits for the end, this never returns
                    text += chunk.text
                    if text == HELLO.text:
                        break

    @pytest.mark.parametrize("ending", ["whole", "broken"])
    async def test_a_stream_that_ends_before_its_answer_is_an_error(self, ending: Ending) -> None:
        async with self._streaming(FULL) as (provider, server, stream):
            for count in range(len(stream.events)):
                events = stream.events[:count]
                came = await self._cut(provider, server, events, ending)
                with _cut_after(events[-1:]):
                    self._judge(came, FULL, whole=count >= stream.settled)

    @pytest.mark.parametrize("ending", ["whole", "broken"])
    async def test_a_stream_that_ends_inside_an_event_is_an_error(self, ending: Ending) -> None:
        async with self._streaming(SHORT) as (provider, server, stream):
            data = b"".join(stream.events)
            whole = len(b"".join(stream.events[: stream.settled]).rstrip())
            for place in _places(stream.events, self.cuts // 6):
                came = await self._cut(provider, server, [data[:place]], ending)
                with _cut_after([data[:place]]):
                    self._judge(came, SHORT, whole=place >= whole)

    async def test_a_whole_answer_in_place_of_a_stream_is_read_or_refused(self) -> None:
        async with self._streaming(FULL) as (provider, server, _):
            body = self.wire.body(FULL, server.requests[-1])
            for kind in (self.wire.stream_type, "application/json"):
                server.reply = Answer([body], headers={"content-type": kind})
                came = await outcome(provider, self.request(tools=[ADD]), streaming=True)
                if came.error is None:
                    agrees(came.succeeded(), FULL, self.wire)
                    assert came.text == FULL.text
                else:
                    came.failed()

    @pytest.mark.parametrize("ending", ["whole", "broken"])
    async def test_a_body_that_ends_early_is_an_error(self, ending: Ending) -> None:
        async with self._serving(SHORT) as (provider, server):
            await provider.complete(self.request())
            body = self.wire.body(SHORT, server.requests[-1])
            for place in _places([body], self.cuts // 9):
                server.reply = self._events([body[:place]], ending)
                came = await outcome(provider, self.request(), streaming=False)
                came.failed()

    @BOTH_WAYS
    async def test_a_connection_that_breaks_at_once_may_be_tried_again(
        self, streaming: bool
    ) -> None:
        endings: tuple[Ending, ...] = ("broken", "reset")
        for ending in endings:
            error = await self._refused(Answer(None, ending=ending), streaming=streaming)
            assert error.retryable, f"{error!r} is not retryable"

    async def _reads(
        self, provider: LLMProvider, server: FaultServer, split: Sequence[bytes], reply: Reply
    ) -> None:
        server.reply = self._events(split)
        came = await outcome(provider, self.request(tools=[ADD]), streaming=True)
        with _cut_after(split):
            agrees(came.succeeded(), reply, self.wire)
            assert came.text == reply.text, "the deltas do not join to the text"

    async def _cut(
        self, provider: LLMProvider, server: FaultServer, split: Sequence[bytes], ending: Ending
    ) -> Outcome:
        server.reply = self._events(split, ending)
        return await outcome(provider, self.request(tools=[ADD]), streaming=True)

    def _judge(self, came: Outcome, reply: Reply, *, whole: bool) -> None:
        if came.error is None and whole:
            agrees(came.succeeded(), reply, self.wire, counts_may_be_unknown=True)
            return
        error = came.failed()
        assert reply.text.startswith(came.text), f"{came.text!r} was handed out"
        if came.shown:
            assert isinstance(error, StreamInterruptedError), (
                f"no StreamInterruptedError: {error!r}"
            )
            assert error.partial is not None, "the error does not have what had come"
            assert error.partial.text == came.text
        else:
            assert error.retryable, f"nothing had come, and yet it is not retryable: {error!r}"


@contextmanager
def _cut_after(split: Sequence[bytes]) -> Iterator[None]:
    """Say in a failure where the bytes were cut."""
    try:
        yield
    except Exception as error:
        ends = [piece[-40:] for piece in split[:3]]
        error.add_note(f"The stream was cut after {ends}" + (" and so on." if split[3:] else "."))
        raise


def _places(events: Sequence[bytes], most: int) -> Iterator[int]:
    """Where to cut: near the events' ends and inside of characters first, then anywhere."""
    data = b"".join(events)
    every = range(1, len(data))
    telling = {at for at in every if data[at] & 0xC0 == 0x80}
    end = 0
    for event in events:
        end += len(event)
        telling.update(range(end - 3, end + 2))
    chosen = [at for at in every if at in telling]
    rest = [at for at in every if at not in telling]
    chance = random.Random(len(data))  # noqa: S311 - the same places each time
    yield from chosen
    yield from chance.sample(rest, min(len(rest), max(0, most - len(chosen))))
