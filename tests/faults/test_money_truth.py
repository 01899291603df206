"""Whatever becomes of a call, the client's books agree with what the server has billed.

Each test plays one kind of trouble over real sockets; `Books.check` is the judge.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether import Tool
from aether.errors import (
    AetherError,
    OverloadedError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from aether.llm.contracts import ImagePart, Message, ToolCall
from aether.testing import FaultServer, faults
from aether.testing.faults import Failure, Fault, Reply, WireRequest
from tests.faults.aftermath import Aftermath
from tests.faults.books import PROTOCOLS, TRANSPORTS, Books, a_reply, ask, opened_books
from tests.faults.exchanges import WIRES, request_of
from tests.faults.stage import share_tls_context

each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
each_transport = pytest.mark.parametrize("transport", TRANSPORTS)
both_ways = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])

MOST_TOKENS = 40
"""The limit that is asked for, where one is: the replies have fewer, and some estimates more."""
FAILURES = get_args(Failure)


@pytest.fixture(autouse=True)
def _quick_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    share_tls_context(monkeypatch)


def count_of_events(protocol: str, reply: Reply) -> int:
    stream = WIRES[protocol].stream(reply, request_of(protocol, streaming=True))
    return len(stream.events)


async def play(books: Books, *script: Any, streaming: bool, **options: Any) -> Any:
    """One call, of which the server answers each attempt as the script says. Then the books."""
    books.server.will(*script)
    count = books.server.count
    came = await ask(books.client, streaming=streaming, **options)
    assert books.server.count == count + len(script)
    books.check()
    return came


def last_states(books: Books, count: int = 1) -> list[str]:
    return [entry.state for entry in books.client.usage.ledger[-count:]]


@each_protocol
@each_transport
@both_ways
class TestEachOutcome:
    @pytest.mark.row("B2")
    async def test_an_answer_is_booked_to_the_token_and_to_the_cent(
        self, aftermath: Aftermath, protocol: str, transport: str, streaming: bool
    ) -> None:
        async with (
            FaultServer(reply=a_reply(protocol)) as server,
            opened_books(server, protocol, transport, aftermath=aftermath) as books,
        ):
            for how in (faults.split(7), faults.drop(), faults.headers(("x-more", "1"))):
                await play(books, how, streaming=streaming)
                assert last_states(books) == ["exact"]
        assert books.client.usage.is_exact
        assert books.client.usage.total_requests == 3
        assert books.client.usage.total_cost_usd > 0

    @pytest.mark.row("B3", "B4")
    async def test_an_answer_that_does_not_say_what_it_used_is_an_estimate(
        self, aftermath: Aftermath, protocol: str, transport: str, streaming: bool
    ) -> None:
        async with (
            FaultServer(reply=a_reply(protocol)) as server,
            opened_books(server, protocol, transport, aftermath=aftermath) as books,
        ):
            for limit in (None, MOST_TOKENS):
                await play(books, faults.untold(), streaming=streaming, max_tokens=limit)
                assert last_states(books) == ["estimated"]
        usage = books.client.usage
        assert usage.total_requests == 2
        assert usage.total_input_tokens == usage.total_output_tokens == 0
        assert usage.total_cost_usd > 0

    @pytest.mark.row("B5")
    async def test_a_refusal_costs_nothing(
        self, aftermath: Aftermath, protocol: str, transport: str, streaming: bool
    ) -> None:
        async with (
            FaultServer(reply=a_reply(protocol)) as server,
            opened_books(server, protocol, transport, aftermath=aftermath) as books,
        ):
            for failure in FAILURES:
                error = await play(books, faults.refuse(failure), streaming=streaming)
                assert isinstance(error, AetherError)
                expected = "unknown" if failure == "server" else "not_billed"
                assert last_states(books) == [expected], failure
        assert books.client.usage.total_cost_usd == 0.0

    @pytest.mark.row("B4")
    async def test_what_may_have_been_billed_is_never_booked_as_nothing(
        self, aftermath: Aftermath, protocol: str, transport: str, streaming: bool
    ) -> None:
        doubtful: list[Fault | list[Fault]] = [
            faults.reset(),
            faults.reset(billed=True),
            faults.close(),
            faults.close(billed=True),
            faults.status(500),
            faults.status(502, b"<html>"),
            faults.status(408),
            faults.redirect("http://127.0.0.1:1/"),
            faults.document(b"<html>Hello</html>"),
            faults.document(b"", "text/event-stream"),
            faults.raw(b"\x00\x01 no HTTP"),
            faults.cut(wire=20),
            faults.cut(wire=20, ending="reset"),
        ]
        async with (
            FaultServer(reply=a_reply(protocol)) as server,
            opened_books(server, protocol, transport, aftermath=aftermath) as books,
        ):
            for number, fault in enumerate(doubtful):
                limit = MOST_TOKENS if number % 2 else None
                error = await play(books, fault, streaming=streaming, max_tokens=limit)
                assert isinstance(error, AetherError)
                assert last_states(books) == ["unknown"], fault
                assert books.client.usage.ledger[-1].most_output_tokens == (limit or 131_072)
        assert books.client.usage.total_cost_usd == 0.0
        assert books.client.usage.uncertain_cost_usd > 0.0

    @pytest.mark.row("B3", "B4")
    async def test_an_answer_that_is_cut_anywhere_is_booked_as_far_as_it_is_known(
        self, aftermath: Aftermath, protocol: str, transport: str, streaming: bool
    ) -> None:
        reply = a_reply(protocol)
        seen: set[str] = set()
        async with (
            FaultServer(reply=reply) as server,
            opened_books(server, protocol, transport, aftermath=aftermath) as books,
        ):
            for fault, limit in cuts(count_of_events(protocol, reply) if streaming else 1):
                await play(books, fault, streaming=streaming, max_tokens=limit)
                seen.update(last_states(books))
        assert seen == ({"unknown", "estimated", "exact"} if streaming else {"unknown"})

    @pytest.mark.row("B3", "B4")
    async def test_an_error_inside_an_answer_may_have_been_billed(
        self, aftermath: Aftermath, protocol: str, transport: str, streaming: bool
    ) -> None:
        reply = a_reply(protocol)
        failures: tuple[Failure, ...] = ("overloaded", "rate_limit", "server")
        async with (
            FaultServer(reply=reply) as server,
            opened_books(server, protocol, transport, aftermath=aftermath) as books,
        ):
            for after in range(count_of_events(protocol, reply) if streaming else 1):
                fault = faults.error_event(failures[after % 3], after=after)
                came = await play(books, fault, streaming=streaming)
                assert last_states(books)[0] in {"unknown", "estimated", "exact"}
                assert isinstance(came, AetherError) or last_states(books) == ["exact"]
        assert books.client.usage.ledger[0].state == "unknown"

    @pytest.mark.row("B4")
    async def test_a_call_that_timed_out_is_bounded(
        self, aftermath: Aftermath, protocol: str, transport: str, streaming: bool
    ) -> None:
        async with (
            FaultServer(reply=a_reply(protocol)) as server,
            opened_books(server, protocol, transport, aftermath=aftermath, timeout=0.02) as books,
        ):
            for billed in (True, False):
                error = await play(books, faults.hang(billed=billed), streaming=streaming)
                assert isinstance(error, RequestTimeoutError)
                assert last_states(books) == ["unknown"]

    @pytest.mark.row("B3", "B4")
    async def test_a_call_that_was_cancelled_is_in_the_books(
        self, aftermath: Aftermath, protocol: str, transport: str, streaming: bool
    ) -> None:
        reply = a_reply(protocol)
        async with (
            FaultServer(reply=reply) as server,
            opened_books(server, protocol, transport, aftermath=aftermath) as books,
        ):
            for events in range(count_of_events(protocol, reply) if streaming else 1):
                server.will(faults.cut(events=events, ending="hanging"))
                task = asyncio.ensure_future(ask(books.client, streaming=streaming))
                await server.until_hanging(events + 1)
                task.cancel()
                with suppress(asyncio.CancelledError):  # its answer may have been whole
                    await task
                await server.until_left()
                books.check()
        assert books.client.usage.ledger[0].error == "CancelledError"

    @pytest.mark.row("B5")
    async def test_each_attempt_of_a_call_that_was_tried_again_is_in_the_books(
        self, aftermath: Aftermath, protocol: str, transport: str, streaming: bool
    ) -> None:
        troubles: list[Fault] = [
            faults.refuse("rate_limit", retry_after=0),
            faults.refuse("overloaded"),
            faults.status(500),
            faults.reset(),
            faults.reset(billed=True),
            faults.close(billed=True),
            faults.error_event("overloaded"),
            faults.cut(events=1 if protocol == "anthropic" else 0),
        ]
        async with (
            FaultServer(reply=a_reply(protocol)) as server,
            opened_books(server, protocol, transport, aftermath=aftermath, attempts=3) as books,
        ):
            for first, second in zip(troubles, reversed(troubles), strict=True):
                silent = a_reply(protocol, usage=None)
                await play(books, first, second, silent, streaming=streaming)
                assert last_states(books) == ["estimated"]
                await play(books, first, a_reply(protocol), streaming=streaming)
                assert last_states(books) == ["exact"]
            error = await play(books, *troubles[:3], streaming=streaming)
            assert isinstance(error, AetherError)
        assert books.client.usage.total_requests == 2 * len(troubles)

    @pytest.mark.row("B5")
    async def test_each_turn_and_each_further_question_is_in_the_books(
        self, aftermath: Aftermath, protocol: str, transport: str, streaming: bool
    ) -> None:
        calling = [
            a_reply(protocol, calls=[ToolCall(f"call-{number}", "lookup", {"word": "x" * 50})])
            for number in range(4)
        ]
        async with (
            FaultServer(reply=a_reply(protocol)) as server,
            opened_books(server, protocol, transport, aftermath=aftermath, attempts=2) as books,
        ):
            refused, failing = faults.refuse("rate_limit"), faults.error_event("overloaded")
            turns = [
                *(calling[0], refused, calling[1], [faults.untold(), calling[2]]),
                a_reply(protocol),
            ]
            await play(books, *turns, streaming=streaming, tools=[LOOKUP])
            turns = [calling[3], failing, a_reply(protocol)]
            await play(books, *turns, streaming=streaming, tools=[LOOKUP])
            answers = [a_reply(protocol, text) for text in ("no JSON", '{"n": "x"}', '{"n": 7}')]
            await play(books, *answers, streaming=streaming, output=dict[str, int])
        assert books.client.usage.total_requests == 4 + 2 + 3


def cuts(events: int) -> Iterator[tuple[Fault, int | None]]:
    """Where an answer may be cut, and a limit for its tokens."""
    for count in range(events + 1):
        yield faults.cut(events=count), None
        yield faults.cut(events=count, ending="reset"), MOST_TOKENS
    for size in range(30, 400, 90):
        yield faults.cut(body=size), MOST_TOKENS
    yield faults.cut(events=0, ending="whole"), None
    yield faults.unsettled(), MOST_TOKENS
    yield faults.wrong_length(5), None


async def _lookup(word: str) -> str:
    return f"{word}: nothing"


LOOKUP = Tool(
    name="lookup",
    description="Looks a word up in the large dictionary.",
    parameters={"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    handler=_lookup,
)


@each_protocol
class TestStreamsThatAreLeft:
    @pytest.mark.row("B3")
    async def test_a_stream_that_is_left_is_in_the_books_wherever_that_is(
        self, aftermath: Aftermath, protocol: str
    ) -> None:
        async with (
            FaultServer(reply=a_reply(protocol)) as server,
            opened_books(server, protocol, aftermath=aftermath) as books,
        ):
            chunks = await play(books, faults.split(1000), streaming=True)
            assert chunks[-1].is_final
            for leave in range(1, len(chunks) + 1):
                came = await play(books, faults.split(1000), streaming=True, leave=leave)
                assert len(came) == leave
        ledger = books.client.usage.ledger
        assert ledger[-1].state == "exact", "it was left right after its final chunk"
        assert {entry.state for entry in ledger[1:-1]} == {"estimated"}
        assert ledger[-1].error is None

    @pytest.mark.row("B3")
    async def test_what_a_stream_tells_before_it_breaks_is_no_estimate(
        self, aftermath: Aftermath, protocol: str
    ) -> None:
        """Anthropic tells the input first, Gemini all that was used by then."""
        reply = a_reply(protocol)
        settled = WIRES[protocol].stream(reply, request_of(protocol, streaming=True)).settled
        async with (
            FaultServer(reply=reply) as server,
            opened_books(server, protocol, aftermath=aftermath) as books,
        ):
            await play(books, faults.cut(events=settled - 1), streaming=True)
        entry = books.client.usage.ledger[0]
        told = protocol in ("anthropic", "gemini")
        assert (entry.most_input_tokens is None) == told
        if told:
            counts = (entry.input_tokens, entry.cache_read_tokens, entry.cache_write_tokens)
            assert counts == (120, 40, 30 if protocol == "anthropic" else None)
            assert books.client.usage.total_input_tokens == 120
        if protocol == "gemini":
            assert entry.output_tokens == server.served[0].output_tokens
            assert entry.reasoning_tokens == server.served[0].reasoning_tokens


class TestPartsOfAnAnswer:
    """Anthropic pauses a turn in which a tool of its own works: it is sent back, and goes on."""

    @both_ways
    @pytest.mark.row("B5")
    async def test_each_part_has_its_entry(self, aftermath: Aftermath, streaming: bool) -> None:
        async with (
            FaultServer(reply=a_reply("anthropic")) as server,
            opened_books(server, "anthropic", aftermath=aftermath) as books,
        ):
            await play(books, PAUSED, PAUSED, a_reply("anthropic"), streaming=streaming)
            assert books.client.usage.is_exact
            assert books.client.usage.total_requests == 1
            assert books.client.usage.total_input_tokens == 3 * 120
            for trouble in (
                faults.refuse("overloaded"),
                faults.reset(billed=True),
                faults.error_event("overloaded", after=1),
                faults.cut(events=4),
                faults.untold(),
            ):
                await play(books, PAUSED, trouble, streaming=streaming)

    @both_ways
    @pytest.mark.row("B4")
    async def test_a_later_part_is_bounded_by_all_that_was_sent_for_it(
        self, aftermath: Aftermath, streaming: bool
    ) -> None:
        long = [faults.edit(_paused), a_reply("anthropic", "x" * 9000, finish_raw="pause_turn")]
        async with (
            FaultServer(reply=a_reply("anthropic")) as server,
            opened_books(server, "anthropic", aftermath=aftermath) as books,
        ):
            await play(books, long, faults.reset(billed=True), streaming=streaming)
        first, second = books.client.usage.ledger
        assert (first.state, second.state) == ("exact", "unknown")
        assert (second.most_input_tokens or 0) > 9000

    @pytest.mark.row("B4")
    async def test_a_later_part_that_fails_before_it_says_anything_is_not_billed_for_certain(
        self, aftermath: Aftermath
    ) -> None:
        async with (
            FaultServer(reply=a_reply("anthropic")) as server,
            opened_books(server, "anthropic", aftermath=aftermath) as books,
        ):
            failing = faults.error_event("overloaded", after=1)
            error = await play(books, PAUSED, failing, streaming=True)
            assert isinstance(error, StreamInterruptedError)
            assert isinstance(error.__cause__, OverloadedError)
            assert last_states(books, 2) == ["exact", "unknown"]
            assert books.client.usage.ledger[-1].input_tokens == 120


def _paused(pieces: list[bytes]) -> list[bytes]:
    """The answer, with a tool of the server's at work at its end."""
    used = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    if len(pieces) == 1:
        answer = json.loads(pieces[0])
        answer["content"].append(used)
        return [json.dumps(answer).encode()]
    block = {"type": "content_block_start", "index": 9, "content_block": used}
    stop = {"type": "content_block_stop", "index": 9}
    events = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in (block, stop)]
    return [*pieces[:-2], *events, *pieces[-2:]]


