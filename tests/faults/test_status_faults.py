"""A server refuses, fails or asks to wait: how often it is asked, when, and what is said of it.

Each over every protocol and transport, streamed or not, through a client with the default stack.
The waits are noted instead of waited for, and are the longest that chance allows.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from email.utils import formatdate
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether import Aether
from aether.errors import (
    AetherError,
    AuthenticationError,
    BadRequestError,
    CircuitOpenError,
    ContextLengthError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
)
from aether.events import REQUEST_COMPLETE, STREAM_COMPLETE
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.http import bodies
from aether.http.contracts import ERROR_BODY_MAX_SECONDS, Timeout
from aether.llm.contracts import Message
from aether.testing import FaultServer, faults
from aether.testing.faults import Answer, Fault, Reply
from tests.faults.aftermath import Aftermath
from tests.faults.exchanges import (
    HELLO,
    MODEL,
    TRANSPORT_CLASSES,
    Came,
    Way,
    both_ways,
    call,
    closing,
    each_protocol,
    each_transport,
    opened,
    states,
)
from tests.faults.virtual import WIRES, Act, VirtualServer, adapter, stack
from tests.llm.scripted import Clock, a_request, collect

LONGEST_WAITS = [0.5, 1.0]
"""Before the second and the third attempt, where no server asks for more."""


class Time:
    """What the client's stack takes for the time. A sleep takes no other."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        self.passes = asyncio.Event()
        """While it is cleared, whoever sleeps goes on sleeping."""
        self.passes.set()
        self._slept = asyncio.Condition()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        due = self.now + seconds
        async with self._slept:
            self.sleeps.append(seconds)
            self._slept.notify_all()
        await self.passes.wait()
        self.now = max(self.now, due)

    async def until_asleep(self, count: int) -> None:
        """Return when so many sleeps have begun."""
        async with asyncio.timeout(5), self._slept:
            await self._slept.wait_for(lambda: len(self.sleeps) >= count)

    def taken(self) -> list[float]:
        """The sleeps since this was asked last."""
        taken, self.sleeps = self.sleeps, []
        return taken


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    for layer in (RetryingProvider, CircuitBreakerProvider):
        defaults: Any = layer.__init__.__kwdefaults__
        monkeypatch.setitem(defaults, "clock", time)
        monkeypatch.setitem(defaults, "random", lambda: 1.0)
        if "sleep" in defaults:
            monkeypatch.setitem(defaults, "sleep", time.sleep)
    return time


@asynccontextmanager
async def asking(
    aftermath: Aftermath, server: FaultServer, protocol: str, transport: str, **fields: Any
) -> AsyncIterator[Aether]:
    config = server.config(protocol, transport=transport, api_key=aftermath.key, **fields)
    async with Aether(config=config) as client:
        aftermath.one_entry_per_request(client, server)
        yield aftermath.client(client)


def breaker(client: Aether) -> CircuitBreakerProvider:
    found: Any = client.provider
    while not isinstance(found, CircuitBreakerProvider):
        found = found.inner
    return found


def failures(client: Aether) -> int:
    """Those in a row that the breaker has counted."""
    return breaker(client)._circuits[MODEL]._failures


def refused(came: Came, kind: type[ProviderError], status: int | None) -> ProviderError:
    """The error; a status of `None` is any, as protocols differ in which they use."""
    error = came.failed()
    assert type(error) is kind
    assert status in (None, error.status)
    return error


each = [each_protocol, each_transport, both_ways]


def everywhere(test: Any) -> Any:
    """Over each protocol and transport, streamed or not."""
    for mark in each:
        test = mark(test)
    return test


