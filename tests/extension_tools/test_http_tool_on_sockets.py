# ruff: noqa: RUF001, SIM905 - tables of words, some with look-alike characters on purpose
from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from aether.errors import ToolError
from aether.extensions.tools._addresses import check_public_address
from aether.extensions.tools.http import HTTPGetter
from tests.extension_tools.web_server import Server, serving

LOOPBACK_SPELLINGS = """
    127.0.0.1 127.0.0.2 127.1 127.0.1 0 0.0.0.0 2130706433 0x7f000001 0x7f.1 0x7f.0.0.1 0177.0.0.1
    017700000001 127.0.0.01 127.0.0.1. localhost LOCALHOST localhost. [::1] [::] [0:0:0:0:0:0:0:1]
    [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [::ffff:0:127.0.0.1] [64:ff9b::127.0.0.1]
    [2002:7f00:1::] [::1%25lo] [::1%lo] 127。0。0。1 127．0．0．1 １２７.0.0.1 ①②⑦.⓪.⓪.① ⓛⓞⓒⓐⓛⓗⓞⓢⓣ
    user@127.0.0.1 example.com@127.0.0.1 127.0.0.1\\@example.com %31%32%37.0.0.1 127.0.0.1%00
""".split()
ODD_CHARACTERS = [
    "127.0.0.1\0",
    "127.0.0.1\0.example.com",
    "127.0.0.1 ",
    " 127.0.0.1",
    "127.0.0.1\t",
]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


@pytest.fixture(autouse=True)
async def no_thread_stays() -> AsyncIterator[None]:
    """The event loop looks names up in threads, which would idle until it is closed."""
    yield
    await asyncio.get_running_loop().shutdown_default_executor()


@pytest.fixture(params=["aiohttp", "httpx"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AETHER_HTTP", request.param)
    return str(request.param)


def anywhere(address: str, port: int) -> None:
    """No guard: the tests below that need an answer get one from loopback."""


def public_on_any_port(address: str, port: int) -> None:
    check_public_address(address, 443)


def getter(server: Server, check: Callable[[str, int], None] = anywhere) -> HTTPGetter:
    return HTTPGetter(check_address=check, allowed_ports={server.port})


async def fetch(server: Server, path: str = "/") -> str:
    return await getter(server).get(f"http://127.0.0.1:{server.port}{path}")


async def test_a_page_is_fetched(server: Server) -> None:
    server.text("/a?b=%20c", "hello")
    result = await fetch(server, "/a?b=%20c#d")
    assert result.endswith("\n\nhello")
    assert server.accepted == 1
    assert server.requests[0].startswith("get /a?b=%20c http/1.1\r\n")
    assert f"\r\nhost: 127.0.0.1:{server.port}\r\n" in server.requests[0]


async def test_no_connection_is_left_behind(server: Server) -> None:
    server.text("/", "hello")
    await fetch(server)
    await server.everybody_left()


@pytest.mark.row("X1", "X2", "X3", "X8")
@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS + ODD_CHARACTERS)
async def test_no_spelling_of_this_machine_is_connected_to(server: Server, host: str) -> None:
    server.text("/", "reached")
    with pytest.raises(ToolError):
        await getter(server, public_on_any_port).get(f"http://{host}:{server.port}/")
    assert server.accepted == 0


@pytest.mark.row("X5", "X8")
@pytest.mark.parametrize(
    "then",
    [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["::1", "127.0.0.1"], ["127.0.0.1", "1.1.1.1"]],
)
async def test_a_name_that_changes_its_answer_is_not_connected_to(
    server: Server, monkeypatch: pytest.MonkeyPatch, then: list[str]
) -> None:
    asked: list[str] = []

    def getaddrinfo(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        asked.append(str(host))
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, server.port, 0, 0) if ":" in address else (address, server.port),
            )
            for address in (["93.184.216.34"] if len(asked) == 1 else then)
        ]

    let_through: list[str] = []

    def check(address: str, port: int) -> None:
        public_on_any_port(address, port)
        let_through.append(address)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    server.text("/", "reached")
    with pytest.raises(ToolError, match="not public"):
        await getter(server, check).get(f"http://rebinding.example:{server.port}/")
    assert server.accepted == 0
    assert let_through == ["93.184.216.34"]
    assert len(asked) == 2


