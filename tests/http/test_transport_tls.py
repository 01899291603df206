"""TLS under the built-in transports, with a certificate that only these tests trust."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import pytest

from aether.errors import ProviderConnectionError
from aether.extensions.http.aiohttp import AiohttpTransport
from aether.extensions.http.httpx import HttpxTransport
from aether.http.contracts import Timeout, Transport

CERTIFICATE = Path(__file__).with_name("localhost.pem")
PATIENCE = Timeout(connect=5, read=5, total=10)
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"


@pytest.fixture(params=[AiohttpTransport, HttpxTransport])
def make_transport(request: pytest.FixtureRequest) -> Callable[[], Transport]:
    make: Callable[[], Transport] = request.param
    return make


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", context)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))  # read by httpx2 for each client


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


@asynccontextmanager
async def opened(transport: Transport) -> AsyncIterator[Transport]:
    try:
        yield transport
    finally:
        await transport.aclose()


class RudeServer:
    """Takes one TLS connection, sends `answer`, and never says goodbye in TLS."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listening.getsockname()[1]}"
        self.asked = threading.Event()
        self.left = threading.Event()
        """Set when the peer has closed the connection itself, beneath TLS."""
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        accepted, _ = self._listening.accept()
        with server_context().wrap_socket(accepted, server_side=True) as connection:
            connection.recv(65536)
            connection.sendall(self._answer)
            self.asked.set()
            beneath = socket.socket(fileno=connection.detach())
        with beneath:
            beneath.settimeout(3)
            try:
                while beneath.recv(65536):
                    pass
            except ConnectionError:
                pass
            except TimeoutError:
                return
            self.left.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._listening.close()


async def test_a_stream_that_is_left_does_not_wait_for_the_goodbye(
    make_transport: Callable[[], Transport], trusted: None
) -> None:
    async with opened(make_transport()) as transport:
        with RudeServer(HEAD) as server:
            async with transport.stream(
                "POST", server.url, headers={}, body=b"{}", timeout=PATIENCE
            ) as answer:
                async for piece in answer.chunks():
                    assert piece == b"one"
                    break
            assert await asyncio.to_thread(server.left.wait, 5)


async def test_a_call_cancelled_before_the_head_does_not_wait_for_the_goodbye(
    make_transport: Callable[[], Transport], trusted: None
) -> None:
    async with opened(make_transport()) as transport:
        with RudeServer(b"") as server:
            call = asyncio.ensure_future(
                transport.request("GET", server.url, headers={}, timeout=PATIENCE, max_bytes=10)
            )
            await asyncio.to_thread(server.asked.wait, 5)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await asyncio.to_thread(server.left.wait, 5)


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("size", [100, 100_000])  # aiohttp: written at once, and in a task
async def test_a_connection_that_is_not_kept_does_not_wait_for_the_goodbye(
    size: int, checked: bool, trusted: None
) -> None:
    closing = b"" if checked else b"Connection: close\r\n"
    async with opened(AiohttpTransport()) as transport:
        with RudeServer(b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\nhi" % closing) as server:
            answer = await transport.request(
                "POST",
                server.url,
                headers={},
                body=b"x" * size,
                timeout=PATIENCE,
                max_bytes=10,
                check_address=(lambda *_: None) if checked else None,
            )
            assert answer.body == b"hi"
            assert await asyncio.to_thread(server.left.wait, 5)


@pytest.mark.row("N3")
async def test_a_certificate_that_is_not_trusted_is_not_worth_another_try(
    make_transport: Callable[[], Transport],
) -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0, ssl=server_context())
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, opened(make_transport()) as transport:
        with pytest.raises(ProviderConnectionError, match="certificate") as raised:
            await transport.request("GET", url, headers={}, timeout=PATIENCE, max_bytes=10)
    assert raised.value.kind == "tls"
    assert not raised.value.retryable


@pytest.mark.row("N3")
async def test_a_server_without_tls_is_told_from_one_that_is_away(
    make_transport: Callable[[], Transport],
) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 plain\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, opened(make_transport()) as transport:
        with pytest.raises(ProviderConnectionError) as raised:
            await transport.request("GET", url, headers={}, timeout=PATIENCE, max_bytes=10)
    assert raised.value.kind == "tls"


async def test_a_checked_address_is_asked_for_the_name_it_was_found_by(
    make_transport: Callable[[], Transport], trusted: None
) -> None:
    names: list[str | None] = []
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    context = server_context()
    context.sni_callback = lambda _connection, name, _context: names.append(name)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server, opened(make_transport()) as transport:
        await transport.request(
            "GET",
            f"https://localhost:{port}/",
            headers={},
            timeout=PATIENCE,
            max_bytes=10,
            check_address=lambda *_: None,
        )
    assert names == ["localhost"]
    assert f"host: localhost:{port}".encode() in heads[0].lower()


@pytest.mark.parametrize("closing", [b"Connection: close\r\n", b""])
@pytest.mark.parametrize("body", [b"1\r\nx\r\n" * 60_000, b"4e20\r\n" + b"x" * 20_000 + b"\r\n"])
async def test_a_slow_reader_gets_the_whole_of_an_answer_behind_which_the_server_closes(
    closing: bytes, body: bytes, trusted: None
) -> None:
    """There is more than is read ahead, in chunks or in bytes, when the goodbye comes."""
    body *= 2_000_000 // len(body) + 1
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n" % closing

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(head + body + b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context())
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    came = 0
    async with (
        server,
        opened(AiohttpTransport()) as transport,
        transport.stream("POST", url, headers={}, body=b"{}", timeout=PATIENCE) as answer,
    ):
        async for piece in answer.chunks():
            came += len(piece)
            await asyncio.sleep(0.01)
    assert came == body.count(b"x")


@pytest.mark.parametrize("size", [2, 100_000])  # written at once, and by aiohttp's own protocol
async def test_what_a_server_says_with_the_end_of_its_handshake_is_no_answer(
    size: int, trusted: None
) -> None:
    """With TLS 1.2 it has the last word there, and more may come with that."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale")
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(size)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown")
        writer.close()

    context = server_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, opened(AiohttpTransport()) as transport:

        async def ask() -> bytes:
            answer = await transport.request(
                "POST", url, headers={}, body=b"x" * size, timeout=PATIENCE, max_bytes=10
            )
            return answer.body

        with pytest.raises(ProviderConnectionError) as raised:
            await ask()
        assert raised.value.kind == "reset"
        assert [await ask(), await ask()] == [b"own", b"own"]