PAUSED = [faults.edit(_paused), a_reply("anthropic", finish_raw="pause_turn")]


class TestFailuresThatTellTheirUsage:
    @both_ways
    @pytest.mark.row("B5")
    async def test_a_failed_response_is_booked_as_it_says(
        self, aftermath: Aftermath, streaming: bool
    ) -> None:
        def failed(pieces: list[bytes]) -> list[bytes]:
            last = pieces[-1].replace(b'"completed"', b'"failed"')
            last = last.replace(b"response.completed", b"response.failed")
            error = b'"error": {"code": "server_error", "message": "It broke."}'
            return [*pieces[:-1], last.replace(b'"error": null', error)]

        async with (
            FaultServer(reply=a_reply("openai.responses")) as server,
            opened_books(server, "openai.responses", aftermath=aftermath, attempts=2) as books,
        ):
            silent = a_reply("openai.responses", "", calls=[])
            script = [faults.edit(failed), silent]
            await play(books, script, a_reply("openai.responses"), streaming=streaming)
            assert last_states(books, 2) == ["exact", "exact"]
            assert books.client.usage.total_requests == 1
            assert books.client.usage.total_input_tokens == 2 * 120
            failure = await play(books, script, script, streaming=streaming)
            assert isinstance(failure, AetherError)
            assert last_states(books, 2) == ["exact", "exact"]

    @pytest.mark.row("B5")
    @pytest.mark.parametrize("protocol", ["openai", "anthropic", "gemini"])
    async def test_an_answer_that_says_nothing_is_booked_as_it_says(
        self, aftermath: Aftermath, protocol: str
    ) -> None:
        def emptied(pieces: list[bytes]) -> list[bytes]:
            answer = json.loads(pieces[0])
            if protocol == "anthropic":
                answer.update(content=[], stop_reason=None)
            elif protocol == "gemini":
                del answer["candidates"]
            else:
                answer["choices"][0].update(message={"content": None}, finish_reason=None)
            return [json.dumps(answer).encode()]

        async with (
            FaultServer(reply=a_reply(protocol)) as server,
            opened_books(server, protocol, aftermath=aftermath) as books,
        ):
            error = await play(books, faults.edit(emptied), streaming=False)
            assert isinstance(error, AetherError)
            # Of Gemini's, which ends without a reason, there may have been more.
            assert last_states(books) == ["estimated" if protocol == "gemini" else "exact"]
            assert books.client.usage.total_requests == 0
            assert books.client.usage.total_input_tokens == 120


