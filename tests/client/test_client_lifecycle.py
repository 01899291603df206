"""A client's life: event loops and threads, the blocking side, and its end."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from aether import Aether, AetherError, Message, ProviderConfig
from aether.errors import ClientClosedError, StreamInterruptedError
from aether.events import REQUEST_START, STREAM_ERROR, Event, EventBus
from aether.llm.contracts import LLMRequest, LLMResponse, StreamChunk
from aether.registry import Registry
from aether.testing import FakeProvider


class Closing(FakeProvider):
    """Counts how often it was closed."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.closed = 0
        self.error = error

    async def aclose(self) -> None:
        self.closed += 1
        if self.error is not None:
            raise self.error


class Waiting:
    """Does not answer. `asked` is set when it was asked, `released` when that was cancelled."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.released = threading.Event()

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.released.set()
        raise NotImplementedError

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        yield StreamChunk(text="first")
        await self.complete(request)


def fake_client(text: str = "hello") -> Aether:
    """A client with the whole default stack."""
    return Aether(config=ProviderConfig(provider="fake", options={"canned_response": text}))


def sync_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "aether-sync"]


def in_thread(work: Callable[[], Any]) -> list[Any]:
    """What `work` returned or raised in a thread; fails if it does not end."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - handed to the test as it is
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "it waits for ever"
    return outcome


# --- closing ----------------------------------------------------------------------------------


async def test_end_of_async_with_closes_the_provider_once() -> None:
    provider = Closing()
    async with Aether(provider) as client:
        await client.ask("hi")
        assert provider.closed == 0
    await client.aclose()
    assert provider.closed == 1


async def test_async_with_hands_on_the_exception_and_closes() -> None:
    provider = Closing()
    with pytest.raises(ValueError, match="mine"):
        async with Aether(provider):
            raise ValueError("mine")
    assert provider.closed == 1


async def test_closing_a_client_that_never_asked_is_fine() -> None:
    client = fake_client()
    await client.aclose()
    await client.aclose()


async def test_provider_without_aclose_can_be_closed() -> None:
    await Aether(Waiting()).aclose()


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.ask("hi"),
        lambda client: client.complete("hi"),
        lambda client: anext(client.stream("hi")),
        lambda client: anext(client.stream_text("hi")),
        lambda client: client.session("s").ask("hi"),
        lambda client: client.__aenter__(),
    ],
)
async def test_use_after_close_is_an_error(use: Callable[[Aether], Any]) -> None:
    client = fake_client()
    await client.aclose()
    with pytest.raises(ClientClosedError, match="closed"):
        await use(client)


async def test_session_that_was_held_is_refused_after_close_and_keeps_its_history() -> None:
    client = fake_client()
    session = client.session("s")
    await session.ask("hi")
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await session.ask("again")
    assert [message.text for message in await session.history()] == ["hi", "hello"]


async def test_usage_and_provider_can_be_read_after_close() -> None:
    client = fake_client()
    await client.ask("hi")
    await client.aclose()
    assert client.usage.total_requests == 1
    assert repr(client)


async def test_all_stacks_are_closed_even_if_one_of_them_fails(aether_registry: Registry) -> None:
    own, other = Closing(OSError("cannot close")), Closing(OSError("cannot either"))
    aether_registry.add("llm_provider", "other", lambda: other)
    client = Aether(own)
    await client.ask("hi")
    await client.ask("hi", model="other:fake-model")
    with pytest.raises(OSError, match="cannot"):
        await client.aclose()
    assert (own.closed, other.closed) == (1, 1)
    await client.aclose()


# --- event loops and threads ------------------------------------------------------------------


def test_one_client_works_in_one_loop_after_another() -> None:
    client = fake_client()
    session = client.session("s")

    async def use() -> str:
        await session.ask("hi")
        text = "".join([text async for text in client.stream_text("hi")])
        return text + await client.ask("hi")

    assert asyncio.run(use()) == "hellohello"
    assert asyncio.run(use()) == "hellohello"
    assert len(asyncio.run(session.history())) == 4
    assert client.usage.total_requests == 6
    asyncio.run(client.aclose())


def test_one_client_works_in_threads() -> None:
    client = fake_client()
    answers: list[str] = []

    def use() -> None:
        answers.extend([asyncio.run(client.ask("hi")) for _ in range(5)])

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["hello"] * 20
    assert client.usage.total_requests == 20


def test_loop_that_ends_in_the_middle_of_a_call_leaves_the_client_usable() -> None:
    waiting = Waiting()
    client = Aether(waiting)

    async def give_up() -> None:
        task = asyncio.ensure_future(client.ask("hi"))
        await asyncio.sleep(0.01)
        assert not task.done()

    asyncio.run(give_up())
    assert waiting.released.is_set()
    asyncio.run(give_up())