@pytest.mark.row("H1", "H2", "H3")
@everywhere
async def test_what_the_caller_did_wrong_is_asked_once_and_is_nobodys_failure(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    refusals: list[tuple[Fault, type[ProviderError], int | None]] = [
        (faults.status(400), BadRequestError, 400),
        (faults.status(413), BadRequestError, 413),
        (faults.status(422, b'{"detail": [{"loc": ["body"], "msg": "no"}]}'), BadRequestError, 422),
        (faults.refuse("bad_request"), BadRequestError, None),
        (faults.refuse("context_length", "prompt is too long"), ContextLengthError, None),
        (faults.status(401), AuthenticationError, 401),
        (faults.status(403), PermissionDeniedError, 403),
        (faults.refuse("authentication"), AuthenticationError, None),
        (faults.status(404), NotFoundError, 404),
        (faults.status(405), NotFoundError, 405),
        (faults.status(410), NotFoundError, 410),
        (faults.refuse("not_found"), NotFoundError, None),
    ]
    async with (
        FaultServer(*(fault for fault, _, _ in refusals)) as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        for number, (_, kind, status) in enumerate(refusals, 1):
            error = refused(await call(client, way), kind, status)
            aftermath.told(error)
            assert (error.attempts, server.count) == (1, number)
            assert not error.retryable
            assert f"({MODEL})" in str(error)
        assert time.sleeps == []
        assert (failures(client), breaker(client).state(MODEL)) == (0, "closed")
        assert states(client) == ["not_billed"] * len(refusals)


@pytest.mark.row("H4", "H10")
@everywhere
async def test_what_may_pass_is_tried_three_times(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    expected: dict[int, tuple[type[ProviderError], str, bool]] = {
        408: (RequestTimeoutError, "unknown", True),
        409: (BadRequestError, "not_billed", False),
        425: (BadRequestError, "not_billed", False),
        500: (ServerError, "unknown", True),
        502: (ServerError, "unknown", True),
        503: (OverloadedError, "not_billed", True),
        504: (ServerError, "unknown", True),
    }
    async with (
        FaultServer() as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        for status, (kind, state, counts) in expected.items():
            before, served, written = failures(client), server.count, len(states(client))
            server.will(*[faults.status(status)] * 3)
            error = refused(await call(client, way), kind, status)
            assert (error.attempts, server.count - served) == (3, 3)
            assert time.taken() == LONGEST_WAITS
            assert states(client)[written:] == [state] * 3
            assert failures(client) == before + counts
            server.will(*[faults.status(status)] * 2)
            assert (await call(client, way)).succeeded() == HELLO.text
            assert time.taken() == LONGEST_WAITS
            assert states(client)[written + 3 :] == [state, state, "exact"]
            assert failures(client) == 0


@pytest.mark.row("H5", "H8", "H10")
@everywhere
async def test_a_servers_time_is_waited_for_before_the_next_attempt(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    waits: list[tuple[Fault, list[float]]] = [
        (faults.refuse("rate_limit", retry_after=2), [2.0, 2.0]),
        (faults.status(429, retry_after="2"), [2.0, 2.0]),
        (faults.status(429), LONGEST_WAITS),
        (faults.status(503, retry_after="7"), [7.0, 7.0]),
        (faults.status(500, retry_after="0.75"), [0.75, 1.0]),
    ]
    async with (
        FaultServer() as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        for fault, expected in waits:
            server.will(fault, fault)
            assert (await call(client, way)).succeeded() == HELLO.text
            assert time.taken() == expected
        assert server.count == 3 * len(waits)
        assert len({request.body for request in server.requests}) == 1


@pytest.mark.row("H5")
@everywhere
async def test_a_429_holds_back_the_other_calls_to_its_endpoint_and_model_alone(
    protocol: str,
    transport: str,
    way: Way,
    aftermath: Aftermath,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = "anthropic" if protocol != "anthropic" else "gemini"
    async with (
        FaultServer(faults.refuse("rate_limit", retry_after=2)) as server,
        FaultServer() as neighbour,
        asking(aftermath, server, protocol, transport) as client,
    ):
        monkeypatch.setenv(f"{other.upper()}_BASE_URL", neighbour.base_url(other))
        monkeypatch.setenv(f"{other.upper()}_API_KEY", aftermath.key)
        aftermath._counted.clear()  # two servers serve this client: they are counted together below
        time.passes.clear()
        calls = [asyncio.ensure_future(call(client, way))]
        await time.until_asleep(1)
        calls += [asyncio.ensure_future(call(client, way)) for _ in range(3)]
        await time.until_asleep(4)
        assert server.count == 1
        assert (await call(client, way, model="another-model")).succeeded() == HELLO.text
        assert (await call(client, way, model=f"{other}:{MODEL}")).succeeded() == HELLO.text
        assert (server.count, neighbour.count, time.now) == (2, 1, 1000.0)
        time.passes.set()
        for came in await asyncio.gather(*calls):
            assert came.succeeded() == HELLO.text
        assert min(time.sleeps) == 2.0
        assert max(time.sleeps) <= 2.5
        assert server.count + neighbour.count == len(states(client)) == 7


@pytest.mark.row("H6")
@everywhere
async def test_every_spelling_of_a_wait_comes_through(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    noon = 1_796_212_800.0
    spellings: list[tuple[list[tuple[str, str]], float]] = [
        ([("retry-after", formatdate(noon + 20, usegmt=True)), ("date", formatdate(noon))], 20.0),
        ([("retry-after", formatdate(0, usegmt=True))], 0.5),
        ([("retry-after-ms", "1500"), ("retry-after", "9")], 1.5),
        ([("Retry-After", "3"), ("retry-after", "4")], 4.0),
        ([("retry-after", "0")], 0.5),
        ([("retry-after", "-1")], 0.5),
        ([("retry-after", "inf")], 0.5),
        ([("retry-after", "nan")], 0.5),
        ([("retry-after", "")], 0.5),
        ([("retry-after", "Fri, 29 Sep 100000 16:26:57 GMT")], 0.5),
    ]
    async with (
        FaultServer() as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        for headers, wait in spellings:
            server.will(faults.status(429, headers=headers))
            assert (await call(client, way)).succeeded() == HELLO.text
            assert time.taken() == [wait]


@pytest.mark.row("H6", "H7")
@everywhere
@pytest.mark.parametrize("wait", ["600", "1e300"])
async def test_a_wait_that_is_too_long_is_an_error_at_once_that_carries_it(
    protocol: str, transport: str, way: Way, wait: str, aftermath: Aftermath, time: Time
) -> None:
    async with (
        FaultServer(faults.status(429, retry_after=wait)) as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        error = refused(await call(client, way), RateLimitError, 429)
        assert (error.attempts, error.retry_after, server.count) == (1, float(wait), 1)
        assert any("120 s" in note for note in error.__notes__)
        again = refused(await call(client, way), RateLimitError, None)
        assert (again.attempts, server.count) == (0, 1)
        assert again.retry_after == min(float(wait), 3600.0)
        assert (time.sleeps, failures(client)) == ([], 0)
        time.now += 3600
        assert (await call(client, way)).succeeded() == HELLO.text


SPENT = {
    "insufficient_quota": b'{"error": {"message": "You exceeded your current quota", '
    b'"type": "insufficient_quota", "code": "insufficient_quota"}}',
    "billing_hard_limit": b'{"error": {"code": "billing_hard_limit_reached", "message": "no"}}',
    "credit balance": b'{"type": "error", "error": {"type": "invalid_request_error", '
    b'"message": "Your credit balance is too low to access the API."}}',
    "per day": b'{"error": {"status": "RESOURCE_EXHAUSTED", "details": [{"violations": '
    b'[{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}]}}',
}


@pytest.mark.row("H9")
@everywhere
async def test_an_exhausted_quota_is_asked_once(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    async with (
        FaultServer() as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        for body in SPENT.values():
            served = server.count
            server.will(faults.status(429, body, retry_after="1"))
            error = refused(await call(client, way), QuotaExceededError, 429)
            assert (error.attempts, server.count - served) == (1, 1)
            assert "billing" in str(error)
        assert (time.sleeps, failures(client)) == ([], 0)
        assert states(client) == ["not_billed"] * len(SPENT)


@pytest.mark.row("H11")
@everywhere
async def test_an_overloaded_server_is_tried_three_times_and_counts_for_the_breaker(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    busy = b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}'
    answers = [
        faults.status(529),
        faults.status(529, busy),
        faults.status(400, busy),
        faults.status(429, busy),
        faults.status(500, busy),
    ]
    async with (
        FaultServer() as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        for number, answer in enumerate(answers, 1):
            server.will(answer, answer, answer)
            error = (await call(client, way)).failed()
            assert isinstance(error, OverloadedError)
            assert (error.attempts, server.count) == (3, 3 * number)
            assert time.taken() == LONGEST_WAITS
            assert failures(client) == number
        assert breaker(client).state(MODEL) == "open"
        assert isinstance((await call(client, way)).error, CircuitOpenError)
        assert server.count == 15


@pytest.mark.row("H11")
@everywhere
async def test_an_overload_that_an_answer_of_status_200_tells_of_is_tried_three_times(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    overload = faults.error_event("overloaded")
    async with (
        FaultServer(overload, overload, overload) as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        error = (await call(client, way)).failed()
        assert isinstance(error, OverloadedError | ServerError)  # OpenAI's word is `server_error`
        assert (error.attempts, server.count) == (3, 3)
        assert time.taken() == LONGEST_WAITS
        assert failures(client) == 1
        server.will(overload)
        assert (await call(client, way)).succeeded() == HELLO.text


@pytest.mark.row("H12")
@everywhere
async def test_the_servers_own_word_on_trying_again_stands_above_its_status(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    def says(word: str, status: int, **more: str) -> Fault:
        headers = [("x-should-retry", word), *((k.replace("_", "-"), v) for k, v in more.items())]
        return faults.status(status, headers=headers)

    quota = [faults.refuse("quota"), faults.headers(("x-should-retry", "true"))]
    words: list[tuple[Fault | list[Fault], int, list[float]]] = [
        (quota, 1, []),
        (says("true", 400), 3, LONGEST_WAITS),
        (says("true", 404), 3, LONGEST_WAITS),
        (says("true", 400, retry_after="3"), 3, [3.0, 3.0]),
        (says("true", 503, retry_after="121"), 1, []),
        (says("false", 500), 1, []),
        (says("false", 429), 1, []),
        (says("false", 409), 1, []),
        (says("perhaps", 500), 3, LONGEST_WAITS),
    ]
    async with (
        FaultServer() as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        for fault, attempts, waits in words:
            server.will(*[fault] * attempts)
            error = (await call(client, way)).failed()
            assert error.attempts == attempts
            assert time.taken() == waits
        assert server.count == sum(attempts for _, attempts, _ in words)


def long_bodies(key: str) -> Iterator[Answer]:
    """Bodies that explain nothing: pages, noise, and what is long, endless or never comes."""
    page = b"<html><body><h1>Bad Gateway</h1>" + key.encode() + b"</body></html>"
    yield Answer([page], 502, {"content-type": "text/html"}, framing="length")
    yield Answer([bytes(range(256)) * 64 + key.encode()], 502, framing="length")
    yield Answer([b"\x1f\x8b" + b"\0" * 100], 502, {"content-encoding": "gzip"})
    yield Answer([key.encode() * 50_000] * 10, 502)
    yield Answer(repeat(b"x" * 16_384), 502)
    yield Answer([b"some of it"], 502, ending="hanging")
    yield Answer([b"some of it"], 502, ending="broken")
    yield Answer([b"some of it"], 502, framing="length", declared_length=10_000_000)
    yield Answer([], 502, framing="close")


@pytest.mark.row("H13")
@everywhere
async def test_the_status_decides_whatever_the_body_is(
    protocol: str,
    transport: str,
    way: Way,
    aftermath: Aftermath,
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "ERROR_BODY_MAX_SECONDS", 0.01)
    async with (
        FaultServer() as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        for body in long_bodies(aftermath.key):
            server.will(body)
            served = server.count
            assert (await call(client, way)).succeeded() == HELLO.text
            assert server.count == served + 2
            server.will(body, body, body)
            error = refused(await call(client, way), ServerError, 502)
            aftermath.told(error)
            assert error.attempts == 3
            assert str(error).isprintable()
            assert len(str(error)) <= 500
            await server.until_left()
            assert max(each.bytes_written for each in server.served) < 8_000_000
        assert set(time.sleeps) == {*LONGEST_WAITS}


@pytest.mark.row("H13")
@each_transport
@pytest.mark.parametrize("streamed", [False, True])
async def test_of_a_body_that_explains_an_error_64_kib_are_read(
    transport: str, streamed: bool
) -> None:
    endless = Answer(repeat(b"x" * 10_000), 502)
    async with closing(TRANSPORT_CLASSES[transport]()) as made, FaultServer(endless) as server:
        ask: dict[str, Any] = {"headers": {}, "body": b"{}", "timeout": Timeout(read=5)}
        url = f"{server.url}/messages"
        if streamed:
            async with made.stream("POST", url, **ask) as answer:
                body = await bodies.read_error_body(answer.chunks())
        else:
            body = (await made.request("POST", url, max_bytes=10**9, **ask)).body
    assert len(body) == 65_536


@pytest.mark.row("H13")
@everywhere
async def test_a_body_that_never_comes_is_waited_for_two_seconds(
    protocol: str,
    transport: str,
    way: Way,
    aftermath: Aftermath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    then = loop.time
    async with (
        FaultServer(Answer([b"some of it"], 502, ending="hanging")) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        waiting = asyncio.ensure_future(call(client, way))
        await server.until_hanging()
        await asyncio.sleep(0.02)  # until it is read as far as it came
        monkeypatch.setattr(loop, "time", lambda: then() + 1.5)
        await asyncio.sleep(0.01)
        assert not waiting.done()
        monkeypatch.setattr(loop, "time", lambda: then() + 4)
        refused(await waiting, ServerError, 502)
    assert ERROR_BODY_MAX_SECONDS == 2


NASTY: list[object] = [
    None,
    [],
    {},
    "text",
    17,
    {"error": None},
    {"error": []},
    {"error": {"message": None, "code": None, "type": None}},
    {"error": {"message": {"nested": {"message": "deep"}}, "code": {"a": 1}, "type": ["x"]}},
    {"error": {"message": "\u202eright to left\u2066 \x1b[31mred\x07 \x00 \r\n\u2028 end"}},
    {"error": {"message": "\ud83d", "code": "\u202e\x1b"}},
    {"error": {"message": ["a", "list"], "status": 10**400, "code": -1}},
    {"error": {"details": [{"retryDelay": "1e9s"}, {"violations": "none"}, 3, None]}},
    {"error": {"message": "x" * 10_000, "type": "y" * 10_000}},
    {"detail": {"error": {"error": {"error": "four"}}}},
    [[[[[]]]]],
]


@pytest.mark.row("H14")
@everywhere
async def test_an_error_of_any_shape_is_an_error_of_ours_on_one_printable_line(
    protocol: str,
    transport: str,
    way: Way,
    aftermath: Aftermath,
    time: Time,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        FaultServer() as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        for body in NASTY:
            server.will(faults.status(400, json.dumps(body).encode()))
            error = (await call(client, way)).failed()
            assert isinstance(error, BadRequestError)
            logging.getLogger("application").warning("it failed: %s (%s)", error, error.kind)
            assert len(str(error)) <= 500
        assert server.count == len(NASTY)
        assert time.sleeps == []
    assert all(record.getMessage().isprintable() for record in caplog.records)


SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *["error", "message", "type", "code", "status", "detail", "details"],
                    *["metadata", "retryDelay", "reason", "violations", "quotaId", "choices"],
                ]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.row("H14")
@settings(max_examples=300, deadline=None)
@given(
    wire=st.sampled_from(sorted(WIRES)),
    streamed=st.booleans(),
    status=st.sampled_from([200, 201, 302, 400, 401, 403, 404, 413, 422, 429, 500, 503, 529, 599]),
    body=SHAPES.map(json.dumps).map(str.encode) | st.binary(max_size=200),
)
def test_whatever_a_server_explains_itself_with_no_foreign_error_comes_out(
    wire: str, streamed: bool, status: int, body: bytes
) -> None:
    async def play() -> Any:
        clock = Clock()
        server = VirtualServer(WIRES[wire](), clock, *[Act(status, {}, body)] * 3)
        layers = stack(adapter(wire, server), clock)
        work: Any = collect(layers.stream(a_request())) if streamed else None
        [result] = await clock.run(work or layers.complete(a_request()))
        assert len(layers.usage.ledger) == len(server.starts)
        return result

    result = asyncio.run(play())
    if status != 200:
        assert isinstance(result, ProviderError)
    if isinstance(result, BaseException):
        assert isinstance(result, AetherError)
        assert str(result).isprintable()
        assert len(str(result)) <= 500


@pytest.mark.row("H15")
@everywhere
async def test_an_answer_after_failures_says_how_many_attempts_there_were(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    name = STREAM_COMPLETE if way == "stream" else REQUEST_COMPLETE
    async with (
        FaultServer() as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        for failed in range(3):
            server.will(*[faults.refuse("overloaded")] * failed)
            if way == "stream":
                [*_, last] = [chunk async for chunk in client.stream("Hi")]
                response = last.response
            else:
                response = await client.complete("Hi")
            assert response is not None
            assert (response.text, response.attempts) == (HELLO.text, failed + 1)
            event = [event for event in aftermath.events if event.name == name][-1]
            assert event.response is not None
            assert event.response.attempts == failed + 1
        assert server.count == 1 + 2 + 3
        assert time.sleeps == [0.5, *LONGEST_WAITS]


@pytest.mark.row("H16")
@everywhere
async def test_in_an_outage_the_breaker_opens_at_its_threshold(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    async with (
        FaultServer(reply=faults.refuse("server")) as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        errors = [(await call(client, way)).error for _ in range(20)]
        assert [type(error) for error in errors] == [ServerError] * 5 + [CircuitOpenError] * 15
        assert server.count == 15
        time.now += 30
        probed = await call(client, way)
        assert isinstance(probed.error, ServerError)
        assert (probed.error.attempts, server.count) == (1, 16)
        assert isinstance((await call(client, way)).error, CircuitOpenError)
        server.reply = HELLO
        time.now += 60
        assert (await call(client, way)).succeeded() == HELLO.text
        assert breaker(client).state(MODEL) == "closed"


@pytest.mark.row("H16")
@everywhere
async def test_many_calls_in_an_outage_are_hardly_more_requests(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    """Without the breaker, which would let only the first few of them through."""
    calls = 100  # test_retry_together.py makes a thousand
    async with FaultServer(reply=faults.status(500)) as server:
        config = server.config(protocol, transport=transport, api_key=aftermath.key)
        async with Aether(config=config, with_circuit_breaker=False) as client:
            aftermath.one_entry_per_request(client, server)
            for _ in range(calls):
                assert isinstance((await call(client, way)).error, ServerError)
        assert server.count == calls + 20
    assert len(time.sleeps) == 20


@pytest.mark.row("H16")
@everywhere
async def test_each_ten_calls_that_succeed_earn_one_retry(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    """Again without the breaker. What is left over of ten counts for the next retry."""
    async with FaultServer(reply=faults.status(500)) as server:
        config = server.config(protocol, transport=transport, api_key=aftermath.key)
        async with Aether(config=config, with_circuit_breaker=False) as client:
            aftermath.one_entry_per_request(client, server)

            async def retries_in_an_outage(calls: int) -> int:
                server.reply, before = faults.status(500), server.count
                for _ in range(calls):
                    assert isinstance((await call(client, way)).error, ServerError)
                return server.count - before - calls

            assert await retries_in_an_outage(12) == 20
            for succeeded, earned in [(9, 0), (1, 1), (10, 1), (25, 2), (4, 0), (1, 1)]:
                server.reply = HELLO
                for _ in range(succeeded):
                    assert (await call(client, way)).succeeded() == HELLO.text
                assert await retries_in_an_outage(3) == earned
    assert len(time.sleeps) == 20 + 5


@pytest.mark.row("H17")
@everywhere
async def test_what_the_caller_changes_meanwhile_changes_no_later_attempt(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    messages = [Message("user", "first")]
    extra: dict[str, Any] = {"metadata": {"user": "one"}}

    def change(_: object) -> Fault:
        messages[0] = Message("user", "smuggled in")
        messages.append(Message("user", "and more"))
        extra["metadata"]["user"] = "another"
        return faults.refuse("server")

    async with (
        FaultServer(change, change) as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        asked: Any = messages
        assert (await call(client, way, asked, extra_body=extra)).succeeded() == HELLO.text
        first, *others = (request.body for request in server.requests)
        assert others == [first, first]
        assert b"first" in first
        assert b"smuggled" not in first
    assert time.taken() == LONGEST_WAITS


REPORTED: Mapping[str, str] = {
    "openai": "gpt-4o-mini-2024-07-18",
    "openai.responses": "gpt-4o-mini-2024-07-18",
    "anthropic": "claude-haiku-4-5",
    "gemini": "gemini-2.5-flash",
}


@pytest.mark.row("H18")
@everywhere
async def test_another_model_than_was_asked_for_is_priced_and_both_are_written_down(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, time: Time
) -> None:
    model = REPORTED[protocol]
    name = STREAM_COMPLETE if way == "stream" else REQUEST_COMPLETE
    reply = Reply("Hello.", usage=HELLO.usage, model=model)
    async with (
        FaultServer(reply=reply) as server,
        asking(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, way)).succeeded() == "Hello."
        [entry] = client.usage.ledger
        assert (entry.requested_model, entry.model, entry.state) == (MODEL, model, "exact")
        assert list(client.usage.by_model) == [model]
        assert client.usage.by_model[model].cost_usd == client.usage.total_cost_usd > 0
        [event] = [event for event in aftermath.events if event.name == name]
        assert event.request is not None
        assert event.response is not None
        assert (event.request.model, event.response.model) == (MODEL, model)
    assert time.sleeps == []