@pytest.mark.row("X6", "X8")
async def test_a_redirect_to_a_private_address_is_not_connected_to(server: Server) -> None:
    async with serving() as inside:
        inside.text("/", "reached")
        server.page("/", f"302 Found\r\nLocation: http://127.0.0.1:{inside.port}/")

        def only_outside(address: str, port: int) -> None:
            if port != server.port:
                check_public_address(address, 443)

        ports = {server.port, inside.port}
        with pytest.raises(ToolError, match="not public"):
            await HTTPGetter(check_address=only_outside, allowed_ports=ports).get(
                f"http://127.0.0.1:{server.port}/"
            )
        assert inside.accepted == 0
        assert server.accepted == 1


@pytest.mark.row("X6")
async def test_a_redirect_carries_nothing_over(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password hunter2", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.page("/", "302 Found\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\nLocation: /next")
    server.text("/next", "arrived")
    assert (await fetch(server)).endswith("arrived")
    assert len(server.requests) == 2
    for request in server.requests:
        assert "cookie" not in request
        assert "authorization" not in request
        assert "referer" not in request


@pytest.mark.row("X10")
async def test_a_proxy_of_the_environment_is_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.text("/", "direct")
    async with serving() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert (await fetch(server)).endswith("direct")
        assert proxy.accepted == 0


@pytest.mark.row("X9")
async def test_an_endless_body_is_cut_and_its_connection_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AETHER_HTTP_TOOL_MAX_BYTES", "1000")

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 1000)
            await writer.drain()

    server.answers["/"] = endless
    result = await fetch(server)
    assert result.partition("\n\n")[2].startswith("x" * 1000 + "\n[Truncated after 1000 bytes")
    await server.everybody_left()


@pytest.mark.row("X9")
async def test_a_body_shorter_than_it_says_is_an_error(server: Server) -> None:
    async def short(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")
        writer.close()

    server.answers["/"] = short
    with pytest.raises(ToolError, match="http_get failed"):
        await fetch(server)


@pytest.mark.row("X9")
@pytest.mark.parametrize("silent", ["before the headers", "in the headers", "in the body"])
async def test_a_silent_server_is_left_after_the_time_limit(
    server: Server, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    monkeypatch.setenv("AETHER_HTTP_TOOL_TIMEOUT", "0.02")
    sent = {
        "before the headers": b"",
        "in the headers": b"HTTP/1.1 200 OK\r\nX-",
        "in the body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
    }

    async def begin(writer: asyncio.StreamWriter) -> None:
        writer.write(sent[silent])

    server.answers["/"] = begin
    with pytest.raises(ToolError):
        await fetch(server)
    await server.everybody_left()


@pytest.mark.row("X9")
async def test_a_bomb_is_not_unpacked_beyond_the_limit(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AETHER_HTTP_TOOL_MAX_BYTES", "1000")
    packed = gzip.compress(b"x" * 50_000_000, compresslevel=1)
    server.page(
        "/",
        "200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\n"
        f"Content-Length: {len(packed)}",
        packed,
    )
    try:
        result = await fetch(server)
    except ToolError:
        return
    assert len(result) < 1500


async def test_a_refused_connection_is_a_tool_error(server: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(ToolError, match="http_get failed"):
        await HTTPGetter(check_address=anywhere, allowed_ports={port}).get(
            f"http://127.0.0.1:{port}/"
        )


async def test_a_name_that_is_no_valid_unicode_name_is_looked_up_all_the_same(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    server.text("/", "found")
    for host in ("xn--a.example", "xn--zz.example", "a--b.example", "_a.example"):
        result = await getter(server).get(f"http://{host}:{server.port}/")
        assert result.endswith("found")
