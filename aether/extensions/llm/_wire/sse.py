"""Server-sent events: from the bytes of a body, however they are cut, to whole events.

It must not know what an event's data means. The grammar is the WHATWG's ("Parsing an event
stream"), without `id` and `retry`, which only serve to reconnect.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic_core import from_json

from aether.errors import ProtocolError
from aether.extensions.llm._wire.large_json import LARGE_BYTES, ReadDocument

__all__ = ["MAX_EVENT_BYTES", "MAX_EVENT_LINES", "Event", "SSEDecoder"]

MAX_EVENT_BYTES = 16 * 1024 * 1024
MAX_EVENT_LINES = 20_000

_END_MARK = b"data: [DONE]"
_BOM = b"\xef\xbb\xbf"
_LINE_FEED, _RETURN = b"\n\r"  # bytes are found faster as numbers

Event = tuple[bytes, str]
"""The data of one event, its lines joined by a line feed, and its name. The data is valid UTF-8,
unless it is over `LARGE_BYTES`, and to be read in turns.
"""


class SSEDecoder:
    """Decodes one stream; `feed` it the pieces of the body in order, then `close` it.

    The time is linear in the number of bytes, whatever the size of the pieces. An event over
    `MAX_EVENT_BYTES` or `MAX_EVENT_LINES`, or with data that is not UTF-8, is a `ProtocolError`.
    """

    __slots__ = ("_after_return", "_buffer", "_max_bytes", "_searched", "_started")

    def __init__(self, *, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()  # of lines that end in a line feed alone
        self._searched = 0  # bytes of the buffer that are known to hold no blank line
        self._after_return = False
        self._started = False

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece completes, in order."""
        if not self._started:
            piece = self._skip_mark(piece)
        if _RETURN in piece or self._after_return:
            piece = self._only_line_feeds(piece)
        buffer = self._buffer
        if not buffer and len(piece) <= self._max_bytes and piece.endswith(b"\n\n"):
            return self._events(piece[:-2])
        buffer += piece
        end = buffer.rfind(b"\n\n", self._searched)
        if end < 0:
            self._searched = max(0, len(buffer) - 1)
            if len(buffer) > self._max_bytes:
                raise self._too_large()
            return []
        if end > LARGE_BYTES:
            with memoryview(buffer) as view:  # one copy, and not two
                complete = bytes(view[:end])
        else:
            complete = bytes(buffer[:end])
        del buffer[: end + 2]
        self._searched = max(0, len(buffer) - 1)
        return self._events(complete)

    def rest(self) -> list[Event]:
        """The body has ended, and not broken off: what may be its last event, if only its blank
        line lacks. `flush` takes it.
        """
        rest = bytes(self._buffer).strip()
        return self._events(rest) if rest.endswith((b"}", b"]")) else []

    def flush(self, rest: list[Event]) -> list[Event]:
        """The rest is an event where it ends as JSON, or an end mark, does; one cut short stays
        unread.
        """
        # A brace may end an inner object.
        if not rest or not all(_is_whole(data) for data, _ in rest):
            return []
        self._buffer.clear()
        return rest

    def close(self) -> bool:
        """The body has ended. Whether it ended between two events: one cut short is no event.

        A comment is none, nor is the end mark that several protocols share.
        """
        lines = self._buffer.split(b"\n", MAX_EVENT_LINES)
        return len(lines) <= MAX_EVENT_LINES and all(
            not line or line.startswith(b":") or (line[6:] and _END_MARK.startswith(line))
            for line in lines
        )

    def _events(self, blocks: bytes) -> list[Event]:
        if len(blocks) <= self._max_bytes:
            if blocks.startswith(b"data: "):
                return self._unnamed(blocks)
            if blocks.startswith(b"event: "):
                return self._named(blocks)
        return list(self._parse(blocks))

    def _unnamed(self, blocks: bytes) -> list[Event]:
        """Nearly all are a line of data alone."""
        events: list[Event] = []
        is_ascii = blocks.isascii()
        for data in blocks[6:].split(b"\n\ndata: "):
            whole = _joined(data) if _LINE_FEED in data else data
            if whole is None:
                events += self._parse(b"data: " + data)
            else:
                if not is_ascii:
                    _check_utf8(whole)
                events.append((whole, ""))
        return events

    def _named(self, blocks: bytes) -> list[Event]:
        """Nearly all are a name and a line of data."""
        events: list[Event] = []
        is_ascii = blocks.isascii()
        for block in blocks[7:].split(b"\n\nevent: "):
            name, mark, data = block.partition(b"\ndata: ")
            whole = _joined(data) if _LINE_FEED in data else data
            if not mark or whole is None or _LINE_FEED in name:
                events += self._parse(b"event: " + block)
            else:
                if not is_ascii:
                    _check_utf8(whole)
                events.append((whole, name.decode("utf-8", "replace")))
        return events

    def _parse(self, blocks: bytes) -> Iterator[Event]:
        for block in blocks.split(b"\n\n"):
            if len(block) > self._max_bytes:
                raise self._too_large()
            event = _read_lines(block) if block else None
            if event is not None:
                yield event

    def _only_line_feeds(self, piece: bytes) -> bytes:
        if not piece:
            return piece
        if self._after_return:
            piece = piece.removeprefix(b"\n")  # its carriage return counted as the line's end
        self._after_return = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _skip_mark(self, piece: bytes) -> bytes:
        piece = bytes(self._buffer) + piece
        self._buffer.clear()
        self._searched = 0
        if len(piece) < len(_BOM) and _BOM.startswith(piece):
            self._buffer += piece
            return b""
        self._started = True
        return piece.removeprefix(_BOM)

    def _too_large(self) -> ProtocolError:
        return ProtocolError(f"An event of the stream is larger than {self._max_bytes} bytes.")


def _joined(data: bytes) -> bytes | None:
    """The data of an event in several lines of data; `None` if there is another among them. It may
    be large: its lines are copied once.
    """
    lines = data.split(b"\ndata: ", MAX_EVENT_LINES)
    if len(lines) > MAX_EVENT_LINES:
        raise _too_many_lines()
    if any(_LINE_FEED in line for line in lines):
        return None
    return b"\n".join(lines)


def _too_many_lines() -> ProtocolError:
    return ProtocolError(f"An event of the stream has more than {MAX_EVENT_LINES} lines.")


def _read_lines(block: bytes) -> Event | None:
    name = b""
    lines = []
    written = block.split(b"\n", MAX_EVENT_LINES)
    if len(written) > MAX_EVENT_LINES:
        raise _too_many_lines()
    for line in written:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
    if not lines:
        return _bare_error(block.strip())
    data = b"\n".join(lines)
    _check_utf8(data)
    return data, name.decode("utf-8", "replace")


def _bare_error(block: bytes) -> Event | None:
    """An error in the middle of a stream that is no event: Google's is bare JSON, that of llama.cpp
    until 2025-09 is JSON in a field of its own.
    """
    named = block.startswith(b"error:")
    data = block.removeprefix(b"error:").strip()
    if data[:1] + data[-1:] not in (b"{}", b"[]") or not (named or b'"error"' in data):
        return None
    return data, "error" if named else ""


def _is_whole(data: bytes) -> bool:
    if data == _END_MARK[6:] or type(data) is ReadDocument:
        return True
    try:
        from_json(data)
    except ValueError:
        return False
    return True


def _check_utf8(data: bytes) -> None:
    if len(data) > LARGE_BYTES:  # what reads it in turns checks each piece
        return
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("An event of the stream is not valid UTF-8.") from error