class TestTogether:
    @pytest.mark.row("B5", "B6")
    async def test_calls_at_the_same_time_are_each_in_the_books(self, aftermath: Aftermath) -> None:
        troubles: list[Any] = [
            faults.refuse("rate_limit", retry_after=0),
            faults.status(500),
            faults.reset(billed=True),
            [faults.untold(), a_reply("anthropic")],
            faults.cut(events=5),
            faults.error_event("overloaded", after=1),
            *(a_reply("anthropic", model=model) for model in ("claude-opus-5-5", "unpriced-9")),
        ]
        async with (
            FaultServer(*(troubles * 6), reply=a_reply("anthropic")) as server,
            opened_books(
                server, "anthropic", aftermath=aftermath, attempts=3, in_order=False
            ) as books,
        ):
            calls = [ask(books.client, streaming=number % 2 == 0) for number in range(60)]
            await asyncio.gather(*calls)
            assert server.count > 60
        rows = books.client.usage.by_model
        assert rows["unpriced-9"].cost_usd is None
        assert rows["unpriced-9"].input_tokens


class TestBounds:
    """What a count is bounded by where nobody tells it."""

    @pytest.mark.row("B4")
    async def test_all_that_is_sent_is_in_the_bound(self, aftermath: Aftermath) -> None:
        sent: list[WireRequest] = []

        def lost(request: WireRequest) -> Fault:
            sent.append(request)
            return faults.reset(billed=True)

        async with (
            FaultServer(reply=lost) as server,
            opened_books(server, "anthropic", aftermath=aftermath) as books,
        ):
            client = books.client
            history = [
                Message("system", "é" * 300),
                Message("user", "x"),
                Message("assistant", "", tool_calls=[ToolCall("c1", "lookup", {"word": "a" * 99})]),
                Message("tool", "中" * 200, tool_call_id="c1"),
            ]
            for asked in (history[:2], history):
                with suppress(AetherError):
                    await client.complete(asked, tools=[LOOKUP], output=dict[str, int])
        assert len(sent) == 2
        for request, entry in zip(sent, client.usage.ledger, strict=True):
            assert entry.most_input_tokens is not None
            texts = json.dumps(request.json["messages"], ensure_ascii=False).encode()
            assert entry.most_input_tokens > len(texts)
            assert entry.most_input_tokens < len(request.body) + 4_000

    @pytest.mark.row("B4")
    @pytest.mark.parametrize(
        ("content", "options", "most"),
        [
            ([ImagePart(data=b"x", media_type="image/png")], {}, 65_536),
            ([ImagePart(url="https://example.com/x.png")], {}, 65_536),
            ("x", {"extra_body": {"previous_response_id": "r"}}, 2_097_152),
        ],
    )
    async def test_what_is_only_named_is_bounded_by_what_models_read(
        self, aftermath: Aftermath, content: Any, options: dict[str, Any], most: int
    ) -> None:
        async with (
            FaultServer(reply=faults.reset()) as server,
            opened_books(server, "openai.responses", aftermath=aftermath) as books,
        ):
            with suppress(AetherError):
                await books.client.complete([Message("user", content)], max_tokens=7, **options)
        [entry] = books.client.usage.ledger
        assert entry.state == "unknown"
        assert entry.most_input_tokens is not None
        assert most <= entry.most_input_tokens < most + 1_000
        assert entry.most_output_tokens == (131_072 if options else 7)


