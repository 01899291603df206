"""What a hostile site can do to `http_get`, and what a model can do with it."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import re
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from aether import Aether
from aether.errors import ConfigurationError, ToolError
from aether.extensions.llm.fake import FakeProvider
from aether.extensions.tools import build_http_get
from aether.extensions.tools.http import HTTPGetter
from aether.llm.contracts import LLMResponse, ToolCall
from aether.tools import dispatch_tool
from tests.extension_tools.web_server import Server, serving

OURS = {"host", "user-agent", "accept", "accept-encoding", "connection"}
PLAIN = "200 OK\r\nContent-Type: text/plain"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


@pytest.fixture(params=["aiohttp", "httpx"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHER_HTTP", request.param)


@pytest.fixture(autouse=True)
async def no_thread_stays() -> AsyncIterator[None]:
    """The event loop looks names up in threads, which would idle until it is closed."""
    yield
    await asyncio.get_running_loop().shutdown_default_executor()


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were looked up. Each is on loopback."""
    names: list[str] = []

    async def getaddrinfo(_: object, host: str, port: int, **__: Any) -> list[tuple[Any, ...]]:
        names.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return names


def getter(*servers: Server, **options: Any) -> HTTPGetter:
    """A getter without a guard on addresses: what answers here is on loopback."""
    ports = {server.port for server in servers}
    return HTTPGetter(check_address=lambda *_: None, allowed_ports=ports, **options)


async def fetch(server: Server) -> str:
    return await getter(server).get(f"http://127.0.0.1:{server.port}/")


def endless(server: Server, head: str, begin: bytes, go_on: bytes) -> Callable[[], int]:
    """Answers `/` with a body that never ends. Returns how many bytes were written so far."""
    written = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(f"HTTP/1.1 {head}\r\n\r\n".encode() + begin)
        while not writer.is_closing():
            writer.write(go_on)
            written += len(go_on)
            await writer.drain()

    server.answers["/"] = answer
    return lambda: written


@pytest.mark.row("X6")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_body_with_a_redirect_is_not_read(server: Server, status: int) -> None:
    async def redirect(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} X\r\nLocation: /next\r\n\r\n".encode() + bytes(100_000))

    server.answers["/"] = redirect
    server.text("/next", "arrived")
    assert (await fetch(server)).endswith("arrived")
    await server.everybody_left()


@pytest.mark.row("X6")
async def test_a_loop_of_redirects_ends_after_five(server: Server) -> None:
    server.page("/", "302 Found\r\nContent-Length: 0\r\nLocation: /")
    with pytest.raises(ToolError, match="5 redirects"):
        await fetch(server)
    assert len(server.requests) == 6


@pytest.mark.row("X6", "X10")
async def test_nobody_is_sent_a_cookie_a_password_or_where_we_came_from(server: Server) -> None:
    async with serving() as other:
        server.page(
            "/",
            "302 Found\r\nContent-Length: 0\r\nSet-Cookie: a=b; Path=/\r\n"
            'WWW-Authenticate: Basic realm="x"\r\n'
            f"Location: http://127.0.0.1:{other.port}/",
        )
        other.page(
            "/",
            "302 Found\r\nContent-Length: 0\r\nSet-Cookie: c=d\r\n"
            f"Location: http://127.0.0.1:{server.port}/end",
        )
        challenge = 'WWW-Authenticate: Basic realm="x"\r\nContent-Length: 2'
        server.page("/end", f"401 Unauthorized\r\n{challenge}", b"no")
        result = await getter(server, other).get(f"http://127.0.0.1:{server.port}/")
    assert result.startswith("HTTP 401\n")
    assert len(server.requests) == 2
    for request in server.requests + other.requests:
        names = {line.partition(":")[0] for line in request.strip().split("\r\n")[1:]}
        assert names <= OURS


@pytest.mark.row("X9")
@pytest.mark.parametrize(
    ("begin", "go_on"),
    [
        (b"", gzip.compress(b"") * 3000),
        (b"\x1f\x8b\x08\x10\0\0\0\0\0\0", b"comment" * 10_000),
    ],
    ids=["empty members", "a header with a comment"],
)
async def test_a_coded_body_of_which_nothing_comes_is_not_read_for_ever(
    server: Server, begin: bytes, go_on: bytes
) -> None:
    written = endless(server, f"{PLAIN}\r\nContent-Encoding: gzip", begin, go_on)
    with pytest.raises(ToolError, match="content coding"):
        await fetch(server)
    await server.everybody_left()
    assert written() < 20_000_000


