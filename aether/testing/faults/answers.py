"""Answers, byte for byte: what a server writes on a connection, how it is cut up, and how it ends.

They must not know a protocol above HTTP, nor what a socket is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import islice
from typing import Literal, NamedTuple, get_args

from aether.errors import InputError

__all__ = ["ENDINGS", "Answer", "Ending", "Framing", "Written"]

Ending = Literal["whole", "dropped", "broken", "reset", "hanging"]
"""How it goes on after the last piece.

`whole`: the body's proper end; the connection stays. `dropped`: the same, and then the connection
is closed without a word. `broken`: closed by a FIN before the body's end. `reset`: the same by a
RST. `hanging`: nothing more comes, until the peer has left.
"""
ENDINGS: tuple[Ending, ...] = get_args(Ending)

Framing = Literal["chunked", "length", "close"]
"""How the end of a body is told: by a last chunk, by its length, or by the connection's end."""

_TELLS_THE_END: Mapping[Framing, frozenset[Ending]] = {
    "chunked": frozenset({"whole", "dropped"}),
    "length": frozenset(ENDINGS),
    "close": frozenset({"whole", "dropped", "broken"}),
}
"""After which endings a reader of the whole body knows that it is whole."""

Headers = Mapping[str, str] | Sequence[tuple[str, str]]


class Written(NamedTuple):
    """Bytes to write at once, and how many pieces of the body are out when they are."""

    data: bytes
    pieces: int = 0
    said: int = 0
    """The same, and one more if only the line ends lack that close it: some readers need none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `pieces` of the body are written one by one, each with a turn for the reader.

    `pieces` may be endless, but for the framing `length`. `None`: not even a head is written.
    A status of 1xx, 204 or 304 has no body in HTTP, and none is written.
    """

    pieces: Iterable[bytes] | None
    status: int = 200
    headers: Headers = ()
    """A sequence of pairs where one comes twice."""
    ending: Ending = "whole"
    framing: Framing = "chunked"
    declared_length: int | None = None
    """What `content-length` says in place of the whole body's, where the framing is `length`."""
    first_pieces: int | None = None
    """Only so many pieces are written."""
    model_pieces: int | None = None
    """Only so many pieces are the model's; the rest is written, and billed to nobody."""
    body_bytes: int | None = None
    """Only so many bytes of the body are written."""
    wire_bytes: int | None = None
    """Only so many bytes are written in all, the head included."""
    write_size: int | None = None
    """So many bytes are written at once, at most."""
    delay: float = 0.0
    """Seconds until the first byte."""
    pause: float = 0.0
    """Seconds between two writes."""
    raw: bytes | None = None
    """These bytes, in place of a head and a body."""

    def __post_init__(self) -> None:
        if self.ending not in ENDINGS:
            raise InputError(f"An answer ends as {_named(ENDINGS)}, not {self.ending!r}.")
        if self.framing not in _TELLS_THE_END:
            raise InputError(f"A framing is {_named(_TELLS_THE_END)}, not {self.framing!r}.")
        if self.write_size is not None and self.write_size < 1:
            raise InputError(f"At least 1 byte is written at once, not {self.write_size}.")

    def changed(self, **fields: object) -> Answer:
        """A copy with these fields in place of its own."""
        return replace(self, **fields)  # type: ignore[arg-type]  # its callers name fields

    @property
    def is_cut(self) -> bool:
        """Whether less is written than is said or promised, the end of the body included."""
        nothing = self.pieces is None and self.raw is None
        if nothing or self.ending not in _TELLS_THE_END[self.framing]:
            return True
        limits = (self.first_pieces, self.body_bytes, self.wire_bytes, self.declared_length)
        if limits == (None, None, None, None):
            return False
        if not isinstance(self.pieces, Sequence):  # it may be endless
            return True
        unlimited = self.changed(first_pieces=None, body_bytes=None, wire_bytes=None)
        promised = _size(unlimited.writes())
        if self.declared_length is not None:
            promised += self.declared_length - sum(map(len, self.pieces))
        return _size(self.writes()) < promised

    def writes(self) -> Iterator[Written]:
        """What is written, in order, before the ending."""
        whole = self._framed()
        if self.wire_bytes is not None:
            whole = _cut(whole, self.wire_bytes)
        return whole if self.write_size is None else _split(whole, self.write_size)

    def _framed(self) -> Iterator[Written]:
        if self.raw is not None:
            yield Written(self.raw)
            return
        if self.pieces is None:
            return
        if self.status < 200 or self.status in (204, 304):
            yield Written(self._head(()))
            return
        pieces, length = self.pieces, self.declared_length
        if self.framing == "length" and length is None:
            pieces = list(pieces)
            length = sum(map(len, pieces))
        told = {
            "chunked": "transfer-encoding: chunked",
            "length": f"content-length: {length}",
            "close": "connection: close",
        }
        yield Written(self._head((told[self.framing],)))
        out = said = 0
        for data, out, said in self._body(pieces):
            if data:
                framed = b"%x\r\n%b\r\n" % (len(data), data) if self.framing == "chunked" else data
                yield Written(framed, out, said)
        if self.framing == "chunked" and self.ending in _TELLS_THE_END["chunked"]:
            yield Written(b"0\r\n\r\n", out, said)

    def _body(self, pieces: Iterable[bytes]) -> Iterator[Written]:
        left = self.body_bytes
        for number, piece in enumerate(islice(pieces, self.first_pieces), 1):
            if left is None:
                yield Written(piece, number, number)
            elif left >= len(piece):
                left -= len(piece)
                yield Written(piece, number, number)
            else:
                said = number if _only_ends(piece[left:]) else number - 1
                yield Written(piece[:left], number - 1, said)
                return

    def _head(self, told: Iterable[str]) -> bytes:
        pairs = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        try:
            reason = HTTPStatus(self.status).phrase
        except ValueError:
            reason = "Status"
        lines = [f"HTTP/1.1 {self.status} {reason}", *told]
        lines += [f"{name}: {value}" for name, value in pairs]
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def _named(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _size(writes: Iterable[Written]) -> int:
    return sum(len(written.data) for written in writes)


def _only_ends(data: bytes) -> bool:
    """Whether nothing but the ends of lines is in it."""
    return not data.strip(b"\r\n")


def _cut(writes: Iterable[Written], size: int) -> Iterator[Written]:
    """The first `size` bytes."""
    out = before = 0
    for data, pieces, said in writes:
        if size < len(data):
            if size:
                yield Written(data[:size], out, said if _only_ends(data[size:]) else before)
            return
        size -= len(data)
        out, before = pieces, said
        yield Written(data, pieces, said)


def _split(writes: Iterable[Written], size: int) -> Iterator[Written]:
    """The same bytes, at most `size` at once."""
    out = before = 0
    for data, pieces, said in writes:
        for start in range(0, len(data), size):
            end = start + size
            yield Written(
                data[start:end],
                pieces if end >= len(data) else out,
                said if _only_ends(data[end:]) else before,
            )
        out, before = pieces, said
