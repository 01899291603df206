"""`timeout=` of a call is one deadline for all that the call does, and what it leads to."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from aether import Aether, Agent, RateLimit
from aether.errors import DeadlineExceededError, InputError, RateLimitError, ServerError
from aether.events import EVENT_NAMES, Event
from aether.extensions.llm.factory import build_provider
from aether.extensions.llm.retrying import RetryingProvider
from aether.extensions.memory.in_memory import InMemorySessionStore
from aether.llm.contracts import LLMRequest, LLMResponse, StreamChunk, ToolCall
from aether.llm.scope import time_left
from aether.llm.streaming import OwnedStream, final_chunk
from aether.registry import Registry
from aether.testing import FaultServer, faults

SOON = 0.03
"""Seconds: a timeout that a test waits for."""
AWHILE = 0.15
"""The same, where something is to happen before."""
PATIENCE = 20.0
"""Seconds: nothing that should not have been waited for is shorter."""
OVERRUN = 0.05


def calls(*names: str, **arguments: Any) -> LLMResponse:
    """An answer that calls these tools."""
    asked = [ToolCall(f"c{n}", name, arguments) for n, name in enumerate(names)]
    return LLMResponse("", "m", 1, 1, tool_calls=asked, finish_reason="tool_calls")


class Slow:
    """Plays answers; a number is so many seconds of silence. Goes on where it was in each call."""

    default_model = "m"

    def __init__(self, *script: LLMResponse | str | float | BaseException) -> None:
        self.script = list(script)
        self.requests: list[LLMRequest] = []
        self.open = 0
        self.begun = asyncio.Event()

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        self.requests.append(request)
        self.open += 1
        self.begun.set()
        try:
            while True:
                step = self.script.pop(0) if self.script else "done"
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, LLMResponse):
                    return step
                if isinstance(step, str):
                    return LLMResponse(step, "m", 1, 1, finish_reason="stop")
                await asyncio.sleep(step)
        finally:
            self.open -= 1

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        self.requests.append(request)
        self.open += 1
        self.begun.set()
        said = ""
        try:
            while self.script:
                step = self.script.pop(0)
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, LLMResponse):
                    yield final_chunk(step)
                    return
                if isinstance(step, str):
                    said += step
                    yield StreamChunk(text=step)
                else:
                    await asyncio.sleep(step)
            yield final_chunk(LLMResponse(said, "m", 1, 1, finish_reason="stop"))
        finally:
            self.open -= 1


def _repeated(*steps: LLMResponse | str | float) -> list[LLMResponse | str | float]:
    return list(steps) * 50


async def drain(stream: Any) -> list[Any]:
    return [item async for item in stream]


WAYS: dict[str, Callable[..., Any]] = {
    "ask": lambda client, **options: client.ask("Hi", **options),
    "complete": lambda client, **options: client.complete("Hi", **options),
    "stream": lambda client, **options: drain(client.stream("Hi", **options)),
    "stream_text": lambda client, **options: drain(client.stream_text("Hi", **options)),
    "session ask": lambda client, **options: client.session("s").ask("Hi", **options),
    "session stream": lambda client, **options: drain(client.session("s").stream("Hi", **options)),
    "agent": lambda client, **options: Agent("a", client=client).run("Hi", **options),
}


def check(error: BaseException, *, attempts: int | None = 1) -> None:
    """It is what every way raises."""
    assert isinstance(error, DeadlineExceededError)
    assert isinstance(error, TimeoutError)
    assert error.kind == "deadline"
    assert not error.retryable
    assert attempts is None or error.attempts == attempts


@pytest.mark.parametrize("way", WAYS)
class TestEachWay:
    async def test_what_hangs_is_cancelled_when_the_time_is_over(self, way: str) -> None:
        provider = Slow(PATIENCE)
        async with Aether(provider) as client:
            with pytest.raises(DeadlineExceededError) as caught:
                await WAYS[way](client, timeout=SOON)
            check(caught.value)
            assert provider.open == 0
            assert [entry.state for entry in client.usage.ledger] == ["unknown"]

    async def test_an_answer_in_time_is_one(self, way: str) -> None:
        async with Aether(Slow("42.")) as client:
            assert await WAYS[way](client, timeout=PATIENCE)

    @pytest.mark.parametrize("bad", [0, -1, -0.0, math.nan, math.inf, True, "5", [], 10**400])
    async def test_a_time_that_is_none_is_refused_before_anything_is_sent(
        self, way: str, bad: Any
    ) -> None:
        provider = Slow("42.")
        async with Aether(provider) as client:
            with pytest.raises(InputError, match="timeout"):
                await WAYS[way](client, timeout=bad)
            assert provider.requests == []

    @pytest.mark.parametrize("timeout", [None, 1e300, 10**30, 5])
    async def test_any_time_above_0_is_one(self, way: str, timeout: Any) -> None:
        async with Aether(Slow("42.")) as client:
            assert await WAYS[way](client, timeout=timeout)

    async def test_who_limits_it_from_outside_gets_his_own_timeout(self, way: str) -> None:
        """`asyncio.timeout` around a call, sooner than its own: a `TimeoutError` that is none of
        ours, and the task is not left half cancelled."""
        provider = Slow(PATIENCE)
        async with Aether(provider) as client:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(SOON):
                    await WAYS[way](client, timeout=PATIENCE)
            assert not isinstance(caught.value, DeadlineExceededError)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            assert provider.open == 0

    async def test_inside_a_longer_one_its_own_comes_out(self, way: str) -> None:
        async with Aether(Slow(PATIENCE)) as client:
            with pytest.raises(DeadlineExceededError):
                async with asyncio.timeout(PATIENCE):
                    await WAYS[way](client, timeout=SOON)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

    async def test_a_cancelled_call_is_cancelled(self, way: str) -> None:
        provider = Slow(PATIENCE)
        async with Aether(provider) as client:
            task = asyncio.ensure_future(WAYS[way](client, timeout=PATIENCE))
            await provider.begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelling() == 1
            assert provider.open == 0

    async def test_each_start_has_one_end(self, way: str) -> None:
        events: list[Event] = []
        async with Aether(Slow(PATIENCE)) as client:
            for name in EVENT_NAMES:
                client.on(name)(events.append)
            with pytest.raises(DeadlineExceededError):
                await WAYS[way](client, timeout=SOON)
        names = [event.name for event in events]
        kind = names[0].split(".")[0]
        assert names == [f"{kind}.start", f"{kind}.error"]


async def test_it_is_over_by_no_more_than_some_milliseconds() -> None:
    """The best of some tries: the machine may be busy."""
    for call in WAYS.values():
        overruns: list[float] = []
        async with Aether(Slow(*[PATIENCE] * 9)) as client:
            while len(overruns) < 9 and (not overruns or overruns[-1] > OVERRUN):
                started = time.monotonic()
                with pytest.raises(DeadlineExceededError):
                    await call(client, timeout=0.01)
                overruns.append(time.monotonic() - started - 0.01)
        assert 0.0 <= overruns[-1] <= OVERRUN


class TestStreams:
    async def test_what_had_come_is_in_the_error(self) -> None:
        for provider in (Slow("It ", "is ", PATIENCE), Slow("It is ", PATIENCE)):
            async with Aether(provider) as client:
                shown: list[str] = []

                async def read(stream: OwnedStream[str], shown: list[str] = shown) -> None:
                    async for piece in stream:
                        shown.append(piece)  # noqa: PERF401 - what came before the error counts

                with pytest.raises(DeadlineExceededError) as caught:
                    await read(client.stream_text("Hi", timeout=AWHILE))
                check(caught.value)
                assert caught.value.partial is not None
                assert caught.value.partial.text == "".join(shown) == "It is "

    async def test_before_anything_came_there_is_no_partial(self) -> None:
        async with Aether(Slow(PATIENCE)) as client:
            with pytest.raises(DeadlineExceededError) as caught:
                await drain(client.stream("Hi", timeout=AWHILE))
            assert caught.value.partial is None

    @pytest.mark.parametrize("way", ["stream", "session stream", "agent stream"])
    async def test_an_answer_that_is_whole_is_one_though_its_stream_does_not_end(
        self, way: str
    ) -> None:
        class Lingering(Slow):
            async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
                async for chunk in super().stream(request):
                    yield chunk
                await asyncio.sleep(PATIENCE)

        async with Aether(Lingering("It ", "is 42.")) as client:
            agent = Agent("a", client=client)
            stream = {
                "stream": lambda: client.stream("Hi", timeout=AWHILE),
                "session stream": lambda: client.session("s").stream("Hi", timeout=AWHILE),
                "agent stream": lambda: agent.stream("Hi", timeout=AWHILE),
            }[way]()
            *pieces, final = await drain(stream)
            assert "".join(piece.text for piece in pieces) == final.response.text == "It is 42."
            assert [entry.state for entry in client.usage.ledger] == ["exact"]

    async def test_it_begins_when_the_call_is_made(self) -> None:
        """Not when the first chunk is read."""
        provider = Slow("42.")
        async with Aether(provider) as client:
            stream = client.stream("Hi", timeout=0.001)
            await asyncio.sleep(0.003)
            with pytest.raises(DeadlineExceededError) as caught:
                await drain(stream)
            check(caught.value, attempts=None)


class Held:
    """Tools that hang, and note what became of them."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0
        self.release = threading.Event()

    async def hang(self) -> str:
        """Hang."""
        self.started += 1
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "late"

    def block(self) -> str:
        """Block a thread."""
        self.started += 1
        self.release.wait(PATIENCE)
        return "late"

    async def quick(self) -> str:
        """Answer."""
        return "quick"


