"""A server on 127.0.0.1 that answers as its script says, in the words of a wire.

It must not know a protocol, nor what is tested.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from aether.testing._raw_server import Connection, RawServer
from aether.testing.wires import Reply, Wire, WireRequest

__all__ = ["REQUEST_ID", "Answer", "Ending", "Script", "WireServer", "turns", "written"]

Ending = Literal["whole", "broken", "reset", "hanging"]
"""After the last piece: the body's end; the connection's end without it, by a FIN or a RST; or
nothing, until the peer has gone."""

REQUEST_ID = "req-test-1"
"""The name of every request that is answered as a reply, where a wire has a header for it."""

_HEAD = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.1\r\n")
_TURNS = 3
"""So often the loop goes round before the next piece is sent: the reader has had its turn."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent, piece by piece. `pieces` of `None`: not even a head."""

    pieces: Sequence[bytes] | None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    ending: Ending = "whole"


Script = Reply | Answer | Callable[[WireRequest], Reply | Answer | Awaitable[Reply | Answer]]
"""What every request is answered with, or what says so for each."""


class WireServer:
    """`async with WireServer(...) as server:` answers each request as its `script` says."""

    def __init__(self, wire: Wire, script: Script, *, patience: float) -> None:
        self._wire = wire
        self._patience = patience
        self._raw = RawServer(self._serve)
        self.script = script
        self.requests: list[WireRequest] = []
        """What was asked so far."""
        self._answering = 0
        self._hanging = False
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens; every path is answered alike."""
        return self._raw.url

    async def until_hanging(self) -> None:
        """Return when an answer has come to hang; `TimeoutError` after `patience` seconds."""
        await self._until(lambda: self._hanging)
        await turns()

    async def until_left(self) -> None:
        """Return when no answer is under way: the peer has left those that hang. As above."""
        await self._until(lambda: self._answering == 0)

    async def until_open(self, count: int) -> None:
        """Return when at most `count` connections are open; `TimeoutError` as above."""
        async with asyncio.timeout(self._patience):
            await self._raw.until_open(count)

    async def stop(self) -> None:
        """Close every connection, and take no more."""
        await self._raw.__aexit__()

    async def __aenter__(self) -> Self:
        await self._raw.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _serve(self, connection: Connection) -> None:
        while data := await connection.read_request():
            request = _parsed(data)
            self.requests.append(request)
            self._answering += 1
            try:
                script = self.script
                answer = script if isinstance(script, Reply | Answer) else script(request)
                if not isinstance(answer, Reply | Answer):
                    answer = await answer
                if isinstance(answer, Reply):
                    answer = written(self._wire, answer, request)
                reusable = await self._send(connection, answer)
            finally:
                self._answering -= 1
                self._changed.set()
            if not reusable:
                return

    async def _send(self, connection: Connection, answer: Answer) -> bool:
        """Whether the connection can be used again."""
        if answer.pieces is not None:
            head = [f"HTTP/1.1 {answer.status} Status", "transfer-encoding: chunked"]
            head += [f"{name}: {value}" for name, value in answer.headers.items()]
            await connection.write("\r\n".join([*head, "", ""]).encode())
            for piece in answer.pieces:
                if piece:
                    await connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await turns()
        if answer.ending == "whole":
            await connection.write(b"0\r\n\r\n")
            return True
        if answer.ending == "hanging":
            self._hanging = True
            self._changed.set()
            await connection.wait_closed_by_peer()
        elif answer.ending == "reset":
            connection.reset()
        return False

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(self._patience):
            while not reached():
                self._changed.clear()
                await self._changed.wait()


def written(wire: Wire, reply: Reply, request: WireRequest) -> Answer:
    """The reply as the request wants it: in pieces, or whole."""
    headers = {wire.request_id_header: REQUEST_ID} if wire.request_id_header else {}
    if wire.wants_stream(request):
        events = wire.stream(reply, request).events
        return Answer(events, headers={**headers, "content-type": wire.stream_type})
    body = wire.body(reply, request)
    return Answer([body], headers={**headers, "content-type": "application/json"})


async def turns(count: int = _TURNS) -> None:
    """Let everything else in the loop have its turn, so often."""
    for _ in range(count):
        await asyncio.sleep(0)


def _parsed(data: bytes) -> WireRequest:
    head, _, body = data.partition(b"\r\n\r\n")
    start = _HEAD.match(data)
    method, path = start.groups() if start else (b"", b"")
    fields = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    headers = {name.decode().lower(): value.decode("latin-1").strip() for name, _, value in fields}
    return WireRequest(method.decode(), path.decode("latin-1"), headers, body)
