"""The cache of a client: its switch, its events, its usage, its tool loops, and real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aether import Aether, Message, ProviderConfig
from aether.errors import (
    ClientClosedError,
    ConfigurationError,
    DeadlineExceededError,
    InputError,
    OverloadedError,
    StreamInterruptedError,
)
from aether.events import Event
from aether.extensions.caches import InMemoryCache, SQLiteCache
from aether.llm.contracts import LLMResponse, ToolCall
from aether.registry import Registry
from aether.testing import FakeProvider, FaultServer, faults
from aether.tools import Tool

HELLO = faults.Reply(text="Hello there.")
CALLING = LLMResponse(
    "", "fake-model", tool_calls=[ToolCall("c1", "weather", {})], finish_reason="tool_calls"
)


def saying(text: str) -> LLMResponse:
    return LLMResponse(text, "fake-model", 7, 3, finish_reason="stop")


def files(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


async def test_a_client_with_a_cache_asks_once() -> None:
    fake = FakeProvider("hello")
    async with Aether(fake, cache=True) as client:
        assert await client.ask("Hi", temperature=0) == "hello"
        used = repr(client.usage)
        response = await client.complete("Hi", temperature=0)
        assert response.cached
        assert await client.ask("Hi", temperature=0) == "hello"
        assert [text async for text in client.stream_text("Hi", temperature=0)] == ["hello"]
        assert repr(client.usage) == used
        assert client.usage.total_requests == len(client.usage.ledger) == len(fake.requests) == 1
        assert repr(client).startswith("Aether(Caching > ")


@pytest.mark.parametrize("cache", [None, False])
async def test_a_client_without_a_cache_asks_each_time(cache: bool | None) -> None:
    fake = FakeProvider("hello")
    async with Aether(fake, cache=cache) as client:
        for _ in range(2):
            await client.ask("Hi", temperature=0, cache=True)
    assert len(fake.requests) == 2


async def test_the_default_temperature_is_not_cached_unless_that_is_asked_for() -> None:
    fake = FakeProvider("hello")
    async with Aether(fake, cache=True) as client:
        for _ in range(2):
            await client.ask("Hi")
        assert len(fake.requests) == 2
        for _ in range(2):
            await client.ask("Hi", cache=True)
        assert len(fake.requests) == 3
        for _ in range(2):
            await client.ask("Hi", temperature=0, cache=False)
        assert len(fake.requests) == 5


async def test_a_default_of_zero_in_the_environment_was_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AETHER_DEFAULT_TEMPERATURE", "0")
    fake = FakeProvider("hello")
    async with Aether(fake, cache=True) as client:
        for _ in range(2):
            await client.ask("Hi")
    assert len(fake.requests) == 1


@pytest.mark.parametrize("wrong", ["", 1, 0.5, ["k"]])
async def test_an_option_that_is_none_is_refused(wrong: Any) -> None:
    async with Aether(FakeProvider(), cache=True) as client:
        with pytest.raises(InputError, match="cache is"):
            await client.ask("Hi", cache=wrong)


async def test_a_file_keeps_answers_from_client_to_client(tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path}/answers.sqlite"
    for count in (1, 0):
        fake = FakeProvider("hello")
        async with Aether(fake, cache=where) as client:
            assert await client.ask("Hi", temperature=0) == "hello"
        assert len(fake.requests) == count
    assert files(tmp_path) == ["answers.sqlite"], "it was closed"


async def test_a_file_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with Aether(FakeProvider("hello"), cache="sqlite:///answers.sqlite") as client:
        await client.ask("Hi", temperature=0)
    assert files(tmp_path) == ["answers.sqlite"]


async def test_a_file_that_is_no_cache_is_an_error_of_the_first_call(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy milk" * 100)
    async with Aether(FakeProvider("hello"), cache=f"sqlite:///{path}") as client:
        with pytest.raises(ConfigurationError, match=r"notes\.txt.*no database"):
            await client.ask("Hi", temperature=0)
        assert await client.ask("Hi", cache=False) == "hello"
    assert path.read_text() == "buy milk" * 100


@pytest.mark.parametrize("wrong", ["answers.sqlite", "sqlite:///", "redis://localhost"])
def test_a_name_that_is_no_cache_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="is no cache"):
        Aether(FakeProvider(), cache=wrong)


@pytest.mark.parametrize("wrong", [{}, InMemoryCache, 1])
def test_an_object_that_is_no_cache_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a cache is"):
        Aether(FakeProvider(), cache=wrong)


async def test_a_cache_that_was_passed_is_left_open(tmp_path: Path) -> None:
    async with SQLiteCache(tmp_path / "a.sqlite") as cache:
        for _ in range(2):
            async with Aether(FakeProvider("hello"), cache=cache) as client:
                await client.ask("Hi", temperature=0)
                assert (await client.complete("Hi", temperature=0)).cached


async def test_a_cache_that_the_client_made_is_closed_with_it(tmp_path: Path) -> None:
    client = Aether(FakeProvider("hello"), cache=f"sqlite:///{tmp_path}/a.sqlite")
    await client.ask("Hi", temperature=0)
    cache = client.provider.cache  # type: ignore[attr-defined]
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await cache.get("a")


async def test_a_configuration_and_a_registry_may_name_the_cache() -> None:
    registry = Registry()
    made: list[InMemoryCache] = []

    def make() -> InMemoryCache:
        made.append(InMemoryCache())
        return made[-1]

    registry.add("response_cache", "memory", make)
    config = ProviderConfig(provider="fake", cache=True)
    async with Aether(config=config, registry=registry) as client:
        await client.ask("Hi", temperature=0)
        assert (await client.complete("Hi", temperature=0)).cached
    assert len(made) == 1


async def test_events_fire_as_ever() -> None:
    events: list[Event] = []
    async with Aether(FakeProvider("hello"), cache=True) as client:
        for name in ("request.start", "request.complete", "stream.start", "stream.complete"):
            client.on(name)(events.append)
        for _ in range(2):
            await client.ask("Hi", temperature=0)
            await client.stream("Hi", temperature=0).__anext__()
            async for _chunk in client.stream("Hi", temperature=0):
                pass
    completed = [event for event in events if event.name == "request.complete"]
    assert [event.response.cached for event in completed if event.response] == [False, True]
    assert sum(event.name == "stream.complete" for event in events) == 2


async def test_an_answer_to_what_others_wrote_is_marked_for_each_caller_by_what_he_sent() -> None:
    async with Aether(FakeProvider("hello"), cache=True) as client:
        for untrusted, cached in ((True, False), (False, True), (True, True)):
            response = await client.complete(
                [Message("user", "Hi", untrusted=untrusted)], temperature=0
            )
            assert (response.message.untrusted, response.cached) == (untrusted, cached)


# Tool loops.


def weather(*reports: str) -> tuple[Tool, list[str]]:
    told: list[str] = []

    def tell() -> str:
        """The weather."""
        told.append(reports[min(len(told), len(reports) - 1)])
        return told[-1]

    return Tool("weather", "The weather.", {"type": "object", "properties": {}}, tell), told


@pytest.mark.parametrize("options", [{"temperature": 0}, {"cache": True}, {"cache": "weather"}])
@pytest.mark.parametrize("streaming", [False, True])
async def test_each_turn_of_a_tool_loop_has_its_own_answer(
    options: dict[str, Any], streaming: bool
) -> None:
    fake = FakeProvider(responses=[CALLING, saying("It is sunny.")])
    tool, told = weather("sunny")
    async with Aether(fake, cache=True) as client:
        for _ in range(3):
            if streaming:
                stream = client.stream_text("The weather?", tools=[tool], **options)
                text = "".join([piece async for piece in stream])
            else:
                text = await client.ask("The weather?", tools=[tool], **options)
            assert text == "It is sunny."
    assert len(fake.requests) == 2
    assert told == ["sunny"] * 3, "tools are run each time"


async def test_a_key_gives_no_answer_to_what_a_tool_said_another_time() -> None:
    fake = FakeProvider(responses=[CALLING, saying("It is sunny."), saying("It rains.")])
    tool, _ = weather("sunny", "rain", "sunny")
    async with Aether(fake, cache=True) as client:
        texts = [await client.ask("The weather?", tools=[tool], cache="weather") for _ in range(3)]
    assert texts == ["It is sunny.", "It rains.", "It is sunny."]
    assert len(fake.requests) == 3


async def test_a_key_gives_a_retried_output_its_own_answer() -> None:
    fake = FakeProvider(responses=[saying("{"), saying('{"value": 42}')])
    async with Aether(fake, cache=True) as client:
        for _ in range(2):
            assert await client.ask("What is 17 + 25?", output=int, cache="sum") == 42
    assert len(fake.requests) == 2


async def test_a_key_gives_each_turn_of_a_session_its_own_answer() -> None:
    fake = FakeProvider(responses=[saying("one"), saying("two")])
    async with Aether(fake, cache=True) as client:
        for name in ("a", "b"):
            session = client.session(name)
            assert await session.ask("Hi", cache="hi") == "one"
            assert await session.ask("Hi", cache="hi") == "two"
    assert len(fake.requests) == 2


# On sockets.


@pytest.mark.parametrize("protocol", ["openai", "openai.responses", "anthropic", "gemini"])
@pytest.mark.parametrize("streaming", [False, True])
async def test_equal_calls_at_once_are_one_request(
    aftermath: Any, protocol: str, streaming: bool
) -> None:
    """And nothing is left of it: no task, no connection."""
    count = 25
    async with FaultServer(reply=[faults.drip(20, seconds=0.0005), HELLO]) as server:
        config = server.config(protocol, api_key=aftermath.key)
        async with aftermath.client(Aether(config=config, cache=True)) as client:
            aftermath.one_entry_per_request(client, server)

            async def ask(number: int) -> LLMResponse:
                response: LLMResponse | None
                if not streaming and number % 2:
                    response = await client.complete("Hi", temperature=0)
                else:
                    response = None
                    async for chunk in client.stream("Hi", temperature=0):
                        response = chunk.response
                assert response is not None
                return response

            responses = await asyncio.gather(*(ask(number) for number in range(count)))
            assert server.count == 1
            assert {response.text for response in responses} == {"Hello there."}
            assert sum(not response.cached for response in responses) == 1
            assert sum(response.usage.requests for response in responses) == 1
            assert client.usage.total_requests == 1
            assert (await client.complete("Hi", temperature=0)).cached
            assert server.count == 1


async def test_those_who_leave_one_request_leave_it_open_to_the_last(aftermath: Any) -> None:
    async with FaultServer(faults.hang(), reply=HELLO) as server:
        config = server.config("openai", api_key=aftermath.key)
        async with aftermath.client(Aether(config=config, cache=True)) as client:
            tasks = [asyncio.create_task(client.ask("Hi", temperature=0)) for _ in range(5)]
            await server.until_hanging()
            for task in tasks[:-1]:
                task.cancel()
            await asyncio.wait(tasks[:-1])
            assert not tasks[-1].done()
            await server.until_open(1)
            tasks[-1].cancel()
            await asyncio.wait(tasks)
            await server.until_left()
            assert await client.ask("Hi", temperature=0) == "Hello there."
            assert server.count == 2
            first, second = client.usage.ledger
            assert (first.state, second.error) == ("unknown", None)


async def test_a_time_limit_is_its_callers_alone(aftermath: Any) -> None:
    async with FaultServer(faults.hang(), reply=HELLO) as server:
        config = server.config("openai", api_key=aftermath.key)
        async with aftermath.client(Aether(config=config, cache=True)) as client:
            aftermath.one_entry_per_request(client, server)
            patient = asyncio.create_task(client.ask("Hi", temperature=0))
            await server.until_hanging()
            with pytest.raises(DeadlineExceededError):
                await client.ask("Hi", temperature=0, timeout=0.02)
            await server.until_open(1)
            patient.cancel()
            await asyncio.wait([patient])
            await server.until_left()
            assert server.count == 1


def test_blocking_calls_share_the_cache(tmp_path: Path) -> None:
    fake = FakeProvider("hello")
    client = Aether(fake, cache=f"sqlite:///{tmp_path}/answers.sqlite")
    for _ in range(2):
        assert client.sync.ask("Hi", temperature=0) == "hello"
        assert list(client.sync.stream_text("Hi", temperature=0)) == ["hello"]
    assert asyncio.run(client.ask("Hi", temperature=0)) == "hello"
    client.sync.close()
    assert len(fake.requests) == 1
    assert files(tmp_path) == ["answers.sqlite"]


async def test_a_refusal_is_each_callers_and_the_next_call_asks_again(aftermath: Any) -> None:
    script = [faults.refuse("overloaded")] * 3
    async with FaultServer(*script, reply=HELLO) as server:
        config = server.config("openai", api_key=aftermath.key)
        async with aftermath.client(Aether(config=config, cache=True, with_retry=False)) as client:
            outcomes = await asyncio.gather(
                *(client.ask("Hi", temperature=0) for _ in range(6)), return_exceptions=True
            )
            assert all(isinstance(outcome, OverloadedError) for outcome in outcomes)
            assert server.count == 1
            with pytest.raises(OverloadedError):
                await client.ask("Hi", temperature=0)
            assert server.count == 2


async def test_a_stream_that_breaks_off_is_not_kept(aftermath: Any) -> None:
    async with FaultServer([faults.cut(texts=1), HELLO], reply=HELLO) as server:
        config = server.config("openai", api_key=aftermath.key)
        async with aftermath.client(Aether(config=config, cache=True)) as client:
            with pytest.raises(StreamInterruptedError) as caught:
                async for _ in client.stream("Hi", temperature=0):
                    pass
            assert caught.value.partial is not None
            assert caught.value.partial.text
            response = await client.complete("Hi", temperature=0)
            assert (response.text, response.cached) == ("Hello there.", False)


async def test_endpoints_that_share_a_file_share_no_answers(tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path}/answers.sqlite"
    for text in ("one", "two"):
        async with (
            FaultServer(reply=text) as server,
            Aether(config=server.config("openai"), cache=where) as client,
        ):
            assert await client.ask("Hi", temperature=0) == text
            assert (await client.complete("Hi", temperature=0)).cached


async def test_neither_key_nor_prompt_is_in_the_file(aftermath: Any, tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    async with FaultServer(reply=HELLO) as server:
        config = server.config("openai", api_key=aftermath.key)
        async with aftermath.client(Aether(config=config, cache=f"sqlite:///{path}")) as client:
            await client.ask("Hi", temperature=0, extra_headers={"x-token": "a-secret"})
    kept = path.read_bytes()
    assert b"Hello there." in kept
    assert aftermath.key.encode() not in kept
    assert b"a-secret" not in kept
    assert b"Hi" not in kept


async def test_a_fallback_answers_but_its_answer_is_not_kept() -> None:
    async with (
        FaultServer(faults.refuse("quota"), reply="mine") as first,
        FaultServer(reply="yours") as second,
    ):
        other = Aether(config=second.config("anthropic"))
        async with (
            other,
            Aether(config=first.config("openai"), cache=True, fallbacks=[other.provider]) as client,
        ):
            response = await client.complete("Hi", temperature=0)
            assert (response.text, response.cached) == ("yours", False)
            response = await client.complete("Hi", temperature=0)
            assert (response.text, response.cached) == ("mine", False)
            assert (await client.complete("Hi", temperature=0)).cached