@pytest.mark.parametrize("way", ["ask", "stream", "session ask", "agent"])
class TestTools:
    @pytest.mark.parametrize("parallel", [True, False])
    async def test_one_that_hangs_is_cancelled_with_its_siblings(
        self, way: str, *, parallel: bool
    ) -> None:
        held = Held()
        before = asyncio.all_tasks()
        provider = Slow(calls("quick", "hang", "hang"))
        async with Aether(provider) as client:
            with pytest.raises(DeadlineExceededError) as caught:
                await WAYS[way](
                    client, timeout=AWHILE, tools=[held.hang, held.quick], parallel_tools=parallel
                )
            check(caught.value)
        assert held.started == held.cancelled == (2 if parallel else 1)
        assert asyncio.all_tasks() == before
        assert len(provider.requests) == 1

    async def test_one_that_blocks_its_thread_is_not_waited_for(self, way: str) -> None:
        held = Held()
        async with Aether(Slow(calls("block", "hang"))) as client:
            try:
                with pytest.raises(DeadlineExceededError) as caught:
                    await WAYS[way](client, timeout=AWHILE, tools=[held.block, held.hang])
                check(caught.value)
                assert not held.release.is_set()
                assert held.cancelled == 1
            finally:
                held.release.set()

    async def test_it_can_ask_what_is_left(self, way: str) -> None:
        left: list[float | None] = []

        async def look() -> str:
            """Look."""
            left.append(time_left())
            return "ok"

        def look_in_a_thread() -> str:
            """Look."""
            left.append(time_left())
            return "ok"

        looks = calls("look", "look_in_a_thread")
        for options in ({"timeout": PATIENCE}, {}):
            async with Aether(Slow(looks, "42.")) as client:
                await WAYS[way](client, tools=[look, look_in_a_thread], **options)
        assert time_left() is None
        assert left[2:] == [None, None]
        assert all(seconds is not None and 0 < seconds <= PATIENCE for seconds in left[:2])

    async def test_the_time_of_one_turn_is_not_given_to_the_next_again(self, way: str) -> None:
        held = Held()
        async with Aether(Slow(*_repeated(0.02, calls("quick")))) as client:
            with pytest.raises(DeadlineExceededError):
                await WAYS[way](client, timeout=0.05, tools=[held.quick], max_tool_iterations=100)