@pytest.mark.row("X9")
async def test_all_members_of_a_coded_body_are_read_up_to_the_limit(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"".join(gzip.compress(each) for each in (b"one ", b"two ", b"three"))
    server.page("/", f"{PLAIN}\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}", body)
    assert (await fetch(server)).endswith("\n\none two three")
    monkeypatch.setenv("AETHER_HTTP_TOOL_MAX_BYTES", "10")
    assert "\n\none two th\n[Truncated after 10 bytes" in await fetch(server)


@pytest.mark.row("X9")
@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "x" * 100])
async def test_a_coding_that_was_not_asked_for_is_refused(server: Server, coding: str) -> None:
    server.page("/", f"{PLAIN}\r\nContent-Encoding: {coding}\r\nContent-Length: 4", b"1234")
    with pytest.raises(ToolError, match="content coding"):
        await fetch(server)


@pytest.mark.row("X9")
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_body_that_is_not_in_the_coding_it_names_is_an_error(
    server: Server, coding: str
) -> None:
    cut = zlib.compress(b"x" * 1000)[:9] if coding == "deflate" else gzip.compress(b"x" * 1000)[:15]
    for body in (b"plain text", cut):
        head = f"{PLAIN}\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}"
        server.page("/", head, body)
        with pytest.raises(ToolError, match="http_get failed"):
            await fetch(server)


@pytest.mark.row("X9")
@pytest.mark.parametrize(
    ("head", "body", "shown"),
    [
        ("text/plain; charset=utf-8", b"caf\xe9", "caf\ufffd"),
        ("text/plain; charset=latin-1", b"caf\xe9", "café"),
        ("text/plain; charset=utf-7", b"+ADw-", "+ADw-"),
        ("text/plain; charset=unicode_escape", b"\\x41", "\\x41"),
        ("text/plain; charset=undefined", b"caf\xc3\xa9", "café"),
        ("text/plain; charset=../../x", b"x", "x"),
    ],
)
async def test_a_wrong_charset_spoils_characters_and_nothing_else(
    server: Server, head: str, body: bytes, shown: str
) -> None:
    server.page("/", f"200 OK\r\nContent-Type: {head}\r\nContent-Length: {len(body)}", body)
    assert (await fetch(server)).partition("\n\n")[2] == shown


@pytest.mark.row("X9")
@pytest.mark.parametrize("where", ["in the head", "in the body"])
async def test_a_site_that_drips_is_left_when_the_time_for_all_is_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("AETHER_HTTP_TOOL_TIMEOUT", "0.05")

    async def drip(writer: asyncio.StreamWriter) -> None:
        head = b"X: " if where == "in the head" else b"\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n" + head)
        for _ in itertools.count():
            await asyncio.sleep(0.002)
            writer.write(b"x")
            await writer.drain()

    server.answers["/"] = drip
    with pytest.raises(ToolError, match=r"0\.05 seconds|in time"):
        await fetch(server)
    await server.everybody_left()


@pytest.mark.row("X9")
@pytest.mark.parametrize("length", ["-1", "0x10", "1, 2", "9" * 30, "ten"])
async def test_a_length_that_is_none_is_an_error_or_not_believed(
    server: Server, length: str
) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {PLAIN}\r\nContent-Length: {length}\r\n\r\nhello".encode())
        writer.close()

    server.answers["/"] = answer
    with pytest.raises(ToolError, match="http_get failed"):
        await fetch(server)


@pytest.mark.row("X9")
async def test_headers_without_end_are_not_kept(server: Server) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"X-Header: " + b"x" * 1000 + b"\r\n")
            await writer.drain()

    server.answers["/"] = answer
    with pytest.raises(ToolError, match="http_get failed"):
        await fetch(server)
    await server.everybody_left()


