"""A server on 127.0.0.1 that gives prepared answers, byte for byte, and keeps what it was asked.

It must not know what the bytes mean.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

__all__ = ["Answer", "Asked", "Server", "pieces_of"]

_LENGTH = re.compile(rb"^content-length: *(\d+)\r$", re.IGNORECASE | re.MULTILINE)
_OURS = {"transfer-encoding", "content-length", "connection", "content-encoding"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is answered to one request, and how it is sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    chunked: bool = True
    """In HTTP chunks; else with its length."""
    piece: int = 0
    """Written in pieces of 1 to so many bytes, each on its own; 0: all at once."""
    seed: int = 0
    cut: int | None = None
    """The connection is dropped after so many bytes of the body."""


@dataclass(slots=True)
class Asked:
    """The answers that are left for one base URL, and the bodies of what was asked there."""

    url: str
    answers: list[Answer]
    bodies: list[bytes] = field(default_factory=list)


def pieces_of(data: bytes, biggest: int, chance: random.Random) -> Iterator[bytes]:
    """The data in pieces of 1 to `biggest` bytes."""
    start = 0
    while start < len(data):
        end = start + chance.randint(1, biggest)
        yield data[start:end]
        start = end


class Server:
    """`async with Server() as server:`, then `server.prepare(path, answers)` for each client."""

    def __init__(self) -> None:
        self._asked: dict[str, Asked] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def prepare(self, name: str, answers: Sequence[Answer]) -> Asked:
        """A base URL below which these answers are given, one for each request, in order."""
        number = str(len(self._asked))
        asked = Asked(f"http://127.0.0.1:{self._port}/{number}/{name}", list(answers))
        self._asked[number] = asked
        return asked

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or all is over
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await reader.readexactly(int(length[1])) if length else b""
        number = head.split(b" ", 2)[1].split(b"/")[1].decode()
        asked = self._asked[number]
        asked.bodies.append(body)
        if not asked.answers:
            gone = Answer(status=410, headers={}, body=b"no answer is left", chunked=False)
            return await _send(gone, writer)
        return await _send(asked.answers.pop(0), writer)


async def _send(answer: Answer, writer: asyncio.StreamWriter) -> bool:
    """Whether the connection still stands."""
    head = [f"HTTP/1.1 {answer.status} Status"]
    head += [f"{name}: {v}" for name, v in answer.headers.items() if name.lower() not in _OURS]
    length = f"content-length: {len(answer.body)}"
    head.append("transfer-encoding: chunked" if answer.chunked else length)
    writer.write("\r\n".join([*head, "", ""]).encode("latin-1", "replace"))
    body = answer.body if answer.cut is None else answer.body[: answer.cut]
    pieces = iter([body] if body else [])
    if answer.piece:
        pieces = pieces_of(body, answer.piece, random.Random(answer.seed))
    for piece in pieces:
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece)
        await writer.drain()
        if answer.piece:  # in one loop with its reader: one turn to be seen, one to be read
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    if answer.cut is not None:
        if answer.seed % 2:
            reset: Any = writer.get_extra_info("socket")
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    if answer.chunked:
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True
