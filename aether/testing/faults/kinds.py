"""The faults: each changes an answer as it would have been into one that goes wrong.

They must not know a socket, nor a protocol beyond what a wire says of it.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from typing import Literal

from aether.errors import InputError
from aether.testing.faults.answers import Answer, Ending
from aether.testing.wires.contracts import FAILURES, Failure, Reply, Wire, WireRequest

__all__ = [
    "Fault",
    "Situation",
    "bomb",
    "close",
    "cut",
    "delay",
    "document",
    "drip",
    "drop",
    "edit",
    "error_event",
    "hang",
    "headers",
    "keep_alive",
    "raw",
    "redirect",
    "refuse",
    "reset",
    "split",
    "status",
    "unsettled",
    "untold",
    "wrong_length",
]

Coding = Literal["gzip", "deflate"]


@dataclass(frozen=True, slots=True)
class Situation:
    """What a fault may ask: who asked what, and in which protocol."""

    wire: Wire
    request: WireRequest
    reply: Reply
    settled: int
    """After so many pieces of the whole answer all is said that counts: its text, its calls and
    why it ended. 1 for an answer that is no stream."""

    @property
    def streaming(self) -> bool:
        """Whether the answer is a stream of events."""
        return self.wire.wants_stream(self.request)


@dataclass(frozen=True, slots=True)
class Fault:
    """A change of an answer. Several in a row are applied in their order.

    Those that say what is answered (`refuse`, `status`, `document`...) leave alone how it is sent
    (`delay`, `cut`, `drip`...), so that a fault of each kind may stand on either side of the other.
    """

    name: str
    change: Callable[[Answer, Situation], Answer]
    billed: bool = True
    """Whether a model ran all the same."""


def refuse(
    failure: Failure, message: str = "No.", *, retry_after: str | float | None = None
) -> Fault:
    """An error status, in the words of the protocol. `failure` is one of `bad_request`,
    `authentication`, `permission`, `not_found`, `context_length`, `rate_limit`, `quota`,
    `overloaded` and `server`; `retry_after` is the header's text, or its seconds.
    """
    _check(failure)

    def change(answer: Answer, situation: Situation) -> Answer:
        error = situation.wire.error(failure, message)
        given = (*error.headers.items(), *_retry_after(retry_after))
        return answer.changed(pieces=[error.body], status=error.status, headers=given)

    return Fault(f"refuse {failure}", change, billed=False)


def status(
    code: int,
    body: bytes = b"",
    *,
    retry_after: str | float | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> Fault:
    """Any status, with any body and headers; 1xx, 204 and 304 go without a body."""

    def change(answer: Answer, _: Situation) -> Answer:
        given = (*_retry_after(retry_after), *headers)
        return answer.changed(pieces=[body], status=code, headers=given)

    return Fault(f"status {code}", change, billed=False)


def redirect(url: str, code: int = 307) -> Fault:
    """A redirect to `url`."""
    fault = status(code, headers=[("location", url)])
    return replace(fault, name=f"redirect {code}")


def document(body: bytes, content_type: str = "text/html") -> Fault:
    """A status of 200, and this body in place of an answer."""

    def change(answer: Answer, _: Situation) -> Answer:
        return answer.changed(pieces=[body], headers=(("content-type", content_type),))

    return Fault("document", change, billed=False)


def raw(data: bytes, *, ending: Ending = "broken") -> Fault:
    """These bytes in place of an answer, its head included."""

    def change(answer: Answer, _: Situation) -> Answer:
        return answer.changed(raw=data, ending=ending)

    return Fault("raw", change, billed=False)


def error_event(failure: Failure, message: str = "No.", *, after: int = 0) -> Fault:
    """An error inside an answer of status 200: in a stream an event after so many events, and then
    its end; else an error as the body. `failure` is one of those of `refuse`.
    """
    _check(failure)

    def change(answer: Answer, situation: Situation) -> Answer:
        if not situation.streaming:
            return answer.changed(pieces=[situation.wire.error_in_body(failure, message)])
        said = _first(answer, after)
        event = situation.wire.error_event(failure, message)
        return answer.changed(pieces=[*said, event], model_pieces=len(said))

    return Fault(f"error event {failure}", change)


def cut(
    *,
    texts: int | None = None,
    events: int | None = None,
    body: int | None = None,
    wire: int | None = None,
    ending: Ending = "broken",
) -> Fault:
    """Only so many pieces of the text, events, bytes of the body, or bytes in all; then `ending`.

    `texts`, at least 1, counts alike in each protocol: a text of five characters or more comes in
    three pieces, and all that precedes the last that is wanted comes too. If the reply has fewer,
    it is an `InputError` when the `async with` of the server ends. Of an answer that is no stream
    nothing comes but its head. `events` counts the protocol's own events (pieces of the body), of
    which some come before the first text: none with Gemini, four with Responses.

    With none of them all is sent but the end. `ending` is `broken` (a FIN, too early) or `reset` (a
    RST), `hanging` (silence), or `whole` or `dropped`, which say that this was all.
    """
    if texts is not None:
        if texts < 1 or events is not None:
            raise InputError("A cut comes after at least 1 of the `texts`, or after `events`.")
        rest = cut(body=body, wire=wire, ending=ending)
        return Fault(
            f"cut after {texts} texts ({ending})",
            lambda answer, situation: rest.change(answer, situation).changed(
                first_pieces=_until_text(situation, texts)
            ),
        )
    where = [
        f"{n} {what}"
        for n, what in ((events, "events"), (body, "bytes"), (wire, "bytes on the wire"))
        if n is not None
    ]
    return _sent(
        f"cut after {' and '.join(where) or 'all'} ({ending})",
        first_pieces=events,
        body_bytes=body,
        wire_bytes=wire,
        ending=ending,
    )


def unsettled(*, ending: Ending = "whole") -> Fault:
    """All but the event that says why the answer ended; the protocol's end mark is there, where it
    has one. Of an answer that is no stream nothing is left but an empty body.
    """

    def change(answer: Answer, situation: Situation) -> Answer:
        pieces = list(answer.pieces or ())
        del pieces[situation.settled - 1]
        return answer.changed(pieces=pieces, ending=ending)

    return Fault("unsettled", change)


def edit(change: Callable[[list[bytes]], Iterable[bytes]], name: str = "edit") -> Fault:
    """The events (pieces of the body), changed by a function."""

    def edited(answer: Answer, _: Situation) -> Answer:
        return answer.changed(pieces=change(list(answer.pieces or ())))

    return Fault(name, edited)


def reset(*, billed: bool = False) -> Fault:
    """The connection is reset when the request has been read."""
    return replace(cut(wire=0, ending="reset"), name="reset", billed=billed)


def close(*, billed: bool = False) -> Fault:
    """The connection is closed when the request has been read."""
    return replace(cut(wire=0, ending="broken"), name="close", billed=billed)


def hang(*, billed: bool = True) -> Fault:
    """Not a byte is answered. The model may have run."""
    return replace(cut(wire=0, ending="hanging"), name="hang", billed=billed)


def drop() -> Fault:
    """The whole answer, and then the connection is closed, though it was to be kept."""
    return _sent("drop", ending="dropped")


def delay(seconds: float) -> Fault:
    """The first byte comes so many seconds late."""
    return _sent("delay", delay=seconds)


def split(size: int) -> Fault:
    """So many bytes are written at once, at most, each with a turn for the reader."""
    return _sent(f"split {size}", write_size=size)


def drip(size: int = 1, *, seconds: float = 1.0) -> Fault:
    """So many bytes at once, and then a pause of so many seconds."""
    return _sent("drip", write_size=size, pause=seconds)


def keep_alive(
    after: int = 0, *, comment: bytes = b": keep-alive\n\n", seconds: float = 0.0
) -> Fault:
    """So many events, and then comments without end, one in so many seconds."""

    def change(answer: Answer, _: Situation) -> Answer:
        said = _first(answer, after)
        return answer.changed(pieces=_Endless(said, comment), model_pieces=len(said), pause=seconds)

    return Fault("keep alive", change)


def headers(*pairs: tuple[str, str]) -> Fault:
    """More headers in an answer that is otherwise right."""

    def change(answer: Answer, _: Situation) -> Answer:
        return answer.changed(headers=(*_pairs(answer), *pairs))

    return Fault("headers", change)


def wrong_length(by: int) -> Fault:
    """A `content-length` that is so much more, or less, than what is sent."""

    def change(answer: Answer, _: Situation) -> Answer:
        pieces = list(answer.pieces or ())
        length = sum(map(len, pieces)) + by
        ending: Ending = "broken" if by > 0 else "whole"
        return answer.changed(
            pieces=pieces, framing="length", declared_length=length, ending=ending
        )

    return Fault("wrong length", change)


def bomb(size: int = 50_000_000, *, coding: Coding = "gzip") -> Fault:
    """A small body that is `size` bytes when it is decoded, which nobody has asked for."""

    def change(answer: Answer, _: Situation) -> Answer:
        data = b" " * size
        packed = gzip.compress(data) if coding == "gzip" else zlib.compress(data)
        return answer.changed(
            pieces=[packed], headers=(*_pairs(answer), ("content-encoding", coding))
        )

    return Fault(f"bomb {coding}", change)


def untold() -> Fault:
    """The answer does not say what it used. It is billed all the same."""

    def change(answer: Answer, situation: Situation) -> Answer:
        silent = replace(situation.reply, usage=None)
        if situation.streaming:
            return answer.changed(pieces=situation.wire.stream(silent, situation.request).events)
        return answer.changed(pieces=[situation.wire.body(silent, situation.request)])

    return Fault("untold", change)


class _Endless:
    """Some pieces, and then one for ever, as often as it is asked for."""

    def __init__(self, first: Sequence[bytes], then: bytes) -> None:
        self._first = first
        self._then = then

    def __iter__(self) -> Iterator[bytes]:
        return chain(self._first, repeat(self._then))


def _until_text(situation: Situation, count: int) -> int:
    """After so many events that piece of the text is out."""
    if not situation.streaming:
        return 0
    texts = situation.wire.stream(situation.reply, situation.request).texts
    if count > len(texts):
        raise InputError(
            f"A cut was to come after {count} pieces of text, but the reply has {len(texts)}."
        )
    return texts[count - 1]


def _first(answer: Answer, count: int) -> list[bytes]:
    return list(islice(answer.pieces or (), count))


def _sent(name: str, **fields: object) -> Fault:
    """A fault of how an answer is sent, whatever it says."""
    Answer(None).changed(**fields)  # what cannot be is said here, not when it is to be written
    return Fault(name, lambda answer, _: answer.changed(**fields))


def _check(failure: str) -> None:
    if failure not in FAILURES:
        raise InputError(f"A server fails with {', '.join(FAILURES)}, not {failure!r}.")


def _pairs(answer: Answer) -> Sequence[tuple[str, str]]:
    given = answer.headers
    return list(given.items()) if isinstance(given, Mapping) else given


def _retry_after(value: str | float | None) -> tuple[tuple[str, str], ...]:
    return () if value is None else (("retry-after", str(value)),)
