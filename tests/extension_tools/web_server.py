"""A web server of scripted bytes on loopback, which knows who came, what they said and who left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A server of scripted bytes on loopback that knows who came and who left."""

    def __init__(self) -> None:
        self.accepted = 0
        self.requests: list[str] = []
        self.port = 0
        self._left: list[asyncio.Event] = []
        self.answers: dict[str, Answer] = {}

    def page(self, path: str, head: str, body: bytes = b"") -> None:
        async def answer(writer: asyncio.StreamWriter) -> None:
            writer.write(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)

        self.answers[path] = answer

    def text(self, path: str, body: str) -> None:
        self.page(path, f"200 OK\r\nContent-Length: {len(body)}", body.encode())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        left = asyncio.Event()
        self._left.append(left)
        try:
            while (line := await reader.readline()) and (path := line.split()[1].decode()):
                request = line + await reader.readuntil(b"\r\n\r\n")
                self.requests.append(request.decode().lower())
                await self.answers[path](writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            left.set()

    async def everybody_left(self) -> None:
        async with asyncio.timeout(2):
            for left in self._left:
                await left.wait()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.everybody_left()
