"""How long the loop is held up by what is large, dense or cut very small: no step is long."""

from __future__ import annotations

import dataclasses
import gc
import gzip
import json
import types
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aether import Aether
from aether.errors import AetherError, OutputError
from aether.llm.contracts import ToolCall
from aether.testing import FaultServer, faults
from aether.testing.faults import Answer, Fault, Reply
from aether.tools.dispatch import dispatch_tool
from tests.faults.exchanges import (
    PROTOCOLS,
    TRANSPORTS,
    USAGE,
    body_of,
    each_protocol,
    each_transport,
    events_of,
    first_event,
)
from tests.faults.loop_steps import LONGEST_STEP, Steps, elsewhere, measured_steps

MIB = 1024 * 1024
STREAM = {"content-type": "text/event-stream"}
TRIES = 8
"""One step may have met with what a test cannot help; one that is long is long each time."""

DENSE = {
    "numbers": b"1,",
    "arrays": b"[],",
    "objects": b'{"a":1},',
    "texts": b'"ab",',
    "pairs": b'{"a":[1,{}]},',
}
TEXTS = {
    "letters": "a",
    "escapes": "\n",
    "quotes": '"',
    "accents": "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "smileys": "\N{GRINNING FACE}",
}


SHORT = Reply("Q", usage=USAGE)
"""A text that is one event of a stream."""


