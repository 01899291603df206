"""A client on real sockets: several event loops, threads, and the end of its connections."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aether import Aether, ProviderConfig

ANSWER = json.dumps(
    {
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
).encode()


class Server(ThreadingHTTPServer):
    """Answers every request, keeps connections alive, and counts them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.connections = 0
        self.open = 0
        self.changed = threading.Condition()

    def wait_until_all_are_closed(self) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.open == 0, timeout=5)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def handle(self) -> None:
        with self.server.changed:
            self.server.connections += 1
            self.server.open += 1
        try:
            super().handle()
        finally:
            with self.server.changed:
                self.server.open -= 1
                self.server.changed.notify_all()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture(params=["aiohttp", "httpx"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Aether]:
    """A client of that server; nothing of it may be left for the collector to complain of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield Aether(
            config=ProviderConfig(
                provider="openai",
                model="m",
                base_url=f"http://127.0.0.1:{server.server_port}/v1",
                api_key="sk-canary-0123456789",
                transport=request.param,
                timeout=5,
            )
        )
        gc.collect()


def test_nothing_is_opened_before_the_first_call(client: Aether, server: Server) -> None:
    async def enter() -> None:
        async with client:
            pass

    asyncio.run(enter())
    assert server.connections == 0


def test_connection_is_kept_between_calls_and_closed_with_the_client(
    client: Aether, server: Server
) -> None:
    async def use() -> None:
        async with client:
            assert [await client.ask("hi") for _ in range(3)] == ["hello"] * 3
            assert (server.connections, server.open) == (1, 1)

    asyncio.run(use())
    assert server.wait_until_all_are_closed()


def test_one_loop_after_another_and_the_blocking_side_between(
    client: Aether, server: Server
) -> None:
    assert asyncio.run(client.ask("hi")) == "hello"
    assert client.sync.ask("hi") == "hello"
    assert asyncio.run(client.ask("hi")) == "hello"
    assert client.sync.ask("hi") == "hello"
    asyncio.run(client.aclose())
    assert server.wait_until_all_are_closed()


def test_blocking_side_closes_what_every_loop_has_opened(client: Aether, server: Server) -> None:
    assert asyncio.run(client.ask("hi")) == "hello"
    assert client.sync.ask("hi") == "hello"
    client.sync.close()
    assert server.wait_until_all_are_closed()


def test_threads_share_a_client(client: Aether, server: Server) -> None:
    answers: list[str] = []

    def use() -> None:
        answers.extend([asyncio.run(client.ask("hi")) for _ in range(3)])

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["hello"] * 12
    assert client.usage.total_requests == 12
    asyncio.run(client.aclose())
    assert server.wait_until_all_are_closed()


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.parametrize("how", ["sync", "asyncio.run", "a running loop"])
def test_a_forgotten_client_takes_its_connections_along(
    transport: str, how: str, server: Server
) -> None:
    def forgotten() -> Aether:
        config = ProviderConfig(
            provider="openai",
            api_key="sk-canary-0123456789",
            model="m",
            base_url=f"http://127.0.0.1:{server.server_address[1]}/v1",
            transport=transport,
        )
        return Aether(config=config)

    async def in_a_running_loop() -> bool:
        await forgotten().ask("hi")
        gc.collect()
        return await asyncio.to_thread(server.wait_until_all_are_closed)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if how == "sync":
            assert forgotten().sync.ask("hi") == "hello"
        elif how == "asyncio.run":
            assert asyncio.run(forgotten().ask("hi")) == "hello"
        else:
            assert asyncio.run(in_a_running_loop())
        gc.collect()
        assert server.connections == 1
        assert server.wait_until_all_are_closed()
