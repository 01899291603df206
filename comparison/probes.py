"""What is done to the libraries: each probe is one server and what one call is to make of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from aether.llm.contracts import TokenUsage, ToolCall
from aether.testing import faults
from aether.testing.faults import Answer, Fault, Reply, Script, Situation

TEXT = "It is sunny in Paris, and it will be tomorrow."
REPLY = Reply(TEXT, usage=TokenUsage(input_tokens=15, output_tokens=12))
CALLING = Reply(calls=[ToolCall("call_1", "get_weather", {"city": "Paris, the one in France"})])
PAGE = b"<!doctype html><html><title>Sign in</title><body>Please sign in.</body></html>"

_ARGUMENTS = {
    "openai": re.compile(rb'"function": \{"arguments":'),
    "openai.responses": re.compile(rb"function_call_arguments\.delta"),
    "anthropic": re.compile(rb"input_json_delta"),
}
"""The events that bring arguments of a call. Gemini sends them whole."""
_END_MARKS = ("openai", "anthropic")
"""The protocols with an end mark beside the reason why an answer ended."""


@dataclass(frozen=True)
class Probe:
    """One call to one server."""

    group: str
    """Which figure it belongs to."""
    name: str
    protocol: str
    do: str
    """`ask`, `stream` or another job of the worker."""
    script: tuple[Script, ...] = ()
    reply: Script = REPLY
    tool: bool = False
    calls: int = 1


def _pieces(name: str, change: Callable[[list[bytes], Situation], Iterable[bytes]]) -> Fault:
    """A fault that writes other pieces, and then ends as if all was well."""

    def changed(answer: Answer, situation: Situation) -> Answer:
        return answer.changed(pieces=list(change(list(answer.pieces or ()), situation)))

    return Fault(name, changed)


def _first_text(pieces: list[bytes]) -> int:
    return next(n for n, piece in enumerate(pieces) if TEXT[:12].encode() in piece)


def _inside_an_event(pieces: list[bytes], _: Situation) -> list[bytes]:
    after = _first_text(pieces) + 1
    return [*pieces[:after], pieces[after][: len(pieces[after]) // 2]]


def _inside_arguments(protocol: str) -> Fault:
    def change(pieces: list[bytes], _: Situation) -> list[bytes]:
        found = [n for n, piece in enumerate(pieces) if _ARGUMENTS[protocol].search(piece)]
        return pieces[: found[-1]]

    return _pieces("cut inside the arguments", change)


def _json_error() -> Fault:
    def change(answer: Answer, situation: Situation) -> Answer:
        body = situation.wire.error("server", "The server had an error.").body
        return answer.changed(pieces=[body], headers=(("content-type", "application/json"),))

    return Fault("a JSON error body", change)


NO_REASON = _pieces("no reason", lambda pieces, about: pieces[: about.settled - 1])
INSIDE_AN_EVENT = _pieces("cut inside an event", _inside_an_event)
END_MARK_ONLY = _pieces("end mark only", lambda pieces, _: pieces[-1:])
NOTHING = _pieces("nothing", lambda _, __: [])
HALF = _pieces("half a body", lambda pieces, _: [pieces[0][: len(pieces[0]) // 2]])


def _no_json(pieces: list[bytes], _: Situation) -> list[bytes]:
    after = _first_text(pieces) + 1
    pieces[after] = pieces[after].replace(b"data: {", b"data: {{", 1)
    return pieces


NO_JSON = _pieces("an event that is no JSON", _no_json)


def _hanging(answer: Answer, _: Situation) -> Answer:
    pieces = list(answer.pieces or ())
    return answer.changed(first_pieces=_first_text(pieces) + 1, ending="hanging")


AFTER_THE_FIRST_TEXT = Fault("silence after the first text", _hanging)


def wrong_answers(protocol: str) -> Iterator[Probe]:
    """The eight faults after a status of 200, with each of which no answer is whole."""
    streamed: list[tuple[str, Script, bool]] = [("a clean end without a reason", NO_REASON, False)]
    if protocol in _END_MARKS:
        streamed.append(("the end mark without a reason", faults.unsettled(), False))
    streamed.append(("a clean end inside an event", INSIDE_AN_EVENT, False))
    if protocol in _ARGUMENTS:
        cut: Script = [CALLING, _inside_arguments(protocol)]
        streamed.append(("a clean end inside a call's arguments", cut, True))
    if protocol in _END_MARKS:
        streamed.append(("the end mark alone", END_MARK_ONLY, False))
    page = faults.document(PAGE)
    anywhere: list[tuple[str, Script, bool]] = [
        ("nothing", NOTHING, False),
        ("an HTML page", page, False),
        ("a JSON error body", _json_error(), False),
    ]
    for name, reply, tool in [*streamed, *anywhere]:
        yield Probe("wrong, streamed", name, protocol, "stream", reply=reply, tool=tool)
    whole: list[tuple[str, Script, bool]] = [("a clean end inside the body", HALF, False)]
    for name, reply, _ in [*whole, *anywhere]:
        yield Probe("wrong, whole", name, protocol, "ask", reply=reply)


def right_answers(protocol: str) -> Iterator[Probe]:
    """Answers that are whole, however they come."""
    anyhow: list[tuple[str, Script]] = [
        ("plain", REPLY),
        ("byte by byte", faults.split(1)),
        ("the connection closed after it", faults.drop()),
    ]
    streamed = [*anyhow, ("other line ends", faults.edit(_other_line_ends))]
    if protocol == "openai":  # as many servers that speak it do
        anyhow.append(("no usage", faults.untold()))
        streamed.append(("no usage", faults.untold()))
        streamed.append(("no end mark", faults.edit(lambda pieces: pieces[:-1])))
        streamed.append(("comments between", faults.edit(_with_comments)))
    for name, reply in streamed:
        yield Probe("right", name, protocol, "stream", reply=reply)
    for name, reply in anyhow:
        yield Probe("right", name, protocol, "ask", reply=reply)


def _other_line_ends(pieces: list[bytes]) -> list[bytes]:
    unix = [piece.replace(b"\r\n", b"\n") for piece in pieces]
    return unix if unix != pieces else [piece.replace(b"\n", b"\r\n") for piece in pieces]


def _with_comments(pieces: list[bytes]) -> list[bytes]:
    return [part for piece in pieces for part in (b": working\n\n", piece)]


def failures(protocol: str) -> Iterator[Probe]:
    """What is an error to everybody. Of which class is it?"""

    def broken(answer: Answer, _: Situation) -> Answer:
        return answer.changed(first_pieces=_first_text(list(answer.pieces or ())) + 1)

    after_text = Fault("after the first text", broken)
    error = faults.error_event("overloaded", "Overloaded.", after=_first_events(protocol))
    streamed: list[tuple[str, Script]] = [
        ("a connection closed in a stream", [after_text, _ends("broken")]),
        ("a connection reset in a stream", [after_text, _ends("reset")]),
        ("an error event in a stream", error),
        ("an event that is no JSON", NO_JSON),
    ]
    for name, reply in streamed:
        yield Probe("failure", name, protocol, "stream", reply=reply)
    whole: list[tuple[str, Script]] = [
        ("a connection closed in a body", faults.cut(body=40)),
        ("a connection reset in a body", faults.cut(body=40, ending="reset")),
        ("a connection closed before the answer", faults.close()),
        ("a connection reset before the answer", faults.reset()),
        ("400", faults.refuse("bad_request")),
        ("403", faults.refuse("permission")),
        ("404", faults.refuse("not_found")),
        ("429", faults.refuse("rate_limit", retry_after=0)),
        ("500", faults.refuse("server")),
    ]
    for name, reply in whole:
        yield Probe("failure", name, protocol, "ask", reply=reply)


def _ends(ending: faults.Ending) -> Fault:
    return Fault(ending, lambda answer, _: answer.changed(ending=ending))


def _first_events(protocol: str) -> int:
    """After so many events the first text is out."""
    return {"openai": 2, "openai.responses": 5, "anthropic": 4, "gemini": 1}[protocol]


def retries(protocol: str) -> Iterator[Probe]:
    """How often is a request sent?"""
    yield Probe("401", "", protocol, "ask", reply=faults.refuse("authentication"))
    if protocol.startswith("openai"):
        yield Probe("quota", "", protocol, "ask", reply=faults.refuse("quota"))
    yield Probe("outage", "", protocol, "ask", reply=faults.refuse("overloaded"))
    refused = faults.refuse("rate_limit", retry_after=600)
    yield Probe("in ten minutes", "", protocol, "ask", reply=refused)
    for_a_second = faults.refuse("rate_limit", retry_after=1)
    yield Probe("in a second", "", protocol, "ask", script=(for_a_second,))
    yield Probe("a blip", "", protocol, "ask", script=(faults.refuse("overloaded"),))
    down = faults.refuse("overloaded")
    yield Probe("long outage", "", protocol, "ask many", reply=down, calls=100)


def leaving(protocol: str) -> Iterator[Probe]:
    """What is left of a stream that nobody reads on?"""
    yield Probe("break", "", protocol, "leave", reply=AFTER_THE_FIRST_TEXT)
    yield Probe("cancel", "", protocol, "cancel", reply=AFTER_THE_FIRST_TEXT)
    yield Probe("tokens", "", protocol, "leave one", reply=AFTER_THE_FIRST_TEXT)
    yield Probe("all tokens", "", protocol, "read one")


def redirects(protocol: str) -> Iterator[Probe]:
    """Where does the key go?"""
    yield Probe("redirect", "", protocol, "ask")


def probes(protocol: str) -> Iterator[Probe]:
    """All of them, for one protocol."""
    for make in (wrong_answers, right_answers, failures, retries, leaving, redirects):
        yield from make(protocol)