async def draw_out() -> str:
    """Work for longer than it should, without letting the loop go on."""
    time.sleep(2 * SOON)  # noqa: ASYNC251 - that is what is wrong with it
    return "late"


class Slowly(BaseModel):
    """An answer that takes long to be refused."""

    number: int

    @field_validator("number")
    @classmethod
    def _refused(cls, _: int) -> int:
        time.sleep(2 * SOON)
        raise ValueError


class TestALoopThatCannotNotice:
    """No model is called after the deadline, not even where nothing could be cancelled."""

    @pytest.mark.parametrize("way", WAYS)
    async def test_after_a_tool(self, way: str) -> None:
        provider = Slow(calls("draw_out"), "42.")
        async with Aether(provider) as client:
            with pytest.raises(DeadlineExceededError):
                await WAYS[way](client, timeout=SOON, tools=[draw_out])
            assert len(provider.requests) == 1

    @pytest.mark.parametrize("way", ["ask", "stream", "session ask", "session stream", "agent"])
    async def test_after_an_answer_of_the_wrong_type(self, way: str) -> None:
        provider = Slow('{"number": 1}')
        async with Aether(provider) as client:
            with pytest.raises(DeadlineExceededError):
                await WAYS[way](client, timeout=SOON, output=Slowly)
            assert len(provider.requests) == 1