def filled(part: bytes, size: int) -> bytes:
    """So many bytes, about, of the same again and again."""
    return part * (size // len(part))


def pieces(data: bytes, size: int = MIB) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def with_extra(document: bytes, value: bytes) -> bytes:
    """A JSON object with one more member in front, which no protocol knows."""
    assert document.startswith(b"{")
    return b'{"extra": %b, ' % value + document[1:]


def event_with_extra(protocol: str, value: bytes) -> list[bytes]:
    """The events of a reply; the one that brings its text is large."""
    events = events_of(protocol, SHORT)[0]
    place = first_event(protocol, b'"Q"', SHORT)
    head, start, data = events[place].partition(b"data: ")
    return [*events[:place], head + start + with_extra(data, value), *events[place + 1 :]]


async def longest_step(
    act: Callable[[], Awaitable[object]], *, warm_up: Callable[[], Awaitable[object]] | None = None
) -> Steps:
    """The longest step of the quickest of a few tries."""
    if warm_up is not None:
        await warm_up()
    best = Steps(longest=float("inf"))
    for _ in range(TRIES):
        gc.collect()
        gc.freeze()  # what other tests hold, and the tries before, is not gone through in a step
        try:
            async with measured_steps() as measured:
                await act()
        finally:
            gc.unfreeze()
        if measured.longest < best.longest:
            best = measured
        if best.longest <= LONGEST_STEP:
            break
    return best


async def ask(client: Aether, **options: Any) -> str:
    return await client.ask("Hi", **options)


async def read(client: Aether, **options: Any) -> str:
    """The text of a stream, as it came."""
    async with client.stream_text("Hi", **options) as texts:
        return "".join([piece async for piece in texts])


async def asserts_short_steps(
    protocol: str,
    transport: str,
    script: Answer | Fault | list[Any],
    call: Callable[[Aether], Awaitable[Any]],
    check: Callable[[Any], None],
) -> None:
    """The call is answered from the script, and takes no long step, whatever comes of it."""
    outcomes: list[Any] = []

    async def act() -> None:
        try:
            outcomes.append(await call(client))
        except AetherError as error:
            outcomes.append(error)

    async with elsewhere(lambda: FaultServer("Hello there.", reply=script, patience=60)) as server:
        config = server.config(protocol, transport=transport)
        async with Aether(config=config, with_retry=False, with_circuit_breaker=False) as client:
            steps = await longest_step(act, warm_up=lambda: ask(client))
    for outcome in outcomes:
        check(outcome)
    assert steps.longest <= LONGEST_STEP, f"{steps.longest:.3f} s of CPU: {steps.what}"


def refused(word: str) -> Callable[[Any], None]:
    def check(outcome: Any) -> None:
        assert isinstance(outcome, AetherError), f"it passed for an answer: {outcome!r:.200}"
        assert word in str(outcome)

    return check


def says(text: str | bool) -> Callable[[Any], None]:
    def check(outcome: Any) -> None:
        if isinstance(outcome, AetherError):
            raise outcome
        assert outcome == text

    return check


@pytest.mark.row("S11")
@pytest.mark.parametrize("way", [ask, read])
@each_protocol
async def test_a_dense_document_holds_nobody_up(protocol: str, way: Any) -> None:
    """Nearly a million values, in a field that nobody reads."""
    value = b"[" + filled(DENSE["objects"], 3 * MIB) + b"1]"
    if way is ask:
        answer = Answer(pieces(with_extra(body_of(protocol, SHORT), value)), framing="length")
    else:
        answer = Answer(pieces(b"".join(event_with_extra(protocol, value))), headers=STREAM)
    transport = TRANSPORTS[PROTOCOLS.index(protocol) % 2]
    await asserts_short_steps(protocol, transport, answer, way, says("Q"))


@pytest.mark.row("S11")
@pytest.mark.parametrize("way", [ask, read])
@each_protocol
async def test_a_document_of_too_many_values_is_refused_without_holding_up_anybody(
    protocol: str, way: Any
) -> None:
    if way is ask:
        value = b"[" + filled(DENSE["arrays"], 60 * MIB) + b"1]"
        answer = Answer(pieces(with_extra(body_of(protocol, SHORT), value)), framing="length")
    else:
        value = b"[" + filled(DENSE["arrays"], 15 * MIB) + b"1]"
        answer = Answer(pieces(b"".join(event_with_extra(protocol, value))), headers=STREAM)
    transport = TRANSPORTS[PROTOCOLS.index(protocol) % 2]
    await asserts_short_steps(protocol, transport, answer, way, refused("4000000 values"))


MEMBERS: dict[str, tuple[str, str]] = {
    "choices": ("openai", '{"choices": [%s]}'),
    "tool_calls": ("openai", '{"choices": [{"index": 0, "message": {"tool_calls": [%s]}}]}'),
    "parts": ("gemini", '{"candidates": [{"content": {"parts": [%s]}}]}'),
    "content": ("anthropic", '{"type": "message", "content": [%s]}'),
    "output": ("openai.responses", '{"status": "completed", "output": [%s]}'),
}


@pytest.mark.row("S11")
@pytest.mark.parametrize("name", MEMBERS)
async def test_an_answer_of_very_many_parts_is_refused_without_holding_up_anybody(
    name: str,
) -> None:
    protocol, document = MEMBERS[name]
    body = (document % ", ".join(['{"index": 1}'] * 200_000)).encode()
    answer = Answer(pieces(body), framing="length")
    await asserts_short_steps(protocol, "aiohttp", answer, ask, refused(f"2048 members of {name}"))


@pytest.mark.row("S11")
@pytest.mark.parametrize(
    ("protocol", "letter"),
    [
        *((protocol, "escapes") for protocol in PROTOCOLS if protocol != "gemini"),
        *(("gemini", letter) for letter in TEXTS),
    ],
)
async def test_a_long_text_holds_nobody_up(protocol: str, letter: str) -> None:
    """In one event, and in an answer that is no stream."""
    written = json.dumps(TEXTS[letter], ensure_ascii=letter != "accents")[1:-1].encode()
    text = TEXTS[letter] * (12 * MIB // len(written))
    long = filled(written, 12 * MIB)
    body = body_of(protocol, SHORT).replace(b'"Q"', b'"%b"' % long)
    events = [event.replace(b'"Q"', b'"%b"' % long) for event in events_of(protocol, SHORT)[0]]
    transport = TRANSPORTS[PROTOCOLS.index(protocol) % 2]

    async def asked(client: Aether) -> bool:
        return await ask(client) == text

    async def streamed(client: Aether) -> bool:
        return await read(client) == text

    whole = Answer(pieces(body), framing="length")
    await asserts_short_steps(protocol, transport, whole, asked, says(True))
    parts = Answer(pieces(b"".join(events)), headers=STREAM)
    await asserts_short_steps(protocol, transport, parts, streamed, says(True))


def end_of(protocol: str) -> list[bytes]:
    return events_of(protocol, SHORT)[0]


@pytest.mark.row("S25")
@each_transport
async def test_very_many_events_at_once_hold_nobody_up(transport: str) -> None:
    first, *rest = events_of("openai", SHORT)[0]
    assert b'"Q"' in first + rest[0]
    events = [first, *rest[:1] * 100_000, *rest[1:]]
    answer = Answer(pieces(b"".join(events)), headers=STREAM)
    count = b"".join(events).count(b'"Q"')
    await asserts_short_steps("openai", transport, answer, read, says("Q" * count))


@pytest.mark.row("S25")
@each_transport
async def test_very_many_events_without_a_word_hold_nobody_up(transport: str) -> None:
    answer = Answer(pieces(b"data: {}\n\n" * 200_000) + end_of("openai"), headers=STREAM)
    await asserts_short_steps("openai", transport, answer, read, says("Q"))


def in_tiny_chunks(status: bytes, body: bytes, count: int) -> Answer:
    """The chunked coding, a byte or two at a time, and all of it at once."""
    head = b"HTTP/1.1 %b\r\ntransfer-encoding: chunked\r\n\r\n" % status
    coded = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    return Answer(None, raw=head + coded * count + b"0\r\n\r\n")


@pytest.mark.row("N13")
@each_transport
async def test_very_many_tiny_chunks_at_once_hold_nobody_up(transport: str) -> None:
    stream = in_tiny_chunks(b"200 OK", b":\n\n", 7_000)
    await asserts_short_steps("openai", transport, stream, read, refused("ended before"))
    body = in_tiny_chunks(b"200 OK", b"x", 20_000)
    await asserts_short_steps("openai", transport, body, ask, refused("not JSON"))
    error = in_tiny_chunks(b"400 No", b"x", 20_000)
    await asserts_short_steps("openai", transport, error, ask, refused("400"))


@pytest.mark.row("S11", "S10", "H13", "N15", "N16")
@each_transport
async def test_what_is_too_large_is_given_up_without_holding_up_anybody(transport: str) -> None:
    async def refuses(script: Any, call: Any, word: str) -> None:
        await asserts_short_steps("openai", transport, script, call, refused(word))

    endless = pieces(b"data: " + b"x" * (17 * MIB))
    await refuses(Answer(endless, headers=STREAM), read, "larger than 16777216 bytes")
    lines = pieces((b"data: " + b"1" * 700 + b"\n") * 20_001)
    await refuses(Answer([*lines, b"\n"], headers=STREAM), read, "lines")
    lines = pieces((b"data: " + b"1" * 800 + b"\n") * 19_000)
    await refuses(Answer([*lines, b"\n"], headers=STREAM), read, "not JSON")
    await refuses([faults.bomb()], read, "larger than")
    await refuses([faults.bomb()], ask, "an empty body")
    members = pieces(gzip.compress(b"") * 60_000)
    coded = Answer(members, headers={"content-encoding": "gzip"})
    await refuses(coded, ask, "longer in the content coding")
    dense = b'{"error": [' + filled(DENSE["arrays"], 10 * MIB) + b"1]}"
    await refuses(Answer(pieces(dense), status=400), ask, "400")
    many = [(f"x-{number}", "y") for number in range(100_000)]
    await refuses(Answer([b"{}"], headers=many), ask, "not HTTP")


# --- Tools ------------------------------------------------------------------------------------


def rows(number: int) -> list[dict[str, Any]]:
    return [{"id": each, "name": "a name", "tags": ["a", 1.5]} for each in range(number)]


@dataclasses.dataclass
class Table:
    rows: list[dict[str, Any]]


MANY: dict[str, Callable[[], Any]] = {
    "numbers": lambda: list(range(2_000_000)),
    "rows": lambda: {"rows": rows(200_000)},
    "dataclass": lambda: Table(rows(200_000)),
    "long texts": lambda: {str(each): "word " * 200_000 for each in range(100)},
    "one text": lambda: {"text": "x" * 100_000_000},
    "nearly shown": lambda: list(range(150_000)),
    "nearly small": lambda: [each / 7 for each in range(32_000)],
    "set": lambda: set(range(200_000)),
    "mapping": lambda: types.MappingProxyType({str(each): each for each in range(500_000)}),
    "not finite": lambda: [float("nan")] * 1_000_000,
    "names": lambda: dict.fromkeys(range(1_000_000)),
}


@pytest.mark.row("T11")
@pytest.mark.parametrize("make", MANY.values(), ids=MANY)
async def test_a_large_result_holds_nobody_up(make: Callable[[], Any]) -> None:
    value = make()

    async def give() -> Any:
        return value

    async def act() -> None:
        result = await dispatch_tool(ToolCall("call-1", "give", {}), tools=[give])
        assert not result.is_error
        assert len(result.content.encode()) <= 1_048_576

    steps = await longest_step(act)
    assert steps.longest <= LONGEST_STEP, f"{steps.longest:.3f} s of CPU: {steps.what}"


LARGE_ARGUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "dense": lambda: {"given": [[]] * 400_000},
    "long": lambda: {"given": "\n" * 5_000_000},
    "largest": lambda: {"given": [1] * 65_000},
    "longest": lambda: {"given": "\n" * 1_000_000},
}


@pytest.mark.row("T7")
@pytest.mark.parametrize("size", LARGE_ARGUMENTS)
@each_protocol
async def test_large_arguments_hold_nobody_up(protocol: str, size: str) -> None:
    given: list[Any] = []
    results: list[Any] = []
    arguments = LARGE_ARGUMENTS[size]()
    calling = Reply(calls=[ToolCall("call-1", "take", arguments)], usage=USAGE)

    async def take(given_: list[Any] | str = "", **more: Any) -> str:
        given.append(more["given"])
        return "taken"

    async def act() -> None:
        await client.ask("Hi", tools=[take])

    scripts = [item for _ in range(TRIES) for item in (calling, "done")]
    async with elsewhere(lambda: FaultServer("Hello there.", *scripts, patience=60)) as server:
        config = server.config(protocol, transport="aiohttp")
        async with Aether(config=config, with_retry=False) as client:
            client.on("tool.complete")(results.append)
            client.on("tool.error")(results.append)
            steps = await longest_step(act, warm_up=lambda: ask(client))
    # Where arguments come as objects, a long text in them costs nothing.
    fits = size.endswith("est") or (size == "long" and protocol in ("anthropic", "gemini"))
    assert all(each == arguments["given"] for each in given)
    assert bool(given) is fits
    assert steps.longest <= LONGEST_STEP, f"{steps.longest:.3f} s of CPU: {steps.what}"


@pytest.mark.row("T7")
async def test_a_large_answer_that_is_to_have_a_type_is_refused_without_holding_up_anybody() -> (
    None
):
    text = "[" + "[]," * 1_000_000 + "[]]"

    async def act() -> None:
        with pytest.raises(OutputError, match="too large"):
            await client.ask("Hi", output=list[list[int]], output_retries=0)

    async with (
        elsewhere(lambda: FaultServer("Hello.", reply=text, patience=60)) as server,
        Aether(config=server.config("openai"), with_retry=False) as client,
    ):
        steps = await longest_step(act, warm_up=lambda: ask(client))
    assert steps.longest <= LONGEST_STEP, f"{steps.longest:.3f} s of CPU: {steps.what}"


@pytest.mark.row("T13")
@each_protocol
async def test_very_many_calls_in_a_stream_are_refused_without_holding_up_anybody(
    protocol: str,
) -> None:
    calls = [ToolCall(f"call-{number}", "add", {"a": number}) for number in range(3000)]
    events = events_of(protocol, Reply(calls=calls, usage=USAGE))[0]
    answer = Answer(pieces(b"".join(events)), headers=STREAM)
    await asserts_short_steps(protocol, "aiohttp", answer, read, refused("more than 2048 members"))


@pytest.mark.row("T13")
async def test_very_many_calls_in_one_turn_hold_nobody_up() -> None:
    calls = [ToolCall(f"call-{number}", "add", {"a": number}) for number in range(1000)]

    async def add(a: int) -> int:
        return a

    async def act() -> None:
        with pytest.raises(AetherError, match="at most 128"):
            await client.ask("Hi", tools=[add])

    script = Reply(calls=calls, usage=USAGE)
    async with (
        elsewhere(lambda: FaultServer("Hello.", reply=script, patience=60)) as server,
        Aether(config=server.config("openai"), with_retry=False) as client,
    ):
        steps = await longest_step(act, warm_up=lambda: ask(client))
    assert steps.longest <= LONGEST_STEP, f"{steps.longest:.3f} s of CPU: {steps.what}"
