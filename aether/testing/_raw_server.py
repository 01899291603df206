"""A server on 127.0.0.1 whose every byte is scripted, for tests of transports.

It must not know HTTP beyond finding the end of a request.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Self

__all__ = ["Connection", "RawServer"]

_TURNS_TO_ACCEPT = 8
"""Turns of the loop until whoever has connected is served: asyncio does not close the sockets that
it has half accepted when its server is closed."""
_LENGTH = re.compile(rb"^content-length: *(\d+)\r$", re.IGNORECASE | re.MULTILINE)


class Connection:
    """One accepted connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def peer_has_left(self) -> bool:
        """Whether the peer has closed, or reset, the connection."""
        return self._reader.at_eof() or self._reader.exception() is not None

    async def peer_stays(self, seconds: float) -> bool:
        """Wait so long. `False`, at once, when the peer has closed or reset the connection."""
        try:
            async with asyncio.timeout(seconds):
                while await self._reader.read(65536):
                    pass  # nobody sends the next request before he has his answer
        except TimeoutError:
            return True
        except ConnectionError:
            return False
        return False

    async def read_request(self) -> bytes:
        """The next request, head and body; `b""` if the peer has closed."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            return head + (await self._reader.readexactly(int(length[1])) if length else b"")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def write(self, data: bytes) -> None:
        """Send these bytes now."""
        self._writer.write(data)
        await self._writer.drain()

    async def wait_closed_by_peer(self) -> None:
        """Return when the peer has closed, or reset, the connection."""
        try:
            while await self._reader.read(65536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        sock: Any = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        """Close after what was written has been sent."""
        self._writer.close()


class RawServer:
    """`async with RawServer(script) as server:` runs `script(connection)` for each connection.

    When the script returns, the connection is closed. When the `async with` ends, all are, at once.
    """

    def __init__(self, script: Callable[[Connection], Awaitable[None]]) -> None:
        self._script = script
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.accepted = 0
        """Connections that were made so far."""
        self.open = 0
        """Connections whose script has not ended."""
        self.port = 0
        self._stopped = False
        self._ended = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def until_open(self, count: int, *, seconds: float = 5) -> None:
        """Return when at most `count` connections are open; `TimeoutError` after `seconds`."""
        async with asyncio.timeout(seconds):
            while self.open > count:
                self._ended.clear()
                await self._ended.wait()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._stopped = False
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped = True
        for _turn in range(_TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stopped:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        self.open += 1
        try:
            await self._script(Connection(reader, writer))
        except ConnectionError:
            pass  # the peer has gone
        except asyncio.CancelledError:
            writer.transport.abort()  # the test has ended, whether or not the peer reads
        finally:
            self.open -= 1
            self._ended.set()
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                pass
            except asyncio.CancelledError:
                writer.transport.abort()
