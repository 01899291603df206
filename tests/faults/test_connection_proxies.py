"""Proxies that the environment names: used, and told no key; wrong ones are errors of ours."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import sys
from contextlib import suppress
from typing import Any

import pytest

from aether.errors import ConfigurationError, ProviderConnectionError
from aether.testing import FaultServer
from aether.testing._raw_server import Connection, RawServer
from tests.faults.aftermath import Aftermath
from tests.faults.exchanges import (
    HELLO,
    Way,
    all_ways,
    both_ways,
    call,
    each_protocol,
    each_transport,
    elsewhere,
    opened_with,
    states,
)
from tests.faults.tls import TLSServer, trust


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


class Tunnels:
    """A proxy that makes tunnels to this machine, whatever the name, and notes what it sees."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.heads: list[bytes] = []
        self.passed = bytearray()
        """What went through, as the proxy sees it, towards the server."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._port)
        back = asyncio.create_task(_pass_on(inner_reader, writer))
        await _pass_on(reader, inner_writer, self.passed)
        await back


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray | None = None
) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            if seen is not None:
                seen += data
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.mark.row("N20")
@pytest.mark.usefixtures("no_proxies")
@each_protocol
@each_transport
@all_ways
async def test_a_proxy_is_used_and_gets_its_password(
    protocol: str,
    transport: str,
    way: Way,
    aftermath: Aftermath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FaultServer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//user:pass@"))
        config = elsewhere(protocol, "http://model.example/v1", aftermath, transport=transport)
        async with opened_with(aftermath, config) as client:
            aftermath.one_entry_per_request(client, proxy)
            assert (await call(client, way)).succeeded() == HELLO.text
            assert states(client) == ["exact"]
        [request] = proxy.requests
    assert request.path.startswith("http://model.example/v1/")
    assert request.headers["host"] == "model.example"
    word = base64.b64encode(b"user:pass").decode()
    assert request.headers["proxy-authorization"] == f"Basic {word}"


@pytest.mark.row("N20")
@pytest.mark.usefixtures("no_proxies")
@each_protocol
@each_transport
@both_ways
async def test_a_proxy_of_a_server_with_tls_gets_its_password_and_no_key(
    protocol: str,
    transport: str,
    way: Way,
    aftermath: Aftermath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trust(monkeypatch)
    async with TLSServer(protocol) as server:
        tunnels = Tunnels(server.port)
        proxy = await asyncio.start_server(tunnels, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:pass@127.0.0.1:{port}")
        place = f"localhost:{server.port}"
        config = elsewhere(protocol, f"https://{place}/v1", aftermath, transport=transport)
        async with proxy, opened_with(aftermath, config) as client:
            assert (await call(client, way)).succeeded() == HELLO.text
            assert states(client) == ["exact"]
    [head] = tunnels.heads
    assert head.startswith(f"CONNECT {place} HTTP/1.1\r\n".encode())
    assert base64.b64encode(b"user:pass") in head
    assert tunnels.passed
    assert aftermath.key.encode() not in head + tunnels.passed
    assert aftermath.key.encode() in server.heads[0]


@pytest.mark.row("N20")
@pytest.mark.usefixtures("no_proxies")
@each_protocol
@each_transport
@both_ways
async def test_a_proxy_that_refuses_is_an_error_without_its_password(
    protocol: str, transport: str, way: Way, aftermath: Aftermath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FaultServer() as gone:
        url = gone.url
    monkeypatch.setenv("HTTP_PROXY", url.replace("//", f"//user:{aftermath.key}@"))
    config = elsewhere(protocol, "http://model.example/v1", aftermath, transport=transport)
    async with opened_with(aftermath, config, attempts=2) as client:
        error = (await call(client, way)).failed()
        assert isinstance(error, ProviderConnectionError)
        assert error.kind == "connect"
        assert states(client) == ["not_billed"] * 2
        aftermath.told(error)


@pytest.mark.row("N20")
@pytest.mark.usefixtures("no_proxies")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize("status", [b"407 Who are you", b"502 No", b"200 OK"])
async def test_a_proxy_that_makes_no_tunnel_is_an_error_and_gets_no_key(
    protocol: str,
    transport: str,
    way: Way,
    status: bytes,
    aftermath: Aftermath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heads: list[bytes] = []

    async def script(connection: Connection) -> None:
        heads.append(await connection.read_request())
        await connection.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

    async with RawServer(script) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", f"//user:{aftermath.key}@"))
        config = elsewhere(protocol, "https://model.example/v1", aftermath, transport=transport)
        async with opened_with(aftermath, config) as client:
            error = (await call(client, way)).failed()
        assert isinstance(error, ProviderConnectionError)
        assert states(client) == ["not_billed"]
        aftermath.told(error)
    assert heads[0].startswith(b"CONNECT model.example:443 HTTP/1.1\r\n")
    assert aftermath.key.encode() not in heads[0]


@pytest.mark.row("N20")
@pytest.mark.usefixtures("no_proxies")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize(
    "proxy",
    [
        "not a url",
        "http://",
        "http://user:KEY@127.0.0.1:99999",
        "http://user:KEY@",
        "ftp://user:KEY@x",
    ],
)
async def test_a_proxy_that_is_none_is_an_error_of_ours(
    protocol: str,
    transport: str,
    way: Way,
    proxy: str,
    aftermath: Aftermath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nowhere(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", nowhere)
    monkeypatch.setenv("HTTP_PROXY", proxy.replace("KEY", aftermath.key))
    config = elsewhere(protocol, "http://model.example/v1", aftermath, transport=transport)
    async with opened_with(aftermath, config) as client:
        came = await call(client, way)
        assert set(states(client)) <= {"not_billed"}
    assert isinstance(came.error, ConfigurationError)
    assert not came.error.__cause__
    aftermath.told(came.error)


@pytest.mark.row("N20")
@pytest.mark.usefixtures("no_proxies")
@each_transport
@both_ways
@pytest.mark.parametrize("proxy", ["http://", "ftp://user:KEY@x", "socks5://user:KEY@127.0.0.1:1"])
async def test_a_host_without_proxy_is_reached_whatever_the_proxy_of_others_is(
    transport: str, way: Way, proxy: str, aftermath: Aftermath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.replace("KEY", aftermath.key))
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    async with FaultServer() as server:
        config = elsewhere("openai", f"{server.url}/v1", aftermath, transport=transport)
        async with opened_with(aftermath, config) as client:
            assert (await call(client, way)).succeeded() == HELLO.text
        config = elsewhere("openai", "http://model.example/v1", aftermath, transport=transport)
        async with opened_with(aftermath, config) as client:
            came = await call(client, way)
    assert isinstance(came.error, ConfigurationError)
    aftermath.told(came.error)


@pytest.mark.row("N20")
@pytest.mark.usefixtures("no_proxies")
@each_transport
@both_ways
async def test_a_socks_proxy_without_what_it_needs_is_an_error_that_says_what(
    transport: str, way: Way, aftermath: Aftermath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("HTTP_PROXY", f"socks5://user:{aftermath.key}@127.0.0.1:1")
    config = elsewhere("openai", "http://model.example/v1", aftermath, transport=transport)
    async with opened_with(aftermath, config) as client:
        came = await call(client, way)
        assert set(states(client)) <= {"not_billed"}
    assert isinstance(came.error, ConfigurationError)
    assert ("socksio" if transport == "httpx" else "AETHER_HTTP=httpx") in str(came.error)
    aftermath.told(came.error)
