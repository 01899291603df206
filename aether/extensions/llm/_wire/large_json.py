"""Large JSON, read piece by piece, so that the rest of the loop has its turns meanwhile.

It must not know what a document means. A piece is read by the parser that reads small documents
whole: values, and what is refused, are the same. This module finds where to cut.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator, Iterator
from typing import Any

from pydantic_core import from_json

from aether.errors import ProtocolError

__all__ = ["LARGE_BYTES", "MAX_VALUES", "ReadDocument", "read_in_turns"]

LARGE_BYTES = 256 * 1024
"""A document up to here is read at once: that takes some milliseconds, whatever is in it."""
MAX_VALUES = 4_000_000
"""So many commas and opening brackets a large document may have, those in its texts included. There
are 3.5 million in an answer of 16,384 tokens with twenty likely others for each, which is one of
the longest there are. Of more than a million values, collecting garbage, or throwing them away,
takes a step of the loop that is felt."""

_PIECE = 32 * 1024
_COUNTED_PIECE = 1024 * 1024
_STRING_PIECE = 128 * 1024
_MAX_DEPTH = 200  # the parser's own
_HEAD = 64 * 1024
"""So much of a document is kept, for errors that show its beginning."""

_TOKEN = re.compile(
    rb"""
    ([\[{]) | ([\]}]) | (,)
    | "[^"\\]*+ (?: \\. [^"\\]*+ )* (?: " | (\\?\Z) )  # a string, or the beginning of one
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENS, _CLOSES, _COMMA, _CUT = 1, 2, 3, 4
# An escape, or a pair of them that is one character, is never cut in two.
_WHOLE_CHARACTERS = re.compile(
    rb"""
    (?: [^"\\]+
      | \\u[dD][89abAB]..\\u....
      | \\u(?![dD][89abAB])....
      | \\[^u]
    )*
    """,
    re.VERBOSE | re.DOTALL,
)
_BLANK = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(rb"[^ \t\r\n,\]}]*")
_CONTINUES = 0b1000_0000  # the upper two bits of a byte inside a character


class ReadDocument(bytes):
    """The beginning of a document that was read already: `value` is what it holds, all of it."""

    value: Any = None


async def read_in_turns(data: bytes) -> bytes:
    """A large document, as its beginning and its value: a `ReadDocument`.

    One that is no JSON comes back as its beginning and a NUL, and so as one that is none. One with
    more than `MAX_VALUES` is a `ProtocolError`, before any of it is read. Cancelling it ends it at
    the next piece.
    """
    reading = _Reading(data)
    try:
        for _ in reading.steps():
            await asyncio.sleep(0)
    except ValueError:
        return data[:_HEAD] + b"\0"
    read = ReadDocument(data[:_HEAD])
    read.value = reading.value
    return read


class _Reading:
    """One document on its way to its value. Each step is of bounded work."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.value: Any = None

    def steps(self) -> Iterator[None]:
        yield from self._count()
        at = yield from self._skip_blanks(0)
        self.value, at = yield from self._read(at, 0)
        at = yield from self._skip_blanks(at)
        if at < len(self._data):
            raise ValueError("something follows the document")

    def _read(self, at: int, depth: int) -> Generator[None, None, tuple[Any, int]]:
        """The value that begins at `at`, and where it ends."""
        start = self._data[at : at + 1]
        if start in (b"[", b"{"):
            return (yield from self._read_container(at, depth, start == b"{"))
        if start == b'"':
            return (yield from self._read_string(at))
        scalar = _SCALAR.match(self._data, at, at + _PIECE)
        end = at if scalar is None else scalar.end()
        if end == at + _PIECE:
            raise ValueError("no number is so long")
        return from_json(self._data[at:end]), end

    def _read_container(
        self, at: int, depth: int, is_object: bool
    ) -> Generator[None, None, tuple[Any, int]]:
        """An array or an object: runs of its small members are read together, large ones alone."""
        if depth >= _MAX_DEPTH:
            raise ValueError("it is nested too deep")
        members: Any = {} if is_object else []
        add = members.update if is_object else members.extend
        closing = b"}" if is_object else b"]"
        outside = b"[" * depth, b"]" * depth  # so that depth is counted as in the whole
        edges = (b"{", b"}") if is_object else (b"[", b"]")
        data, at = self._data, at + 1
        first = True
        while True:
            yield
            end, closed = self._scan(at)
            if closed and data[end : end + 1] != closing:
                raise ValueError("a bracket closes what it did not open")
            if end >= 0:
                run = from_json(
                    b"".join((outside[0], edges[0], data[at:end], edges[1], outside[1]))
                )
                for _ in range(depth):
                    run = run[0]
                if not run and not (first and closed):
                    raise ValueError("a member is missing")
                add(run)
                at = end + 1
                if closed:
                    return members, at
            else:
                key: Any = None
                at = yield from self._skip_blanks(at)
                if first and data[at : at + 1] == closing:
                    return members, at + 1
                if is_object:
                    key, at = yield from self._read_key(at)
                value, at = yield from self._read(at, depth + 1)
                if is_object:
                    members[key] = value
                else:
                    members.append(value)
                at = yield from self._skip_blanks(at)
                following = data[at : at + 1]
                at += 1
                if following == closing:
                    return members, at
                if following != b",":
                    raise ValueError("a comma or a bracket is missing")
            first = False

    def _scan(self, at: int) -> tuple[int, bool]:
        """How far the members from here go that can be read together: the place behind the last of
        them, -1 if the first is too large; and whether their container ends there.
        """
        depth = 0
        end = -1
        for token in _TOKEN.finditer(self._data, at, at + _PIECE):
            kind = token.lastindex
            if kind is None:
                continue
            if kind == _COMMA:
                if not depth:
                    end = token.start()
            elif kind == _OPENS:
                depth += 1
            elif kind == _CLOSES:
                if not depth:
                    return token.start(), True
                depth -= 1
            else:
                break
        return end, False

    def _read_key(self, at: int) -> Generator[None, None, tuple[str, int]]:
        if self._data[at : at + 1] != b'"':
            raise ValueError("a name is missing")
        key, at = yield from self._read_string(at)
        at = yield from self._skip_blanks(at)
        if self._data[at : at + 1] != b":":
            raise ValueError("a colon is missing")
        at = yield from self._skip_blanks(at + 1)
        return key, at

    def _read_string(self, at: int) -> Generator[None, None, tuple[str, int]]:
        data, at = self._data, at + 1
        parts: list[str] = []
        while True:
            yield
            match = _WHOLE_CHARACTERS.match(data, at, at + _STRING_PIECE)
            end = at if match is None else match.end()
            ended = data[end : end + 1] == b'"'
            while not ended and end > at and data[end : end + 1] and _is_inside(data[end]):
                end -= 1
            if end == at and not ended:
                raise ValueError("a string is not closed, or not well formed")
            parts.append(from_json(b'"%b"' % data[at:end]))
            if ended:
                return "".join(parts), end + 1
            at = end

    def _skip_blanks(self, at: int) -> Generator[None, None, int]:
        while True:
            match = _BLANK.match(self._data, at, at + _STRING_PIECE)
            end = at if match is None else match.end()
            if end < at + _STRING_PIECE:
                return end
            at = end
            yield

    def _count(self) -> Iterator[None]:
        found = 0
        for start in range(0, len(self._data), _COUNTED_PIECE):
            end = start + _COUNTED_PIECE
            found += sum(self._data.count(sign, start, end) for sign in (b",", b"[", b"{"))
            if found > MAX_VALUES:
                raise ProtocolError(
                    f"The server's JSON has more than {MAX_VALUES} values.", kind="size"
                )
            yield


def _is_inside(byte: int) -> bool:
    return byte & 0b1100_0000 == _CONTINUES