# --- one bus, several clients -----------------------------------------------------------------


async def test_shared_bus_tells_of_every_client_and_no_other() -> None:
    bus, seen = EventBus(), list[Event]()
    bus.subscribe(REQUEST_START, seen.append)
    one, two = Aether(FakeProvider(), events=bus), Aether(FakeProvider(), events=bus)
    await one.ask("1")
    await two.ask("2")
    await Aether(FakeProvider()).ask("3")
    asked = [event.request.messages[0].text for event in seen if event.request is not None]
    assert asked == ["1", "2"]
    assert len({event.run_id for event in seen}) == 2


async def test_shared_bus_outlives_a_client() -> None:
    bus, seen = EventBus(), list[Event]()
    bus.subscribe(REQUEST_START, seen.append)
    async with Aether(FakeProvider(), events=bus) as one:
        await one.ask("1")
    await Aether(FakeProvider(), events=bus).ask("2")
    assert len(seen) == 2


# --- the blocking side ------------------------------------------------------------------------


def test_sync_has_the_same_calls() -> None:
    with fake_client("Hello, world").sync as sync:
        assert sync.ask("hi") == "Hello, world"
        assert sync.complete("hi").text == "Hello, world"
        assert "".join(sync.stream_text("hi")) == "Hello, world"
        assert list(sync.stream("hi"))[-1].response is not None
        session = sync.session("s", system="Be brief.")
        assert session.session_id == "s"
        assert session.ask("hi") == "Hello, world"
        assert session.complete("hi").text == "Hello, world"
        assert "".join(session.stream_text("hi")) == "Hello, world"
        assert list(session.stream("hi"))[-1].response is not None
        assert len(session.history()) == 9
        session.clear()
        assert session.history() == []
        sync.warm_up()


def test_sync_takes_the_same_options() -> None:
    fake = FakeProvider()
    with Aether(fake).sync as sync:
        sync.ask([Message("user", "hi")], model="m", temperature=0.1, max_tokens=3)
    assert (fake.requests[0].model, fake.requests[0].max_tokens) == ("m", 3)


async def test_sync_works_where_a_loop_is_running() -> None:
    client = fake_client()
    assert client.sync.ask("hi") == "hello"
    assert await client.ask("hi") == "hello"
    assert list(client.sync.stream_text("hi"))
    await client.aclose()


def test_sync_keeps_one_loop() -> None:
    loops: set[int] = set()

    class Looking(FakeProvider):
        async def complete(self, request: LLMRequest, /) -> LLMResponse:
            loops.add(id(asyncio.get_running_loop()))
            return await super().complete(request)

    client = Aether(Looking())
    assert client.sync is client.sync
    client.sync.ask("hi")
    client.sync.ask("hi")
    assert len(loops) == 1
    client.sync.close()


def test_sync_raises_what_the_call_raises() -> None:
    with Aether(FakeProvider(responses=[])).sync as sync:
        with pytest.raises(AetherError, match="exhausted"):
            sync.ask("hi")
        with pytest.raises(AetherError, match="exhausted"):
            list(sync.stream_text("hi"))


@pytest.mark.parametrize("fatal", [SystemExit(3), KeyboardInterrupt()])
def test_sync_hands_on_what_ends_programs_and_goes_on(fatal: BaseException) -> None:
    client = Aether(FakeProvider(responses=[fatal, "still here"]))
    assert in_thread(lambda: client.sync.ask("hi")) == [fatal]
    assert in_thread(lambda: client.sync.ask("hi")) == ["still here"]
    client.sync.close()


def test_sync_close_closes_the_client_and_ends_its_thread_at_once() -> None:
    before = len(sync_threads())
    provider = Closing()
    client = Aether(provider)
    sync = client.sync
    sync.ask("hi")
    assert len(sync_threads()) == before + 1
    sync.close()
    assert len(sync_threads()) == before
    sync.close()
    assert provider.closed == 1
    with pytest.raises(ClientClosedError):
        asyncio.run(client.ask("hi"))


def test_aclose_ends_the_private_loop_too() -> None:
    before = len(sync_threads())
    client = fake_client()
    sync = client.sync
    sync.ask("hi")
    asyncio.run(client.aclose())
    assert len(sync_threads()) == before
    sync.close()


@pytest.mark.parametrize("used_before", [False, True])
def test_sync_after_close_is_an_error_and_starts_no_thread(used_before: bool) -> None:
    client = fake_client()
    if used_before:
        client.sync.ask("hi")
    asyncio.run(client.aclose())
    before = len(sync_threads())
    with pytest.raises(ClientClosedError):
        client.sync.ask("hi")
    assert len(sync_threads()) == before