class TestDelegates:
    @pytest.mark.parametrize("outer", ["ask", "stream"])
    async def test_an_inner_run_ends_with_the_outer_one(self, outer: str) -> None:
        inner = Slow(PATIENCE)
        seen: list[float | None] = []

        async def look() -> str:
            """Look."""
            seen.append(time_left())
            return "ok"

        inner.script.insert(0, calls("look"))
        async with Aether(inner) as other, Aether(Slow(calls("expert", task="?"))) as client:
            agent = Agent("expert", client=other, tools=[look])
            with pytest.raises(DeadlineExceededError):
                await WAYS[outer](client, timeout=AWHILE, tools=[agent.as_tool()])
            assert inner.open == 0
            assert [entry.state for entry in other.usage.ledger] == ["exact", "unknown"]
        assert [0 < (seconds or 0) <= AWHILE for seconds in seen] == [True]

    async def test_it_may_have_an_earlier_one_but_no_later_one(self) -> None:
        inner = Aether(Slow(PATIENCE, PATIENCE))
        told: list[BaseException] = []
        for timeout, outer in ((AWHILE, PATIENCE), (PATIENCE, AWHILE)):

            async def consult(seconds: float = timeout) -> str:
                """Consult."""
                try:
                    return await inner.ask("?", timeout=seconds)
                except DeadlineExceededError as error:
                    told.append(error)
                    return "no answer in time"

            async with Aether(Slow(calls("consult"), "42.")) as client:
                asking = client.ask("Hi", timeout=outer, tools=[consult])
                if outer == PATIENCE:
                    assert await asking == "42."
                    check(told[0])
                else:
                    with pytest.raises(DeadlineExceededError):
                        await asking
        await inner.aclose()

    async def test_a_blocking_call_inside_a_tool_has_the_same_deadline(self) -> None:
        inner = Aether(Slow(PATIENCE))
        told: list[BaseException] = []
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def consult() -> str:
            """Consult."""
            try:
                return inner.sync.ask("?")
            except BaseException as error:
                told.append(error)
                raise
            finally:
                loop.call_soon_threadsafe(ended.set)

        async with Aether(Slow(calls("consult"))) as client:
            with pytest.raises(DeadlineExceededError):
                await client.ask("Hi", timeout=AWHILE, tools=[consult])
            await asyncio.wait_for(ended.wait(), 5.0)
        check(told[0], attempts=None)  # its loop may not have been ready in time
        await inner.aclose()