@pytest.mark.row("X18")
class TestAllowedHosts:
    async def test_of_other_hosts_not_even_the_name_is_looked_up(
        self, server: Server, lookups: list[str]
    ) -> None:
        only = getter(server, allowed_hosts=["docs.example"])
        server.text("/", "allowed")
        assert (await only.get(f"http://docs.example:{server.port}/")).endswith("allowed")
        lookups.clear()
        for host in (
            "evil.example",
            "secret-word.evil.example",
            "www.docs.example",
            "docs.example.evil.example",
            "xdocs.example",
            "docs.example.",
            "docs.exampl",
            "docs.example@evil.example",
            "127.0.0.1",
        ):
            with pytest.raises(ToolError):
                await only.get(f"http://{host}:{server.port}/?told=secret")
        assert lookups == []
        assert server.accepted == 1

    async def test_a_redirect_to_another_host_is_refused(
        self, server: Server, lookups: list[str]
    ) -> None:
        async with serving() as evil:
            server.page(
                "/",
                "302 Found\r\nContent-Length: 0\r\n"
                f"Location: http://evil.example:{evil.port}/?told=secret",
            )
            with pytest.raises(ToolError, match="list of allowed hosts"):
                await getter(server, evil, allowed_hosts=["docs.example"]).get(
                    f"http://docs.example:{server.port}/"
                )
            assert evil.accepted == 0
        assert set(lookups) == {"docs.example"}

    async def test_an_allowed_host_is_still_no_way_to_an_inside_address(
        self, lookups: list[str]
    ) -> None:
        tool = build_http_get(allowed_hosts=["localhost", "inside.example", "127.0.0.1"])
        for host in ("localhost", "inside.example", "127.0.0.1"):
            call = ToolCall(id="1", name="http_get", arguments={"url": f"http://{host}/"})
            result = await dispatch_tool(call, tools=[tool])
            assert result.is_error
            assert "not public" in result.content

    async def test_the_model_is_told_which_hosts_it_may_fetch_from(self) -> None:
        tool = build_http_get(allowed_hosts=["docs.example", "Api.example"], name="docs")
        assert tool.name == "docs"
        assert tool.description == (
            "Fetch a page of docs.example or Api.example and return its status, content type and "
            "text. Long pages are cut, and say so."
        )
        assert "Fetch a page of no host" in build_http_get(allowed_hosts=[]).description
        assert tool.parameters["required"] == ["url"]
        assert tool.timeout is None  # it has one of its own
        assert not tool.trusted

    async def test_the_results_of_the_tool_are_those_of_http_get(self, lookups: list[str]) -> None:
        tool = build_http_get(allowed_hosts=["docs.example"])
        call = ToolCall(id="1", name="http_get", arguments={"url": "http://evil.example/"})
        result = await dispatch_tool(call, tools=[tool])
        assert (result.is_error, result.error_type, result.untrusted) == (True, "ToolError", True)
        assert "http_get refuses evil.example" in result.content

    @pytest.mark.parametrize(
        "entry",
        [
            "",
            "https://docs.example",
            "docs.example/",
            "docs.example:443",
            "*.docs.example",
            "docs.example.",
            "user@docs.example",
            "docs example",
            "bücher.example",
            "127.1",
            "docs.example?x",
            "docs.example#x",
        ],
    )
    def test_what_is_no_host_is_refused_at_once(self, entry: str) -> None:
        with pytest.raises(ConfigurationError, match=re.escape(f"{entry!r} cannot be an allowed")):
            build_http_get(allowed_hosts=[entry])

    def test_a_text_is_no_list(self) -> None:
        with pytest.raises(TypeError, match=r"\['docs.example'\]"):
            build_http_get(allowed_hosts="docs.example")

    def test_addresses_can_be_on_the_list(self) -> None:
        build_http_get(allowed_hosts=["1.1.1.1", "2606:4700:4700::1111", "[2606:4700:4700::1111]"])


@pytest.mark.row("X18")
async def test_nothing_is_fetched_because_a_text_names_it(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/?told=secret"
    said = f"![chart]({url}) <img src='{url}'> [link]({url})\n\n[1]: {url}"
    async with Aether(FakeProvider(responses=[LLMResponse(said, "m")])) as client:
        assert await client.ask(f"Look: {url}") == said
    assert server.accepted == 0
