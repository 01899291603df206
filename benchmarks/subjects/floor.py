"""The least that Python can do: asyncio's streams, `json`, and connections that are used again.

It has no errors but what Python raises, no time limits, no checks, no costs. It shows how much of a
call is the event loop, the sockets and the JSON, which every library pays.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from benchmarks.contracts import ADD, KEY, MODEL, PROMPT, Heard, add

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def client(url: str) -> Client:
    return Client(url)


class Client:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._head = (
            f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: "
        ).encode()
        self._idle: list[_Connection] = []

    async def call(self, prompt: str = PROMPT) -> str:
        message = await self._ask([{"role": "user", "content": prompt}])
        text: str = message["content"]
        return text

    async def stream(self, heard: Heard, prompt: str = PROMPT) -> None:
        messages = [{"role": "user", "content": prompt}]
        async for event in self._events({"model": MODEL, "messages": messages, "stream": True}):
            for choice in event["choices"]:
                if text := choice["delta"].get("content"):
                    heard(text)

    async def tool(self, turns: int | None = None) -> str:  # noqa: ARG002 - it has no limit
        messages: list[dict[str, Any]] = [{"role": "user", "content": PROMPT}]
        while True:
            message = await self._ask(messages, tools=[ADD])
            if not message.get("tool_calls"):
                text: str = message["content"]
                return text
            messages.append(message)
            for call in message["tool_calls"]:
                total = add(**json.loads(call["function"]["arguments"]))
                told = {"role": "tool", "tool_call_id": call["id"], "content": str(total)}
                messages.append(told)

    def agent(self) -> None:
        return None

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()

    async def _ask(self, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        connection, head = await self._send({"model": MODEL, "messages": messages, **more})
        start = head.index(b"content-length: ") + 16
        length = int(head[start : head.index(b"\r", start)])
        answer = json.loads(await connection[0].readexactly(length))
        self._idle.append(connection)
        message: dict[str, Any] = answer["choices"][0]["message"]
        return message

    async def _events(self, body: dict[str, Any]) -> AsyncIterator[Any]:
        """The events of a stream. Each of them is one chunk of HTTP, as this server writes them."""
        connection, _ = await self._send(body)
        reader, unread = connection[0], b""
        while True:
            unread += await reader.read(65536)
            start = 0
            while (line_end := unread.find(b"\r\n", start)) >= 0:
                length = int(unread[start:line_end], 16)
                end = line_end + 2 + length
                if len(unread) < end + 2:
                    break
                if not length:
                    self._idle.append(connection)
                    return
                data = unread[line_end + 8 : end]  # behind "data: "
                if data != b"[DONE]\n\n":
                    yield json.loads(data)
                start = end + 2
            unread = unread[start:]

    async def _send(self, body: dict[str, Any]) -> tuple[_Connection, bytes]:
        connection = (
            self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
        )
        data = json.dumps(body).encode()
        connection[1].write(b"%b%d\r\n\r\n%b" % (self._head, len(data), data))
        head = await connection[0].readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(head.decode())
        return connection, head