class TestSessions:
    async def test_the_wait_for_ones_turn_counts(self) -> None:
        provider = Slow(PATIENCE)
        async with Aether(provider) as client:
            session = client.session("s")
            first = asyncio.ensure_future(session.ask("first"))
            await provider.begun.wait()
            for work in (session.ask("Hi", timeout=SOON), drain(session.stream("x", timeout=SOON))):
                with pytest.raises(DeadlineExceededError) as caught:
                    await work
                check(caught.value, attempts=0)
            first.cancel()
            with suppress(asyncio.CancelledError):
                await first
            assert await session.ask("Hi", timeout=PATIENCE) == "done"
            assert len(provider.requests) == 2

    async def test_a_store_that_hangs_while_loading_counts(self) -> None:
        class Hanging(InMemorySessionStore):
            async def load(self, session_id: str) -> Any:
                await asyncio.sleep(PATIENCE)
                return await super().load(session_id)

        provider = Slow("42.")
        async with Aether(provider, memory_store=Hanging()) as client:
            with pytest.raises(DeadlineExceededError) as caught:
                await client.session("s").ask("Hi", timeout=SOON)
            check(caught.value, attempts=0)
            assert provider.requests == []

    @pytest.mark.parametrize("way", ["session ask", "session stream"])
    async def test_an_answer_that_is_there_is_stored(self, way: str) -> None:
        """However long that takes."""

        class Slowly(InMemorySessionStore):
            async def append(self, session_id: str, messages: Any, **given: Any) -> Any:
                await asyncio.sleep(1.2 * AWHILE)
                return await super().append(session_id, messages, **given)

            async def save(self, session_id: str, messages: Any) -> None:
                await asyncio.sleep(1.2 * AWHILE)
                await super().save(session_id, messages)

        async with Aether(Slow("42."), memory_store=Slowly()) as client:
            assert await WAYS[way](client, timeout=AWHILE)
            assert [m.text for m in await client.session("s").history()] == ["Hi", "42."]

    async def test_a_turn_that_is_over_leaves_the_history_as_it_was(self) -> None:
        async with Aether(Slow("one", "It ", PATIENCE)) as client:
            session = client.session("s")
            await session.ask("first")
            with pytest.raises(DeadlineExceededError):
                await drain(session.stream("second", timeout=SOON))
            assert [m.text for m in await session.history()] == ["first", "one"]
            await session.ask("third", timeout=PATIENCE)  # the turn was given up


class TestTheStack:
    """Through sockets and the default stack."""

    @pytest.mark.parametrize("way", WAYS)
    async def test_attempts_and_the_waiting_between_them_share_it(self, way: str) -> None:
        refused = faults.refuse("overloaded")
        async with FaultServer("warm", refused, refused, faults.hang()) as server:
            _, adapter = build_provider(server.config("openai"), Registry())
            async with Aether(RetryingProvider(adapter, base_delay=0.001)) as client:
                await client.ask("Hi")
                with pytest.raises(DeadlineExceededError) as caught:
                    await WAYS[way](client, timeout=2 * AWHILE)
                check(caught.value, attempts=3)
                await server.until_left()
                states = [entry.state for entry in client.usage.ledger][1:]
                assert states == ["not_billed", "not_billed", "unknown"]

    @pytest.mark.parametrize("way", WAYS)
    async def test_a_pause_that_would_end_later_is_not_begun(self, way: str) -> None:
        async with (
            FaultServer("warm", faults.refuse("rate_limit", retry_after=60)) as server,
            Aether(config=server.config("openai")) as client,
        ):
            await client.ask("Hi")
            with pytest.raises(RateLimitError) as caught:
                await WAYS[way](client, timeout=PATIENCE)
            assert caught.value.retry_after == 60.0
            assert "deadline" in caught.value.__notes__[0]

    @pytest.mark.parametrize("way", WAYS)
    async def test_the_queue_of_a_rate_limit_is_in_it(self, way: str) -> None:
        limit = RateLimit(requests_per_minute=1)
        async with (
            FaultServer("warm") as server,
            Aether(config=server.config("openai"), rate_limit=limit) as client,
        ):
            await client.ask("Hi")
            with pytest.raises(DeadlineExceededError) as caught:
                await WAYS[way](client, timeout=PATIENCE)
            check(caught.value, attempts=0)
            assert len(client.usage.ledger) == server.count == 1

    @pytest.mark.parametrize("way", WAYS)
    async def test_the_request_under_way_is_closed(self, way: str) -> None:
        async with (
            FaultServer("warm", faults.hang()) as server,
            Aether(config=server.config("openai")) as client,
        ):
            await client.ask("Hi")
            with pytest.raises(DeadlineExceededError) as caught:
                await WAYS[way](client, timeout=AWHILE)
            check(caught.value)
            await server.until_left()
            assert len(client.usage.ledger) == server.count == 2

    async def test_a_stream_of_pings_ends_with_it(self) -> None:
        ping = b'event: ping\ndata: {"type": "ping"}\n\n'
        fault = faults.keep_alive(comment=ping, seconds=0.001)
        async with (
            FaultServer("warm", fault) as server,
            Aether(config=server.config("anthropic")) as client,
        ):
            await client.ask("Hi")
            with pytest.raises(DeadlineExceededError):
                await drain(client.stream("Hi", timeout=AWHILE))
            await server.until_left()

    async def test_it_is_one_for_all_tries_of_a_structured_answer(self) -> None:
        provider = Slow(*_repeated(0.02, "no number"))
        async with Aether(provider) as client:
            with pytest.raises(DeadlineExceededError):
                await client.ask("Hi", output=int, output_retries=50, timeout=0.05)
        assert 1 <= len(provider.requests) <= 4


