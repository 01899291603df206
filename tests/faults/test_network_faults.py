"""The network breaks, stalls or crawls, before the answer or in the middle of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aether.errors import (
    ProviderConnectionError,
    ProviderError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from aether.extensions.llm.factory import build_provider
from aether.extensions.llm.retrying import RetryingProvider
from aether.http.contracts import KIND as HTTP
from aether.http.contracts import Timeout
from aether.llm.call import CallContext
from aether.llm.contracts import LLMRequest, Message
from aether.registry import default_registry
from aether.testing import FaultServer, faults
from aether.testing.faults import Answer, Ending, Fault, Reply
from tests.faults.aftermath import Aftermath
from tests.faults.exchanges import (
    ADD,
    CALLING,
    HELLO,
    MODEL,
    PROTOCOLS,
    TRANSPORTS,
    USAGE,
    Way,
    all_ways,
    both_ways,
    call,
    changed,
    each_protocol,
    each_transport,
    events_of,
    first_event,
    is_open,
    opened,
    states,
)

PATIENCE = Timeout(total=5)
SHORT = 0.02
"""Seconds that are waited for what never comes."""
MIDDLING = 0.1
"""The same, where something must have come before, also on a busy machine."""
LONGER = 0.5
"""Seconds within which a beginning comes, also on a busy machine."""
THREE = Reply("It is 3.", usage=USAGE)


def cuts() -> Iterator[Any]:
    """Every protocol and transport, after each number of events of a stream."""
    for protocol in PROTOCOLS:
        for events in range(len(events_of(protocol)[0]) + 1):
            for transport in TRANSPORTS:
                yield pytest.param(protocol, transport, events)


def adding(ran: list[int]) -> Callable[..., Any]:
    """A tool, and in `ran` what it was called with."""

    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        ran.append(a)
        return a + b

    return add


@pytest.mark.row("N4")
@each_protocol
@each_transport
@all_ways
@pytest.mark.parametrize("fault", [faults.reset(), faults.close()], ids=lambda fault: fault.name)
async def test_a_connection_that_breaks_before_the_answer_is_made_again_with_the_same_request(
    protocol: str, transport: str, way: Way, fault: Fault, aftermath: Aftermath
) -> None:
    async with (
        FaultServer(fault, fault) as server,
        opened(aftermath, server, protocol, transport, attempts=3) as client,
    ):
        assert (await call(client, way)).succeeded() == HELLO.text
        assert server.count == 3
        assert len({request.body for request in server.requests}) == 1
        assert states(client) == ["unknown", "unknown", "exact"]
        assert not is_open(client)


@pytest.mark.row("N4")
@each_protocol
@each_transport
@both_ways
async def test_a_connection_that_always_breaks_is_one_failure_that_counts_its_attempts(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    async with (
        FaultServer(*[faults.reset()] * 3) as server,
        opened(aftermath, server, protocol, transport, attempts=3, fails=True) as client,
    ):
        error = (await call(client, way)).failed()
        assert isinstance(error, ProviderConnectionError)
        assert (error.kind, error.attempts, server.count) == ("reset", 3, 3)
        assert states(client) == ["unknown"] * 3
        assert is_open(client)


@pytest.mark.row("N6")
@each_protocol
@each_transport
@all_ways
async def test_an_answer_that_never_begins_is_given_up_and_may_have_been_billed(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    async with (
        FaultServer(faults.hang()) as server,
        opened(aftermath, server, protocol, transport, fails=True, timeout=SHORT) as client,
    ):
        error = (await call(client, way)).failed()
        assert isinstance(error, RequestTimeoutError)
        assert error.kind == "read"
        assert error.retryable
        assert states(client) == ["unknown"]
        assert is_open(client)
        await server.until_open(0)


UNENDING: dict[str, list[Fault]] = {
    "hang": [faults.hang()],
    "slow head": [faults.drip(1, seconds=0.005)],
    "slow body": [changed("slow", lambda answer, _: answer.changed(pause=0.01, write_size=40))],
    "stall": [faults.cut(events=1, ending="hanging")],
    "comments": [faults.keep_alive(seconds=0.001)],
    "slow error": [  # its head comes at once
        faults.status(503),
        changed("slow", lambda answer, _: answer.changed(pieces=[b"x"] * 500, pause=0.01)),
    ],
}


@pytest.mark.row("N6", "N7", "N11", "N12")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize("name", UNENDING)
@pytest.mark.parametrize("limit", ["total", "deadline"])
async def test_no_answer_outlasts_the_limit_of_its_call(
    protocol: str, transport: str, way: Way, name: str, limit: str, aftermath: Aftermath
) -> None:
    """The limit of one request, and the deadline over all attempts."""
    fault = UNENDING[name]
    async with FaultServer(Answer([b""]), reply=lambda _: fault) as server:
        shortest = LONGER if name == "slow error" else SHORT  # its head must have come
        total = shortest if limit == "total" else None
        made = default_registry.get(HTTP, transport)()
        timeout = Timeout(read=5, total=total)
        config = server.config(protocol, transport=made, timeout=timeout)
        _, adapter = build_provider(config, default_registry)
        provider = RetryingProvider(adapter, base_delay=0.0, max_attempts=1 if total else 3)
        # The first request of httpx2 takes some of the time to read certificates.
        await made.request(
            "GET", f"{server.url}/messages", headers={}, timeout=PATIENCE, max_bytes=9
        )
        deadline = None if total else asyncio.get_running_loop().time() + SHORT
        context = CallContext(deadline=deadline)
        request = LLMRequest([Message("user", "Hi")], model=MODEL, context=context)

        async def ask() -> None:
            if way == "ask":
                await provider.complete(request)
            else:
                async for _ in provider.stream(request):
                    pass

        with pytest.raises(ProviderError) as raised:
            await asyncio.wait_for(ask(), 2)
        await made.aclose()
    error = raised.value
    if name == "slow error" and limit == "total":
        assert error.status == 503  # it is the error, however much of its body came
        return
    assert error.kind == limit
    assert isinstance(error, RequestTimeoutError | StreamInterruptedError)
    sent = [entry.state for entry in context.entries]
    # A busy machine may need all of the time before anything is sent.
    assert sent in (["unknown"], ["estimated"]) or (sent, server.count) == ([], 1)


@pytest.mark.row("N8")
@each_protocol
@each_transport
@pytest.mark.parametrize("missing", [1, 20])
async def test_a_body_short_of_its_length_is_asked_for_again(
    protocol: str, transport: str, missing: int, aftermath: Aftermath
) -> None:
    fault = faults.wrong_length(missing)
    async with (
        FaultServer(fault) as server,
        opened(aftermath, server, protocol, transport, attempts=3) as client,
    ):
        assert (await call(client, "ask")).succeeded() == HELLO.text
        assert server.count == 2
        assert states(client) == ["unknown", "exact"]


@pytest.mark.row("N8")
@each_protocol
@each_transport
async def test_a_body_that_is_always_short_is_an_error_and_may_have_been_billed(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    async with (
        FaultServer(*[faults.wrong_length(5)] * 3) as server,
        opened(aftermath, server, protocol, transport, attempts=3, fails=True) as client,
    ):
        error = (await call(client, "session")).failed()
        assert isinstance(error, ProviderConnectionError)
        assert (error.attempts, server.count) == (3, 3)
        assert states(client) == ["unknown"] * 3


@pytest.mark.row("N9", "N10")
@pytest.mark.parametrize("ending", ["reset", "broken"])
@pytest.mark.parametrize(("protocol", "transport", "events"), list(cuts()))
async def test_a_stream_that_breaks_is_begun_again_before_its_first_text_and_an_error_after_it(
    protocol: str, transport: str, events: int, ending: Ending, aftermath: Aftermath
) -> None:
    """`broken`: the end of the connection without the end of the body."""
    whole = events >= events_of(protocol)[1]
    begun = events > first_event(protocol, b"Hell")
    fails = begun and not whole
    async with (
        FaultServer(faults.cut(events=events, ending=ending)) as server,
        opened(aftermath, server, protocol, transport, attempts=3, fails=fails) as client,
    ):
        came = await call(client, "session stream")
        if not fails:  # what is whole but for the end of the body is whole
            assert came.succeeded() == HELLO.text
            assert server.count == (1 if whole else 2)
            assert states(client)[-1] in ("exact", "estimated")
            assert not is_open(client)
            return
        error = came.failed()
        assert isinstance(error, StreamInterruptedError)
        assert error.partial is not None
        assert error.partial.text == came.text
        assert HELLO.text.startswith(came.text)
        assert came.text
        assert server.count == 1
        assert states(client) in (["estimated"], ["exact"])
        assert is_open(client)


@pytest.mark.row("N10")
@each_transport
@pytest.mark.parametrize("ending", ["reset", "broken"])
async def test_a_stream_that_breaks_in_an_event_after_the_reason_is_not_whole(
    transport: str, ending: Ending, aftermath: Aftermath
) -> None:
    """Of those protocols that tell the usage after it: nobody would miss what was lost."""
    events, whole = events_of("openai")
    assert b'"usage"' in events[whole]
    before = len(b"".join(events[:whole]))
    for more in (1, len(events[whole]) // 2, len(events[whole]) - 3):
        async with (
            FaultServer(faults.cut(body=before + more, ending=ending)) as server,
            opened(aftermath, server, "openai", transport, attempts=3, fails=True) as client,
        ):
            came = await call(client, "stream")
            assert isinstance(came.failed(), StreamInterruptedError), more
            assert came.text == HELLO.text
            assert server.count == 1
            assert states(client) == ["estimated"]


@pytest.mark.row("N9", "N10")
@each_protocol
@each_transport
@pytest.mark.parametrize("ending", ["reset", "broken", "whole"])
async def test_no_tool_runs_for_a_call_that_a_stream_broke_off_in(
    protocol: str, transport: str, ending: Ending, aftermath: Aftermath
) -> None:
    ran: list[int] = []
    events, whole = events_of(protocol, CALLING)
    begun = first_event(protocol, b'"add"', CALLING)
    for count in range(begun + 1, whole):
        fault = faults.cut(events=count, ending=ending)
        async with (
            FaultServer([fault, CALLING]) as server,
            opened(aftermath, server, protocol, transport, attempts=3, fails=True) as client,
        ):
            error = (await call(client, "session stream", tools=[adding(ran)])).failed()
            assert isinstance(error, StreamInterruptedError), f"{count} of {len(events)}"
            assert server.count == 1
    assert ran == []


@pytest.mark.row("N4", "N9")
@each_protocol
@each_transport
@both_ways
async def test_a_second_turn_is_tried_again_without_running_the_tools_again(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    ran: list[int] = []
    breaks = faults.reset() if way == "ask" else faults.cut(events=1, ending="reset")
    if way == "stream" and first_event(protocol, b"Hell") < 1:
        breaks = faults.cut(events=0, ending="reset")
    async with (
        FaultServer(CALLING, breaks, THREE) as server,
        opened(aftermath, server, protocol, transport, attempts=2) as client,
    ):
        assert (await call(client, way, tools=[adding(ran)])).succeeded() == THREE.text
        assert server.count == 3
        assert server.requests[1].body == server.requests[2].body
    assert ran == [ADD.arguments["a"]]


@pytest.mark.row("N11")
@each_protocol
@each_transport
async def test_a_peer_that_is_gone_without_a_word_is_given_up_after_the_read_limit(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    events = first_event(protocol, b"Hell") + 1
    async with (
        FaultServer(faults.cut(events=events, ending="hanging")) as server,
        opened(
            aftermath, server, protocol, transport, attempts=3, fails=True, timeout=MIDDLING
        ) as client,
    ):
        came = await call(client, "session stream")
        error = came.failed()
        assert isinstance(error, StreamInterruptedError)
        assert error.kind == "read"
        assert error.partial is not None
        assert error.partial.text == came.text == "Hell"
        assert server.count == 1
        assert states(client) == ["estimated"]
        assert is_open(client)
        await server.until_open(0)


@pytest.mark.row("N11")
@each_protocol
@each_transport
async def test_a_stream_that_stalls_before_its_first_text_is_begun_again(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    events = first_event(protocol, b"Hell")
    async with (
        FaultServer(faults.cut(events=events, ending="hanging")) as server,
        opened(aftermath, server, protocol, transport, attempts=2, timeout=MIDDLING) as client,
    ):
        assert (await call(client, "stream")).succeeded() == HELLO.text
        assert states(client) in (["unknown", "exact"], ["estimated", "exact"])


@pytest.mark.row("N13")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize("size", [1, 50])
async def test_an_answer_in_pieces_of_any_size_is_the_same_answer(
    protocol: str, transport: str, way: Way, size: int, aftermath: Aftermath
) -> None:
    first = HELLO if size == 1 else CALLING
    async with (
        FaultServer([first, faults.split(size)], [THREE, faults.split(size)]) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        if size == 1:  # one turn, as each byte takes its time
            assert (await call(client, way)).succeeded() == HELLO.text
        else:
            assert (await call(client, way, tools=[adding([])])).succeeded() == THREE.text
        assert set(states(client)) == {"exact"}
