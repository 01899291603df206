"""llmock breaks answers on demand, and judges what the client makes of it: it has no complaint.

Its verdict follows each test, and a test whose calls it did not see fails, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from typing import Any

import pytest

from aether import Aether
from aether.errors import (
    AetherError,
    AuthenticationError,
    BadRequestError,
    ProtocolError,
    ProviderError,
    RateLimitError,
    StreamInterruptedError,
)
from tests.peers.clients import PROTOCOLS, client, fetch, post
from tests.peers.processes import Process

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS)

PROMPT = "Tell me of the weather in Paris."
BASE_URLS = {"chat": "/v1", "responses": "/v1", "anthropic": "/anthropic", "gemini": "/gemini"}
# So many events of a stream come before its first text.
OPENING = {"chat": 1, "responses": 4, "anthropic": 2, "gemini": 0}
# Of so long an answer the server has not sent all by the time that its client is gone.
LONG = {"type": "reply", "text": "One word after another, " * 10}
CUT = {"type": "stream_fault", "kind": "truncate"}
STALL = {"type": "stream_fault", "kind": "stall", "stall_seconds": 60}

Connect = Callable[..., Aether]
Attempts = Callable[[], Awaitable[list[int]]]


@pytest.fixture
def connect(protocol: str, llmock: Process) -> Iterator[Connect]:
    post(f"{llmock.url}/_llmock/reset", {})

    def connected(**options: Any) -> Aether:
        return client(protocol, llmock.url + BASE_URLS[protocol], **options)

    yield connected
    assert fetch(f"{llmock.url}/_llmock/scenario")["pending"] == []
    verdict = fetch(f"{llmock.url}/_llmock/verdict")
    assert verdict["calls"] > 0
    assert verdict["findings"] == []


@pytest.fixture
def script(llmock: Process) -> Callable[..., None]:
    def scripted(*behaviors: dict[str, Any]) -> None:
        post(f"{llmock.url}/_llmock/scenario", {"behaviors": behaviors})

    return scripted


@pytest.fixture
def attempts(llmock: Process) -> Attempts:
    """The statuses of all requests so far, of which none is under way any more."""

    async def statuses() -> list[int]:
        journal = await asyncio.to_thread(fetch, f"{llmock.url}/_llmock/requests")
        return [request["status"] for request in journal["requests"]]

    return statuses


class Weather:
    """A tool that notes what it was called with."""

    def __init__(self) -> None:
        self.cities: list[str] = []

    def get_weather(self, city: str) -> str:
        """Get the current weather in a city."""
        self.cities.append(city)
        return f"Sunny in {city}."


async def hear(stream: AsyncIterable[str], texts: list[str]) -> None:
    async for text in stream:
        texts.append(text)  # noqa: PERF401 - what had come stays if there is an error


async def join(stream: Any) -> str:
    return "".join([text async for text in stream])


async def test_a_stream_says_what_a_call_says(protocol: str, connect: Connect) -> None:
    async with connect() as aether:
        text = await aether.ask(PROMPT)
        assert text
        assert await join(aether.stream_text(PROMPT)) == text
        assert aether.usage.total_requests == 2
        assert aether.usage.total_input_tokens > 0
        assert aether.usage.total_output_tokens > 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_is_called_and_its_result_answered(
    protocol: str, streamed: bool, connect: Connect
) -> None:
    weather = Weather()
    async with connect() as aether:
        if streamed:
            text = await join(aether.stream_text(PROMPT, tools=[weather.get_weather]))
        else:
            text = await aether.ask(PROMPT, tools=[weather.get_weather])
        assert aether.usage.total_requests == 2
    assert text
    (city,) = weather.cities
    assert city


@pytest.mark.parametrize("choice", ["required", "get_weather", "none"])
async def test_a_choice_of_tools_is_heard(protocol: str, choice: str, connect: Connect) -> None:
    weather = Weather()
    async with connect() as aether:
        assert await aether.ask(PROMPT, tools=[weather.get_weather], tool_choice=choice)
    assert len(weather.cities) == (0 if choice == "none" else 1)


@pytest.mark.parametrize("streamed", [False, True])
async def test_retry_waits_as_long_as_it_is_told(
    protocol: str,
    streamed: bool,
    connect: Connect,
    script: Callable[..., None],
    attempts: Attempts,
) -> None:
    script({"type": "fail", "status": 429, "retry_after": 1})
    async with connect() as aether:
        started = time.monotonic()
        assert await (join(aether.stream_text(PROMPT)) if streamed else aether.ask(PROMPT))
        assert time.monotonic() - started >= 1
    assert await attempts() == [429, 200]


@pytest.mark.parametrize("status", [503, 529])
async def test_what_may_pass_is_tried_again(
    protocol: str,
    status: int,
    connect: Connect,
    script: Callable[..., None],
    attempts: Attempts,
) -> None:
    script({"type": "fail", "status": status})
    async with connect() as aether:
        assert await aether.ask(PROMPT)
    assert await attempts() == [status, 200]


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, BadRequestError), (401, AuthenticationError), (422, BadRequestError)],
)
async def test_what_will_not_pass_is_not_tried_again(
    protocol: str,
    status: int,
    error: type[ProviderError],
    connect: Connect,
    script: Callable[..., None],
    attempts: Attempts,
) -> None:
    script({"type": "fail", "status": status, "message": "No, thank you."})
    async with connect() as aether:
        with pytest.raises(error, match="No, thank you") as caught:
            await aether.ask(PROMPT)
    assert caught.value.status == status
    assert await attempts() == [status]


async def test_a_wait_that_is_too_long_is_the_callers(
    protocol: str, connect: Connect, script: Callable[..., None], llmock: Process
) -> None:
    script({"type": "fail", "status": 429, "retry_after": 3600})
    async with connect() as aether:
        with pytest.raises(RateLimitError) as caught:
            await aether.ask(PROMPT)
    assert caught.value.retry_after == 3600
    # The judge would have it tried again all the same: it does not look at how long the wait is.
    (finding,) = fetch(f"{llmock.url}/_llmock/verdict")["findings"]
    assert finding["code"] == "gave_up"
    post(f"{llmock.url}/_llmock/reset", {})
    async with connect() as aether:
        await aether.ask(PROMPT)


@pytest.mark.parametrize("kind", ["disconnect", "truncate"])
async def test_a_stream_that_breaks_before_its_first_text_is_tried_again(
    protocol: str,
    kind: str,
    connect: Connect,
    script: Callable[..., None],
    attempts: Attempts,
) -> None:
    async with connect() as aether:
        whole = await aether.ask(PROMPT)
        script({"type": "stream_fault", "kind": kind, "after_chunks": OPENING[protocol]})
        assert await join(aether.stream_text(PROMPT)) == whole
    assert len(await attempts()) == 3


async def test_a_stream_that_is_malformed_before_its_first_text_is_an_error(
    protocol: str, connect: Connect, script: Callable[..., None], attempts: Attempts
) -> None:
    async with connect() as aether:
        malformed = {"type": "stream_fault", "kind": "malformed"}
        script({**malformed, "after_chunks": OPENING[protocol]}, {**LONG, "times": 2})
        with pytest.raises(ProtocolError, match="JSON"):
            await join(aether.stream_text(PROMPT))
        assert await attempts() == [200]  # the judge has seen that its stream was left
        assert await join(aether.stream_text(PROMPT))


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_that_breaks_after_its_first_text_is_an_error(
    protocol: str,
    kind: str,
    connect: Connect,
    script: Callable[..., None],
    attempts: Attempts,
) -> None:
    async with connect() as aether:
        script({**LONG, "times": 3})
        whole = await aether.ask(PROMPT)
        script({"type": "stream_fault", "kind": kind, "after_chunks": OPENING[protocol] + 3})
        texts: list[str] = []
        with pytest.raises((StreamInterruptedError, ProtocolError)) as caught:
            await hear(aether.stream_text(PROMPT), texts)
        heard = "".join(texts)
        assert heard
        assert whole.startswith(heard)
        assert whole != heard
        assert caught.value.partial is not None
        assert caught.value.partial.text == heard
        assert await attempts() == [200, 200]  # the judge has seen that its stream was left
        assert await join(aether.stream_text(PROMPT)) == whole


async def test_an_error_after_the_first_text_is_the_callers(
    protocol: str, connect: Connect, script: Callable[..., None], llmock: Process
) -> None:
    async with connect() as aether:
        script(LONG)
        script({**CUT, "after_chunks": OPENING[protocol] + 3})
        with pytest.raises(StreamInterruptedError):
            await join(aether.stream_text(PROMPT))
    # The judge cannot see that. It would have text that was shown asked for again.
    (finding,) = fetch(f"{llmock.url}/_llmock/verdict")["findings"]
    assert finding["code"] == "truncated_stream_accepted"
    post(f"{llmock.url}/_llmock/reset", {})
    async with connect() as aether:
        await aether.ask(PROMPT)


async def test_a_stream_that_stalls_before_its_first_text_is_tried_again(
    protocol: str, connect: Connect, script: Callable[..., None]
) -> None:
    async with connect(timeout=0.5) as aether:
        whole = await aether.ask(PROMPT)
        script({**STALL, "after_chunks": OPENING[protocol]})
        assert await join(aether.stream_text(PROMPT)) == whole


async def test_a_stream_that_stalls_after_its_first_text_is_an_error(
    protocol: str, connect: Connect, script: Callable[..., None]
) -> None:
    async with connect(timeout=0.5) as aether:
        whole = await aether.ask(PROMPT)
        script({**STALL, "after_chunks": OPENING[protocol] + 2})
        with pytest.raises(StreamInterruptedError) as caught:
            await join(aether.stream_text(PROMPT))
    assert caught.value.partial is not None
    assert caught.value.partial.text
    assert whole.startswith(caught.value.partial.text)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", ["malformed_arguments", "unknown_tool"])
async def test_a_broken_tool_call_is_told_to_the_model_and_not_run(
    protocol: str, kind: str, streamed: bool, connect: Connect, script: Callable[..., None]
) -> None:
    weather = Weather()
    results: list[str] = []
    script({"type": "tool_fault", "kind": kind})
    async with connect() as aether:

        @aether.on("tool.error")
        def failed(event: Any) -> None:
            results.append(event.result.content)

        if streamed:
            text = await join(aether.stream_text(PROMPT, tools=[weather.get_weather]))
        else:
            text = await aether.ask(PROMPT, tools=[weather.get_weather])
        assert aether.usage.total_requests == 2
    assert text
    assert weather.cities == []
    assert len(results) == 1


async def test_an_outage_ends_in_an_error_that_says_how_often_it_was_tried(
    protocol: str, connect: Connect, script: Callable[..., None], attempts: Attempts
) -> None:
    script({"type": "fail", "status": 503, "times": 2}, {"type": "fail", "status": 400})
    async with connect() as aether:
        with pytest.raises(AetherError) as caught:
            await aether.ask(PROMPT)
    assert isinstance(caught.value, BadRequestError)
    assert caught.value.attempts == 3
    assert await attempts() == [503, 503, 400]
