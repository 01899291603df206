"""The line to a server, and how long its silence is borne.

It must not know what is sent, nor what becomes of an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import select
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, HttpResponseParser, RawResponseMessage

__all__ = ["LONGEST_HEADER", "Line", "Patience", "at_least"]

LONGEST_HEADER = 32 * 1024
_READ_AHEAD = 256 * 1024
"""So much of a body may be there unread before reading pauses: aiohttp's own limit."""
_SWITCHING_PROTOCOLS = 101
_CLOSED = (RuntimeError, AttributeError)
"""What transports raise that are paused or resumed when they have been closed, the latter asyncio's
with TLS."""

_parser = functools.partial(
    HttpResponseParser,
    limit=_READ_AHEAD,
    payload_exception=aiohttp.ClientPayloadError,
    read_until_eof=True,
    auto_decompress=False,
    max_line_size=LONGEST_HEADER,
    max_field_size=LONGEST_HEADER,
)


class Line(asyncio.Protocol):
    """Stands between a connection and aiohttp's protocol for it, as long as the connection does.

    It knows of what comes before aiohttp has made sense of it, and of what the loop has not read.
    An answer that it expects itself goes straight to aiohttp's parser, which takes the line for
    its protocol. All else goes to aiohttp's.
    """

    def __init__(
        self,
        server: Hashable,
        connection: Connection,
        protocol: ResponseHandler,
        transport: asyncio.Transport,
        lines: set[Line],
    ) -> None:
        lines.add(self)
        self._lines = lines
        """Those that are open, itself among them."""
        self.server = server
        """Whither it leads, and by which way: equal for lines that may stand for one another."""
        self.connection = connection
        """What aiohttp has handed out for this use of it."""
        self.protocol = protocol
        self.heard_at = -math.inf
        """When anything came from the peer, by the clock of the loop."""
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._asked = _poll(transport.get_extra_info("socket"))
        self._parser: HttpResponseParser | None = None
        self._head: asyncio.Future[tuple[RawResponseMessage, aiohttp.StreamReader]] | None = None
        self._content: aiohttp.StreamReader | None = None
        self._may_stay = False
        self._reading_paused = False
        self._was_paused = False

    @property
    def connected(self) -> bool:
        """Whether it is open, to a reader of a body."""
        return self.protocol.connected

    def may_be_kept(self) -> bool:
        """Whether another request may follow, now that the answer has come to its end."""
        return self._may_stay and not self._transport.is_closing()

    def is_quiet(self) -> bool:
        """Whether it is open, and the peer has neither closed it nor said what nobody asked for.

        Nothing is read away.
        """
        return not (self._transport.is_closing() or self.protocol.should_close or self._asked())

    def ask(
        self, request: bytes
    ) -> asyncio.Future[tuple[RawResponseMessage, aiohttp.StreamReader]]:
        """Write a request. The head of its answer, without what only informs (103 and the like),
        and the body; until `end`.
        """
        # aiohttp's type is its own protocol; of that its bodies use what is here, and no more.
        self._parser = _parser(self, self._loop)  # type: ignore[arg-type]
        self._was_paused = False
        self._head = head = self._loop.create_future()
        self._transport.write(request)
        return head

    def watch(self, content: aiohttp.StreamReader) -> None:
        """Have a lost connection end a body of aiohttp's protocol in any case, until `end`.

        aiohttp closes the connection when the chunked coding is broken in mid-body, and tells the
        protocol but not the body, whose reader would wait for ever.
        """
        if not content.is_eof():
            self._content = content

    def end(self) -> None:
        """What comes from now on is no part of an answer."""
        self._parser = self._head = self._content = None

    def abort(self) -> None:
        """Close the connection now."""
        # Closing alone would wait until all is sent that was written; and with TLS for the peer's
        # goodbye, for up to 30 seconds (asyncio's `ssl_shutdown_timeout`).
        self._transport.abort()

    def close(self) -> None:
        """Close the connection now, and tell aiohttp that it is not used any more."""
        self.end()
        self.abort()
        self.connection.close()

    def set_exception(self, exc: BaseException, /) -> None:
        """Tell it to who waits for the answer to begin."""
        if self._head is not None and not self._head.done():
            self._head.set_exception(exc)

    def _break(self, error: BaseException) -> None:
        """Tell it to who reads the body."""
        content = self._content
        if content is not None and not content.is_eof() and content.exception() is None:
            content.set_exception(error)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        if self._parser is None:
            self.protocol.data_received(data)
        else:
            self._parse(self._parser, data)
            if self._was_paused and not self._reading_paused and self._parser is not None:
                # A pause at the end of a chunk stops the parser at the next one, also when reading
                # has gone on meanwhile; nobody would ask it for the rest.
                self._parse(self._parser, b"")

    def _parse(self, parser: HttpResponseParser, data: bytes) -> None:
        try:
            messages, upgraded, _ = parser.feed_data(data)
        except Exception:  # noqa: BLE001 - whatever it is, it was not HTTP
            self._transport.close()
            self.set_exception(HttpProcessingError())
            self._break(HttpProcessingError())
            return
        head = self._head
        for message, content in messages:
            if head is None or head.done():  # nobody asked for it, or waits for it
                self._transport.abort()
                return
            switches = message.code == _SWITCHING_PROTOCOLS
            if 100 <= message.code < 200 and not switches:
                continue
            self._may_stay = not (message.should_close or switches or upgraded)
            self._content = content
            head.set_result((message, content))

    def pause_reading(self) -> None:
        """Called by a body of which there is enough to read."""
        if self._parser is not None:
            self._reading_paused = self._was_paused = True
            self._parser.pause_reading()
            with contextlib.suppress(*_CLOSED):
                self._transport.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called by a body of which enough was read, or that has come to its end."""
        if not self._reading_paused:
            return
        self._reading_paused = False
        if resume_parser and self._parser is not None:
            self._parse(self._parser, b"")  # what it was given before the pause
        if not self._reading_paused:
            with contextlib.suppress(*_CLOSED):
                self._transport.resume_reading()

    def eof_received(self) -> None:
        self.protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lines.discard(self)
        lost = aiohttp.ClientPayloadError("The connection was lost.")
        parser, self._parser = self._parser, None  # so that nothing pauses it any more
        if parser is not None and self._content is not None and self.protocol.connected:
            self._parse(parser, b"")  # what it holds since a pause: in one, TLS may come to its end
            if exc is None:
                with contextlib.suppress(Exception):  # more was to come
                    parser.feed_eof()  # which ends a body that has no other end
        if parser is not None or exc is not None or not self.protocol.connected:
            self._break(lost)  # it was cut, or reset, or closed on this side
        self.protocol.connection_lost(exc)
        error = self.protocol.exception() or lost
        self.set_exception(error)
        self._break(error)
        self.end()

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()


def _poll(sock: Any) -> Callable[[], object]:
    """Asks whether there is something to read, or whether there will never be."""
    number = -1 if sock is None else sock.fileno()
    if number < 0:
        return lambda: True
    if not hasattr(select, "poll"):  # on Windows, where no number is too large for `select`
        return lambda: bool(select.select([number], [], [], 0)[0])
    asked = select.poll()
    asked.register(number, select.POLLIN)
    return functools.partial(asked.poll, 0)


_REST = 0.01
"""Seconds between two looks at all that is waited for: a limit may be met so much late."""


class _Waiting(Protocol):
    def set_exception(self, exc: BaseException, /) -> None: ...


class Patience:
    """How long servers may be silent while something is waited for, for one event loop.

    One timer does for all, and is set again when it has rung. aiohttp would set one at each piece.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[_Waiting, tuple[float, float, Line]] = {}
        """Until when, unless something comes; how long from then on; and where it would come."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def begin(self, waiting: _Waiting, line: Line, seconds: float | None) -> None:
        """Have it fail once the line was silent for so many seconds, unless it ends before."""
        if seconds is None:
            return
        seconds = at_least(seconds)
        until = self._loop.time() + seconds
        self._waiting[waiting] = until, seconds, line
        if until < self._rings_at:
            self._set(until)

    def end(self, waiting: _Waiting) -> None:
        self._waiting.pop(waiting, None)

    def close(self) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._ring, when)
        self._rings_at = when

    def _ring(self, when: float) -> None:
        now = max(when, self._loop.time())  # it may ring a tick of the clock before its time
        self._timer = None
        self._rings_at = next_time = math.inf
        for waiting, (until, seconds, line) in list(self._waiting.items()):
            latest = max(until, line.heard_at + seconds)
            if latest > now:
                next_time = min(next_time, latest)
            else:
                del self._waiting[waiting]
                waiting.set_exception(aiohttp.SocketTimeoutError())
        if self._waiting:
            self._set(max(next_time, now + _REST))


def at_least(seconds: float) -> float:
    """A limit that has passed is not one of 0, which is none to aiohttp."""
    return max(seconds, 0.001)
