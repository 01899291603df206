"""A key goes to its server and nowhere else: not into a log, an event, an error or a printout."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aether import Aether, ProviderConfig
from aether.errors import AetherError, AuthenticationError
from aether.events import EVENT_NAMES, Event
from aether.extensions.memory import InMemorySessionStore

CANARY = "sk-canary-5f1d0c3b9a7e"
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "hello"},
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
TELLTALE = {"error": {"message": f"Incorrect API key provided: {CANARY}.", "code": "bad_key"}}


class Server:
    """Answers each request with the next of `answers`; notes the heads of the requests."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes, str]] = []
        self.heads: list[str] = []
        self.request_id = "req-1"
        self.port = 0

    def will_answer(self, status: int, body: Any) -> None:
        self.answers.append((status, json.dumps(body).encode(), "application/json"))

    def will_stream(self, text: str) -> None:
        self.answers.append((200, text.encode(), "text/event-stream"))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.partition(":")[2])
            for line in head.splitlines()
            if line.lower().startswith("content-length")
        )
        await reader.readexactly(length)
        self.heads.append(head)
        status, body, kind = self.answers.pop(0)
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {self.request_id}\r\n"
            "connection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server


def configured(server: Server, transport: str) -> ProviderConfig:
    return ProviderConfig(
        provider="openai",
        model="m",
        api_key=CANARY,
        base_url=f"http://127.0.0.1:{server.port}/v1",
        transport=transport,
        timeout=5,
    )


def texts_within(found: object, seen: set[int] | None = None, depth: int = 0) -> Iterator[str]:
    """Every text that can be reached over attributes, slots and containers."""
    seen = set() if seen is None else seen
    if id(found) in seen or depth > 30 or isinstance(found, type):
        return
    seen.add(id(found))
    if isinstance(found, str | bytes):
        yield found if isinstance(found, str) else found.decode("latin-1")
    elif isinstance(found, dict):
        for key, value in found.items():
            yield from texts_within(key, seen, depth + 1)
            yield from texts_within(value, seen, depth + 1)
    elif isinstance(found, list | tuple | set | frozenset):
        for value in found:
            yield from texts_within(value, seen, depth + 1)
    elif type(found).__module__.startswith("aether"):
        yield from texts_within(getattr(found, "__dict__", {}), seen, depth + 1)
        for cls in type(found).__mro__:
            for slot in getattr(cls, "__slots__", ()):
                yield from texts_within(getattr(found, slot, None), seen, depth + 1)


def shown(error: BaseException, *, with_locals: bool = False) -> str:
    """All that a traceback shows of an error and of what led to it, and what it carries."""
    told = traceback.TracebackException.from_exception(error, capture_locals=with_locals)
    return "".join(told.format()) + repr(error) + repr(vars(error))


@pytest.mark.row("X13", "X14")
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_key_is_in_the_header_and_in_nothing_that_is_written(
    transport: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    events: list[Event] = []
    store = InMemorySessionStore()
    output: list[str] = []
    async with serving() as server:
        client = Aether(config=configured(server, transport), memory_store=store)
        for name in EVENT_NAMES:
            client.on(name)(events.append)

        server.will_answer(200, ANSWER)
        assert await client.session("s").ask("hi") == "hello"
        assert CANARY in server.heads[0]

        for status in (401, 400, 404, 429):
            server.will_answer(status, TELLTALE)
            if status == 429:
                server.answers += server.answers * 2
            with pytest.raises(AetherError) as raised:
                await client.ask("hi")
            output.append(shown(raised.value))
            server.answers.clear()

        server.will_stream("data: {broken " + CANARY + "\n\n")
        with pytest.raises(AetherError) as raised:
            async for _ in client.stream("hi"):
                pass
        output.append(shown(raised.value))

        output += [repr(client), str(client), repr(client.usage), repr(client.provider)]
        output += list(texts_within(client))
        await client.aclose()
    output += [repr(event) for event in events]
    output += list(texts_within(events))
    output += [repr(await store.load("s")), caplog.text, *capsys.readouterr()]
    for record in caplog.records:
        output += [record.getMessage(), repr(vars(record))]
    assert events
    assert not [text for text in output if CANARY in text]


@pytest.mark.row("X13")
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_key_is_not_in_the_error_of_a_connection_that_cannot_be_made(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving() as server:
        config = configured(server, transport)
    async with Aether(config=config, with_retry=False) as client:
        with pytest.raises(AetherError) as raised:
            await client.ask("hi")
    assert CANARY not in shown(raised.value, with_locals=True)
    assert CANARY not in caplog.text


@pytest.mark.row("X16")
async def test_redirect_is_not_followed_with_the_key() -> None:
    async with serving() as server, serving() as thief:
        body = b"{}"
        server.answers.append(
            (
                307,
                body,
                f"text/plain\r\nlocation: http://127.0.0.1:{thief.port}/v1/chat/completions",
            )
        )
        thief.will_answer(200, ANSWER)
        async with Aether(config=configured(server, "aiohttp"), with_retry=False) as client:
            with pytest.raises(AetherError):
                await client.ask("hi")
        assert thief.heads == []


@pytest.mark.row("X16")
async def test_other_provider_of_a_call_gets_no_key_of_the_configured_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as server, serving() as other:
        monkeypatch.setenv("OLLAMA_BASE_URL", f"http://127.0.0.1:{other.port}/v1")
        other.will_answer(200, ANSWER)
        async with Aether(config=configured(server, "aiohttp")) as client:
            assert await client.ask("hi", model="ollama:llama3") == "hello"
        assert server.heads == []
        assert CANARY not in other.heads[0]
        assert "authorization" not in other.heads[0].lower()


async def test_key_that_the_server_gives_as_its_error_code_is_not_in_the_error() -> None:
    async with serving() as server:
        server.will_answer(401, {"error": {"message": "Wrong key.", "code": CANARY}})
        async with Aether(config=configured(server, "aiohttp")) as client:
            with pytest.raises(AetherError) as raised:
                await client.ask("hi")
    assert CANARY not in shown(raised.value)


@pytest.mark.row("X13")
async def test_key_that_the_server_echoes_in_names_of_its_own_is_in_no_answer() -> None:
    answer = json.loads(json.dumps(ANSWER))
    answer["model"] = f"model-{CANARY}"
    answer["choices"][0]["finish_reason"] = CANARY
    async with serving() as server:
        server.request_id = CANARY
        server.will_answer(200, answer)
        server.will_answer(401, TELLTALE)
        async with Aether(config=configured(server, "aiohttp")) as client:
            response = await client.complete("hi")
            with pytest.raises(AetherError) as raised:
                await client.ask("hi")
            assert not [text for text in texts_within(client.usage) if CANARY in text]
    assert CANARY not in repr(response)
    assert CANARY not in shown(raised.value)


async def test_refused_key_is_an_authentication_error() -> None:
    async with serving() as server:
        server.will_answer(401, TELLTALE)
        async with Aether(config=configured(server, "aiohttp")) as client:
            with pytest.raises(AuthenticationError) as raised:
                await client.ask("hi")
    assert (raised.value.status, raised.value.attempts) == (401, 1)


@pytest.mark.row("X13")
def test_error_in_a_keys_own_form_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY + "\x7f")
    with pytest.raises(AetherError) as raised:
        Aether(config=ProviderConfig(provider="openai"))
    assert CANARY not in str(raised.value)