class TestAThreadThatCallsBack:
    """A tool that is not async cannot be cancelled. What it asks for ends with its run all the
    same, also where it waits for a turn."""

    @pytest.mark.parametrize("way", ["ask", "stream", "clear"])
    async def test_its_wait_for_a_sessions_turn_ends_with_the_run(self, way: str) -> None:
        provider = Slow(PATIENCE)
        ended: list[BaseException] = []
        over = threading.Event()

        def look_back() -> str:
            """Ask the session whose turn is under way."""
            session = client.sync.session("s")
            try:
                if way == "ask":
                    session.ask("And?")
                elif way == "stream":
                    list(session.stream("And?"))
                else:
                    session.clear()
            except DeadlineExceededError as error:
                ended.append(error)
            finally:
                over.set()
            return "over"

        async with Aether(provider) as client:
            held = asyncio.ensure_future(client.session("s").ask("Hi"))
            await provider.begun.wait()
            provider.script.append(calls("look_back"))
            with pytest.raises(DeadlineExceededError):
                await client.ask("Hi", timeout=AWHILE, tools=[look_back])
            assert await asyncio.to_thread(over.wait, 1.0)
            check(ended[0], attempts=0)
            held.cancel()
            await asyncio.wait([held])


class TestBlocking:
    @pytest.mark.parametrize("way", ["ask", "stream", "session"])
    def test_the_blocking_calls_have_it_too(self, way: str) -> None:
        client = Aether(Slow("It ", PATIENCE) if way == "stream" else Slow(PATIENCE))
        sync = client.sync
        ways: dict[str, Callable[[], Any]] = {
            "ask": lambda: sync.ask("Hi", timeout=SOON),
            "stream": lambda: list(sync.stream_text("Hi", timeout=AWHILE)),
            "session": lambda: sync.session("s").ask("Hi", timeout=SOON),
        }
        with pytest.raises(DeadlineExceededError) as caught:
            ways[way]()
        check(caught.value)
        if way == "stream":
            assert caught.value.partial is not None
            assert caught.value.partial.text == "It "
        asyncio.run(client.aclose())

    def test_what_is_no_time_is_refused_there_too(self) -> None:
        client = Aether(Slow("42."))
        with pytest.raises(InputError, match="timeout"):
            client.sync.ask("Hi", timeout=0)
        asyncio.run(client.aclose())


class TestWithoutRetry:
    async def test_an_error_before_the_deadline_is_what_it_is(self) -> None:
        async with Aether(Slow(ServerError("no"))) as client:
            with pytest.raises(ServerError):
                await client.ask("Hi", timeout=PATIENCE)

    async def test_a_timeout_of_the_providers_own_is_not_taken_for_it(self) -> None:
        async with Aether(Slow(TimeoutError("slow"))) as client:
            with pytest.raises(TimeoutError) as caught:
                await client.ask("Hi", timeout=PATIENCE)
            assert not isinstance(caught.value, DeadlineExceededError)

    async def test_an_agent_has_a_time_for_each_run(self) -> None:
        provider = Slow(PATIENCE, "42.")
        async with Aether(provider) as client:
            agent = Agent("a", client=client)
            with pytest.raises(DeadlineExceededError):
                await agent.run("Hi", timeout=SOON)
            assert (await agent.run("Hi", timeout=PATIENCE)).text == "42."


def test_outside_of_a_run_there_is_no_limit() -> None:
    assert time_left() is None
