"""The body of a streamed answer: its events, its end, and when to give it up.

It must not know what the events mean, nor how the request was sent.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import AsyncGenerator, Callable, Iterator

from aether.errors import ProtocolError, ProviderError, RequestTimeoutError
from aether.extensions.llm._wire.large_json import LARGE_BYTES, read_in_turns
from aether.extensions.llm._wire.sse import Event, SSEDecoder
from aether.http.bodies import read_error_body
from aether.http.contracts import HTTPStream

__all__ = ["DRAIN_SECONDS", "MAX_DOCUMENT_BYTES", "STALL_SECONDS", "EventStream"]

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
STALL_SECONDS = 600.0
"""For so long a stream may send nothing but comments; a longer read limit stands above it."""
DRAIN_SECONDS = 0.1
"""How long the end of a body is waited for when its protocol has ended already."""

_BOM = b"\xef\xbb\xbf"
_SLICE = 16 * 1024
"""So many bytes are read at once; then the rest of the loop has its turn. Tiny events in them take
some milliseconds."""
_DOCUMENT_STARTS = (b"{", b"[", b"<")
_LINE_STARTS = (b":", b"data", b"event", b"id", b"retry")
_HEAD = 4096
"""So much of a body without an event is kept, for the error that tells of it."""


class EventStream:
    """Read the events with `batches`, once.

    A server that takes no notice of the wish for a stream sends a document, whatever its content
    type says: then `batches` yields nothing, and `document` has it; of one that is neither JSON nor
    HTML, its beginning.
    """

    def __init__(
        self, answer: HTTPStream, *, read_seconds: float | None, clock: Callable[[], float]
    ) -> None:
        self.document: bytes | None = None
        self.ended_between_events = False
        """Whether the body ended, or broke off, where no event was under way."""
        self._stall_seconds = math.inf if read_seconds is None else max(read_seconds, STALL_SECONDS)
        self._clock = clock
        self._pieces = answer.chunks()

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        """The events, in lists of those that came together; a large one has been read by then (see
        `large_json`). What the transport raises passes.
        """
        decoder = SSEDecoder()
        clock, latest = self._clock, self._clock()
        started = any_event = False
        head = b""
        try:
            async for piece in self._pieces:
                if not any_event and len(head) < _HEAD:
                    head += piece[:_HEAD]
                if not started:
                    start = piece.removeprefix(_BOM).lstrip()
                    if start.startswith(_DOCUMENT_STARTS):
                        self.document = await self._read_rest(start)
                        return
                    started = bool(start)
                for part in (piece,) if len(piece) <= _SLICE else _sliced(piece):
                    events = decoder.feed(part)
                    if events:
                        any_event = True
                        data, name = events[0]  # the others have room in this part
                        if len(data) > LARGE_BYTES:
                            events[0] = await read_in_turns(data), name
                        yield events
                        latest = clock()
                    elif clock() - latest > self._stall_seconds:
                        raise RequestTimeoutError(
                            f"The stream sent no event for {self._stall_seconds:g} s.", kind="idle"
                        )
                    if len(piece) > _SLICE:
                        await asyncio.sleep(0)
            rest = [
                (await read_in_turns(data) if len(data) > LARGE_BYTES else data, name)
                for data, name in decoder.rest()
            ]
            events = decoder.flush(rest)
            if events:
                yield events
            elif not any_event and not _may_be_events(head):
                self.document = head.strip()
        finally:
            self.ended_between_events = decoder.close()

    async def read_error_body(self) -> bytes:
        """The beginning of a body that explains a refusal: bounded in bytes and in seconds."""
        return await read_error_body(self._pieces)

    async def drain(self) -> None:
        """Read what follows the protocol's end mark, so that the connection can be used again."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in self._pieces:
                    pass
        except (TimeoutError, ProviderError):
            return  # the answer is whole; the connection is closed instead of kept

    async def aclose(self) -> None:
        """Stop reading."""
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()

    async def _read_rest(self, start: bytes) -> bytes:
        body = io.BytesIO()  # which gives its bytes away without copying them
        body.write(start)
        async for piece in self._pieces:
            body.write(piece)
            if body.tell() > MAX_DOCUMENT_BYTES:
                raise ProtocolError(f"The answer is larger than {MAX_DOCUMENT_BYTES} bytes.")
            if len(piece) > _SLICE:  # many may be made of one that was compressed
                await asyncio.sleep(0)
        return body.getvalue()


def _may_be_events(head: bytes) -> bool:
    """Whether a body begins as a stream does, or is too short to tell."""
    start = head.removeprefix(_BOM).lstrip()
    return any(start.startswith(line) or line.startswith(start) for line in _LINE_STARTS)


def _sliced(piece: bytes) -> Iterator[bytes]:
    for start in range(0, len(piece), _SLICE):
        yield piece[start : start + _SLICE]