# Any order of any of them

STEPS: dict[str, Callable[[str], Any]] = {
    "answer": a_reply,
    "no usage": lambda protocol: [faults.untold(), a_reply(protocol)],
    "another model": lambda protocol: a_reply(protocol, model="gpt-4o-mini"),
    "unpriced": lambda protocol: a_reply(protocol, model="unpriced-9"),
    "calls": lambda protocol: a_reply(protocol, calls=[ToolCall("c", "lookup", {"word": "w"})]),
    "refused": lambda _: faults.refuse("rate_limit", retry_after=0),
    "quota": lambda _: faults.refuse("quota"),
    "broken server": lambda _: faults.status(503),
    "reset": lambda _: faults.reset(billed=True),
    "closed": lambda _: faults.close(),
    "document": lambda _: faults.document(b"<html>"),
    "error event": lambda _: faults.error_event("overloaded", after=1),
    "late error event": lambda _: faults.error_event("server", after=6),
    "cut early": lambda _: faults.cut(events=1),
    "cut": lambda _: faults.cut(events=5),
    "cut in an event": lambda _: faults.cut(body=260, ending="reset"),
    "no reason": lambda _: faults.unsettled(),
}


@pytest.mark.row("B3", "B4", "B5")
@settings(max_examples=60, deadline=None)
@given(
    protocol=st.sampled_from(PROTOCOLS),
    steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=10),
    ways=st.lists(
        st.tuples(st.booleans(), st.sampled_from([None, MOST_TOKENS]), st.integers(1, 6)),
        min_size=4,
        max_size=4,
    ),
    attempts=st.integers(1, 3),
)
def test_the_books_are_right_after_every_call_of_any_script(
    protocol: str,
    steps: list[str],
    ways: list[tuple[bool, int | None, int]],
    attempts: int,
) -> None:
    async def run() -> None:
        script = [STEPS[step](protocol) for step in steps]
        async with (
            FaultServer(*script, reply=a_reply(protocol)) as server,
            opened_books(server, protocol, attempts=attempts) as books,
        ):
            for streaming, limit, leave in ways:
                await ask(
                    books.client,
                    streaming=streaming,
                    leave=leave if leave < 6 else None,
                    max_tokens=limit,
                    tools=[LOOKUP],
                    max_tool_iterations=3,
                )
                await server.until_left()
                books.check()

    asyncio.run(run())