def test_sync_objects_that_were_held_are_refused_after_close() -> None:
    client = fake_client("Hello, world")
    sync, session, stream = client.sync, client.sync.session("s"), client.sync.stream_text("hi")
    next(stream)
    sync.close()
    with pytest.raises(ClientClosedError):
        sync.ask("hi")
    with pytest.raises(ClientClosedError):
        session.ask("hi")
    with pytest.raises(ClientClosedError):
        next(stream)
    stream.close()


def test_call_that_is_under_way_when_the_client_closes_ends_with_an_error() -> None:
    waiting = Waiting()
    client = Aether(waiting)
    sync = client.sync

    def close_when_asked() -> None:
        waiting.asked.wait(5)
        sync.close()

    closer = threading.Thread(target=close_when_asked)
    closer.start()
    outcome = in_thread(lambda: sync.ask("hi"))
    closer.join()
    assert isinstance(outcome[0], ClientClosedError)
    assert waiting.released.is_set()


def test_sync_from_its_own_loop_is_an_error_and_not_a_deadlock() -> None:
    client = Aether(FakeProvider())

    async def ask_inside(event: Event) -> None:
        try:
            client.sync.ask("again")
        except AetherError as error:
            told.append(str(error))

    told: list[str] = []
    client.on(REQUEST_START)(ask_inside)
    assert in_thread(lambda: client.sync.ask("hi")) == ["hello"]
    assert len(told) == 1
    assert "async client" in told[0]
    client.sync.close()


def test_sync_runs_in_the_callers_context() -> None:
    from contextvars import ContextVar

    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen: list[str] = []
    client = Aether(FakeProvider())
    client.on(REQUEST_START)(lambda event: seen.append(who.get()))
    who.set("caller")
    client.sync.ask("hi")
    client.sync.close()
    assert seen == ["caller"]


def test_sync_stream_left_early_lets_go_and_says_so() -> None:
    waiting = Waiting()
    client = Aether(waiting)
    seen: list[Event] = []
    client.on(STREAM_ERROR)(seen.append)
    with client.sync.stream_text("hi") as stream:
        assert next(stream) == "first"
    stream.close()
    assert [event.cancelled for event in seen] == [True]
    assert list(stream) == []
    client.sync.close()


def test_sync_stream_that_was_read_stays_at_its_end() -> None:
    client = fake_client()
    stream = client.sync.stream_text("hi")
    assert "".join(stream) == "hello"
    assert list(stream) == []
    client.sync.close()


def test_sync_serves_several_threads() -> None:
    client = fake_client()
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.sync.ask("hi"))) for _ in range(8)
    ]
    before = len(sync_threads())
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["hello"] * 8
    assert len(sync_threads()) == before + 1
    client.sync.close()


def test_client_that_is_forgotten_takes_its_loop_along() -> None:
    before = len(sync_threads())
    client = fake_client()
    client.sync.ask("hi")
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    assert len(sync_threads()) == before


def test_interrupt_of_a_blocking_call_cancels_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import concurrent.futures

    waiting = Waiting()
    client = Aether(waiting)
    sync = client.sync

    def interrupted(self: Any, timeout: float | None = None) -> Any:
        waiting.asked.wait(5)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(concurrent.futures.Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sync.ask("hi")
    assert waiting.released.wait(5)
    sync.close()


def test_a_stream_that_was_interrupted_does_not_look_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import concurrent.futures

    def interrupted(self: Any, timeout: float | None = None) -> Any:
        raise KeyboardInterrupt

    client = Aether(FakeProvider("one two three"))
    stream = client.sync.stream_text("hi")
    assert next(stream)
    with monkeypatch.context() as patch:
        patch.setattr(concurrent.futures.Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
    with pytest.raises(StreamInterruptedError):
        list(stream)
    client.sync.close()


@pytest.mark.row("M11")
@pytest.mark.parametrize("when", ["before", "after"])
def test_interrupt_while_a_blocking_call_is_handed_over_ends_that_call_alone(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = Waiting()
    client = Aether(provider)
    hand_over = asyncio.run_coroutine_threadsafe

    def interrupted(*given: Any) -> Any:
        monkeypatch.undo()
        if when == "after":
            hand_over(*given)
            assert provider.asked.wait(5)
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.sync.session("s").ask("hi")
    assert when == "before" or provider.released.wait(5)
    assert client.sync.session("s").history() == []  # which would wait for a call under way
    client.sync.close()
