"""The line to a server, and how long its silence is borne.

It must not know what is sent, nor what becomes of an answer.
"""

from __future__ import annotations

import asyncio
import math
import select
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

__all__ = ["Line", "Patience", "abort", "abort_unless_kept", "at_least"]


class Line(asyncio.Protocol):
    """Stands between a connection and aiohttp's protocol for it, as long as the connection does.

    It knows of what comes before aiohttp has made sense of it, and of what the loop has not read.
    """

    def __init__(self, protocol: ResponseHandler, transport: asyncio.Transport) -> None:
        self.heard_at = -math.inf
        """When anything came from the peer, by the clock of the loop."""
        self._loop = asyncio.get_running_loop()
        self.protocol = protocol
        self._asked = _poll(transport.get_extra_info("socket"))

    @staticmethod
    def of(connection: Connection) -> tuple[Line, ResponseHandler]:
        """The line of a connection that was handed out, and aiohttp's protocol behind it."""
        transport = connection.transport
        line = None if transport is None else transport.get_protocol()
        if not isinstance(line, Line):
            raise aiohttp.ClientConnectionError("The connection was lost.")
        return line, line.protocol

    def has_spoken(self) -> bool:
        """Whether the peer has closed, or has said what nobody asked for: both end a connection.

        Nothing is read away.
        """
        return self._asked()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        self.protocol.data_received(data)

    def eof_received(self) -> None:
        self.protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()


def _poll(sock: Any) -> Callable[[], bool]:
    """Asks whether there is something to read, or whether there will never be."""
    number = -1 if sock is None else sock.fileno()
    if number < 0:
        return lambda: True
    if not hasattr(select, "poll"):  # on Windows, where no number is too large for `select`
        return lambda: bool(select.select([number], [], [], 0)[0])
    asked = select.poll()
    asked.register(number, select.POLLIN)
    return lambda: bool(asked.poll(0))


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

    def begin(self, waiting: _Waiting, line: Line, seconds: float | None) -> None:
        """Have it fail once the line was silent for so many seconds, unless it ends before."""
        if seconds is None:
            return
        seconds = at_least(seconds)
        until = self._loop.time() + seconds
        self._waiting[waiting] = until, seconds, line
        if self._timer is None or until < self._timer.when():
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

    def _ring(self, when: float) -> None:
        now = max(when, self._loop.time())  # it may ring a tick of the clock before its time
        self._timer = None
        next_time = math.inf
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


def abort(connection: Connection) -> None:
    """Close the connection now."""
    # Closing alone would wait until all is sent that was written; and with TLS for the peer's
    # goodbye, for up to 30 seconds (asyncio's `ssl_shutdown_timeout`).
    if connection.transport is not None:
        connection.transport.abort()


def abort_unless_kept(connection: Connection, *, force_close: bool = False) -> None:
    """Close the connection now if it is not to be kept, when its answer has come to its end."""
    protocol = connection.protocol
    if protocol is not None and (force_close or protocol.should_close):
        abort(connection)
