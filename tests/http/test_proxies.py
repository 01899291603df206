"""Proxies that the environment names are used, and cost nothing where it names none."""

from __future__ import annotations

import pytest

from aether.extensions.http.aiohttp import AiohttpTransport
from aether.http.contracts import Timeout
from aether.testing._raw_server import Connection, RawServer

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy"


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


async def test_the_environment_is_not_searched_at_each_request_where_it_names_no_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    searched: list[object] = []
    monkeypatch.setattr("aiohttp.client.get_env_proxy_for_url", searched.append)

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(ANSWER)

    async with RawServer(script) as server:
        transport = AiohttpTransport()
        await transport.request("POST", server.url, headers={}, timeout=Timeout(), max_bytes=100)
        await transport.aclose()
    assert searched == []
