"""Proxies that the environment names are used, and cost nothing where it names none."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aether.errors import ConfigurationError, InputError, ProviderConnectionError
from aether.extensions.http.aiohttp import AiohttpTransport
from aether.extensions.http.httpx import HttpxTransport
from aether.http.contracts import HTTPResponse, Timeout, Transport
from aether.testing._raw_server import Connection, RawServer

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy"
PATIENCE = Timeout(connect=5, read=5, total=10)


@pytest.fixture(params=[AiohttpTransport, HttpxTransport])
def make_transport(request: pytest.FixtureRequest) -> Callable[[], Transport]:
    make: Callable[[], Transport] = request.param
    return make


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@asynccontextmanager
async def opened(transport: Transport) -> AsyncIterator[Transport]:
    try:
        yield transport
    finally:
        await transport.aclose()


def noting(heads: list[bytes]) -> Callable[[Connection], Awaitable[None]]:
    async def script(connection: Connection) -> None:
        while request := await connection.read_request():
            heads.append(request)
            await connection.write(ANSWER)

    return script


async def get(transport: Transport, url: str, **options: Any) -> HTTPResponse:
    options = {"headers": {}, "timeout": PATIENCE, "max_bytes": 100, **options}
    return await transport.request("GET", url, **options)


@pytest.mark.row("N20")
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
async def test_a_proxy_of_the_environment_is_used(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []

    async def script(connection: Connection) -> None:
        seen.append(await connection.read_request())
        await connection.write(ANSWER)

    async with RawServer(script) as server:
        monkeypatch.setenv(variable, server.url)
        transport = AiohttpTransport()
        response = await transport.request(
            "POST", "http://model.example/v1", headers={}, timeout=Timeout(), max_bytes=100
        )
        await transport.aclose()
    assert response.body == b"proxy"
    assert seen[0].startswith(b"POST http://model.example/v1 HTTP/1.1\r\n")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 Connection established\r\n\r\n"])
async def test_closing_ends_the_connection_to_a_proxy_that_makes_another(
    make_transport: Callable[[], Transport], answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(answer)
        asked.set()
        await connection.wait_closed_by_peer()

    async with RawServer(script) as server, opened(make_transport()) as transport:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        limits = Timeout(connect=None, read=None)
        call = asyncio.ensure_future(get(transport, "https://model.example/v1", timeout=limits))
        await asked.wait()
        await transport.aclose()
        with pytest.raises(ProviderConnectionError, match="was closed"):
            await asyncio.wait_for(call, 5)
        await server.until_open(0)


async def test_the_environment_is_not_searched_at_each_request_where_it_names_no_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    searched: list[object] = []
    monkeypatch.setattr("aether.extensions.http._wire.proxy_bypass", searched.append)

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(ANSWER)

    async with RawServer(script) as server:
        transport = AiohttpTransport()
        await transport.request("POST", server.url, headers={}, timeout=Timeout(), max_bytes=100)
        await transport.aclose()
    assert searched == []


@pytest.mark.row("N20")
async def test_a_proxy_gets_its_password_and_no_checked_request(
    make_transport: Callable[[], Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[bytes] = []
    async with RawServer(noting(heads)) as proxy, RawServer(noting([])) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//user:pass@"))
        async with opened(make_transport()) as transport:
            await get(transport, "http://far.example/x", headers={"authorization": "Bearer k"})
            assert heads[0].startswith(b"GET http://far.example/x HTTP/1.1\r\n")
            assert b"proxy-authorization: basic dxnlcjpwyxnz" in heads[0].lower()
            await get(transport, server.url, check_address=lambda *_: None)
            assert (proxy.accepted, server.accepted) == (1, 1)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with opened(make_transport()) as transport:
            await get(transport, server.url)
            assert (proxy.accepted, server.accepted) == (1, 2)


@pytest.mark.row("N20")
async def test_a_proxy_that_aiohttp_does_not_know_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@127.0.0.1:1")
    async with opened(AiohttpTransport()) as transport:
        with pytest.raises(ConfigurationError, match=r"socks5.*AETHER_HTTP") as raised:
            await get(transport, "http://far.example/")
    assert "secret" not in str(raised.value)


async def test_a_netrc_file_adds_no_key(
    make_transport: Callable[[], Transport], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password mine\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    heads: list[bytes] = []
    async with opened(make_transport()) as transport, RawServer(noting(heads)) as server:
        await get(transport, server.url)
        await get(transport, server.url, headers={"authorization": "Bearer k"})
    assert b"authorization" not in heads[0].lower()
    assert b"bearer k" in heads[1].lower()


@pytest.mark.row("N20")
@pytest.mark.parametrize(
    ("url", "headers"),
    [("http://far.example/", {"x-name": "two\nlines"}), ("http://far..example/", {})],
)
async def test_a_refused_request_shows_no_password_of_the_proxy(
    url: str,
    headers: dict[str, str],
    make_transport: Callable[[], Transport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:hidden@127.0.0.1:9")
    async with opened(make_transport()) as transport:
        with pytest.raises((InputError, ProviderConnectionError)) as raised:
            await get(transport, url, headers=headers)
    formatted = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    assert "hidden" not in "".join(formatted.format())


@pytest.mark.row("N20")
async def test_a_proxy_whose_name_cannot_be_one_is_told_from_a_url_that_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{'ä' * 80}:9")
    async with opened(AiohttpTransport()) as transport:
        with pytest.raises(ConfigurationError, match="HTTP_PROXY"):
            await get(transport, "http://far.example/")
