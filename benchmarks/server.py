"""The server that everything is measured on: OpenAI's Chat Completions on this machine.

It has its answers ready and reads as little of a request as it can, so that it is the client that a
measurement shows. What it does stands in the path before `/v1`, so that a client needs nothing but
a base URL:

    /v1                           answers at once; a stream has 10 chunks
    /chunks=1000/v1               streams of so many chunks, as fast as they can be read
    /chunks=200,pause=1/v1        each chunk by itself, so many milliseconds after the one before
    /wait=20/v1                   answers after so many milliseconds
    /calls=7/v1                   calls the tool of a request until it has so many results (1)
    /together=1000/v1             a request with a mark in its prompt ("mark=00042") is not answered
                                  before there are so many, and a stream does not go on behind its
                                  first chunk; each chunk of it bears the mark

As a script it prints its port, and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from benchmarks.machine import open_files

TEXT = "17 and 25 are added up. Ten and twenty are 30, seven and five are 12: it is 42 in all."
MARK = b"00000"
"""Stands in a marked stream for the five digits of its own mark."""
_BLOCK = 1000
"""So many chunks are written at once, where they are to come as fast as they can be read."""
_PARTS = 10
"""In so many parts are the streams written that wait for one another."""
_HEADERS = "".join(
    f"{name}: {value}\r\n"
    for name, value in {
        "date": "Thu, 26 Nov 2026 12:00:00 GMT",
        "access-control-expose-headers": "X-Request-ID",
        "alt-svc": 'h3=":443"; ma=86400',
        "cf-cache-status": "DYNAMIC",
        "cf-ray": "9a4b1c0d2e3f4a5b-FRA",
        "openai-organization": "an-organization",
        "openai-processing-ms": "412",
        "openai-version": "2020-10-01",
        "server": "cloudflare",
        "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
        "x-content-type-options": "nosniff",
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-reset-requests": "6ms",
        "x-request-id": "req_5f2c1d7b9a3e4c6d8f0a1b2c3d4e5f60",
    }.items()
)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAMED = re.compile(rb'"stream": *true')
_MARKED = re.compile(rb"mark=(\d{5})")


class Behaviour(NamedTuple):
    """What a path asks for."""

    chunks: int = 10
    pause: int = 0
    wait: int = 0
    calls: int = 1
    together: int = 0


@cache
def behaviour(path: bytes) -> Behaviour:
    """`/chunks=200,pause=1/v1/chat/completions`, understood."""
    part = path.decode().strip("/").split("/")[0]
    if "=" not in part:
        return Behaviour()
    return Behaviour(**{name: int(n) for name, n in (each.split("=") for each in part.split(","))})


def text_of(chunks: int) -> str:
    """What a stream of so many chunks says."""
    return "".join(f" {number % _BLOCK}" for number in range(chunks))


def marked_text_of(chunks: int, mark: str) -> str:
    """What a marked stream says, and no other does."""
    return "".join(f" {mark}.{number:03}" for number in range(chunks))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


_USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 30,
    "total_tokens": 49,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}


def _object(kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-CgS5yXr0aUpwQ1kmOlZ9d2JtT3vBe",
        "object": kind,
        "created": 1795694400,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_560af6e559",
        **fields,
    }


def _tool_call(number: int) -> dict[str, Any]:
    function = {"name": "add", "arguments": '{"a":17,"b":25}'}
    return {"id": f"call_{number:024}", "type": "function", "function": function}


@cache
def answer(calls: int) -> bytes:
    """A whole answer: a call of the tool if `calls` is not 0, else the text."""
    message: dict[str, Any] = {"role": "assistant", "content": TEXT, "refusal": None}
    if calls:
        message |= {"content": None, "tool_calls": [_tool_call(calls)]}
    choice = {
        "index": 0,
        "message": {**message, "annotations": []},
        "logprobs": None,
        "finish_reason": "tool_calls" if calls else "stop",
    }
    body = _json(_object("chat.completion", choices=[choice], usage=_USAGE))
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"{_HEADERS}\r\n"
    )
    return head.encode() + body


STREAM_HEAD = (
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    f"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n{_HEADERS}\r\n"
).encode()


def _in_http(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    data = _json(_object("chat.completion.chunk", choices=[choice], usage=None))
    return _in_http(b"data: %b\n\n" % data)


_FIRST = _event({"role": "assistant", "content": "", "refusal": None})
_LAST = b"".join(
    [
        _event({}, "stop"),
        _in_http(
            b"data: %b\n\n" % _json(_object("chat.completion.chunk", choices=[], usage=_USAGE))
        ),
        _in_http(b"data: [DONE]\n\n"),
        b"0\r\n\r\n",
    ]
)


@cache
def chunks(count: int) -> list[bytes]:
    """The text of a stream, chunk by chunk."""
    return [_event({"content": f" {number % _BLOCK}"}) for number in range(count)]


@cache
def marked_chunks(count: int) -> list[bytes]:
    """The same with `MARK` in each."""
    return [_event({"content": f" {MARK.decode()}.{number:03}"}) for number in range(count)]


@cache
def _marked_parts(count: int) -> list[bytes]:
    """A marked stream: up to its first chunk, then the others in some parts, then its end."""
    events = marked_chunks(count)
    size = -(-count // _PARTS)
    rest = [b"".join(events[start : start + size]) for start in range(1, count, size)]
    return [STREAM_HEAD + _FIRST + events[0], *rest, _LAST]


@cache
def _block(count: int) -> bytes:
    return b"".join(chunks(count))


def _fast(count: int) -> Iterator[bytes]:
    """A stream in as few pieces as its length allows, none of them kept for one stream only."""
    yield STREAM_HEAD + _FIRST
    for _ in range(count // _BLOCK):
        yield _block(_BLOCK)
    yield _block(count % _BLOCK) + _LAST


@cache
def _short(count: int) -> bytes:
    return b"".join(_fast(count))


class Crowd:
    """Answers that go on together when there are enough of them."""

    def __init__(self) -> None:
        self._here: dict[Connection, tuple[bytes, list[bytes]]] = {}

    def add(self, connection: Connection, mark: bytes, parts: list[bytes], together: int) -> None:
        """Write the first part now, and the others when so many are here."""
        connection.write(parts[0].replace(MARK, mark))
        self._here[connection] = mark, parts
        if len(self._here) >= together:
            here, self._here = self._here, {}
            self._go_on(here, 1)

    def remove(self, connection: Connection) -> None:
        """Do not count one that has gone."""
        self._here.pop(connection, None)

    def _go_on(self, here: dict[Connection, tuple[bytes, list[bytes]]], number: int) -> None:
        for connection, (mark, parts) in here.items():
            if number < len(parts):
                connection.write(parts[number].replace(MARK, mark))
        if any(number + 1 < len(parts) for _, parts in here.values()):
            asyncio.get_running_loop().call_soon(self._go_on, here, number + 1)


class Connection(asyncio.Protocol):
    """One connection: requests one after another, each answered as its path asks."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._loop = asyncio.get_running_loop()
        self._unread = b""
        self._pieces: Iterator[bytes] = iter(())
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("this serves connections that are read and written")
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._crowd.remove(self)

    def data_received(self, data: bytes) -> None:
        data = self._unread + data
        while (end_of_head := data.find(b"\r\n\r\n") + 4) >= 4:
            length = _LENGTH.search(data, 0, end_of_head)
            end = end_of_head + (int(length[1]) if length else 0)
            if len(data) < end:
                break
            self._answer(data[: data.index(b"\r\n")].split(b" ")[1], data[end_of_head:end])
            data = data[end:]
        self._unread = data

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._write_on()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def _answer(self, path: bytes, body: bytes) -> None:
        asked = behaviour(path)
        is_streamed = _STREAMED.search(body) is not None
        if asked.together and (mark := _MARKED.search(body)):
            parts = _marked_parts(asked.chunks) if is_streamed else [b"", answer(0)]
            self._crowd.add(self, mark[1], parts, asked.together)
        elif not is_streamed:
            results = body.count(b'"tool_call_id"')
            is_called = b'"tools"' in body and results < asked.calls
            data = answer(results + 1 if is_called else 0)
            if asked.wait:
                self._loop.call_later(asked.wait / 1000, self.write, data)
            else:
                self.write(data)
        elif asked.pause:
            pieces = [STREAM_HEAD + _FIRST, *chunks(asked.chunks), _LAST]
            self._write_slowly(iter(pieces), asked.pause / 1000)
        elif asked.chunks <= _BLOCK:
            self.write(_short(asked.chunks))
        else:
            self._start(_fast(asked.chunks))

    def _start(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._write_on()

    def _write_on(self) -> None:
        while not self._is_full and (piece := next(self._pieces, None)) is not None:
            self.write(piece)

    def _write_slowly(self, pieces: Iterator[bytes], pause: float) -> None:
        piece = next(pieces, None)
        if piece is not None and not self._transport.is_closing():
            self.write(piece)
            self._loop.call_later(pause, self._write_slowly, pieces, pause)


async def start() -> asyncio.Server:
    """Listen on a free port of this machine."""
    crowd = Crowd()
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(crowd), "127.0.0.1", backlog=4096)


def port_of(server: asyncio.Server) -> int:
    """Where it listens."""
    port: int = server.sockets[0].getsockname()[1]
    return port


async def main() -> None:
    """Serve until the input ends, as it does with the process that started this one."""
    open_files(sys.maxsize)
    gc.disable()  # what is made here is released by its last reference
    ended = asyncio.Event()
    async with await start() as server:
        asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
        sys.stdout.write(f"{port_of(server)}\n")
        sys.stdout.flush()
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
