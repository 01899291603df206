"""The guard of `http_get` against the whole corpus, on real sockets and with an injected resolver.

A URL is asked for as it is, under a name that resolves to where it leads, and by a redirect to it.
Every attempt to connect is seen: the only one that may be made is that to the redirecting server.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import itertools
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from aether.errors import ToolError
from aether.extensions.tools._addresses import WEB_PORTS, check_public_address
from aether.extensions.tools.http import HTTPGetter
from tests.extension_tools.address_corpus import ATTACKS, NAMES_OF_PAGES, PUBLIC, url_of
from tests.extension_tools.web_server import Server, serving

SENDABLE = [
    attack
    for attack in ATTACKS
    if not {"\r", "\n"} & set(attack.url) and attack.url not in NAMES_OF_PAGES
]
"""What a header can hold, and what is no page's name where it stands in one."""
EVERYWHERE = pytest.mark.parametrize("transport", ["aiohttp", "httpx"], indirect=True)


class World:
    """One server that is reached, and an internet that is only looked at."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.open_ports = {server.port}
        self.resolves_to: list[str] = []
        self.looked_up: list[str] = []
        self.attempts: list[tuple[str, int]] = []
        """Connections that somebody began to make, that to the server left out."""
        self.let_through: list[str] = []
        """Addresses that the guard had nothing against."""
        self.getter = HTTPGetter(check_address=self._check, allowed_ports=WEB_PORTS | {server.port})

    def _check(self, address: str, port: int) -> None:
        if port != self.server.port:
            check_public_address(address, port)
            self.let_through.append(address)

    async def refuses(self, url: str) -> None:
        with pytest.raises(ToolError):
            await self.getter.get(url)

    def redirects_to(self, location: str) -> str:
        """The address of a page that redirects."""
        path = f"/{len(self.server.answers)}"
        self.server.page(path, f"302 Found\r\nContent-Length: 0\r\nLocation: {location}")
        return f"http://127.0.0.1:{self.server.port}{path}"


@pytest.fixture
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHER_HTTP", request.param)
    # Nothing is encrypted in most of these tests, and reading the system's certificates takes
    # longer than all the rest of a request.
    make = functools.cache(httpx2.create_ssl_context)
    monkeypatch.setattr(httpx2, "create_ssl_context", make)


@pytest.fixture
async def world(loopback_only: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with serving() as server:
        made = World(server)
        connect = socket.socket.connect

        def attempt(self: socket.socket, address: Any) -> None:
            if address[1] in made.open_ports:
                return connect(self, address)
            if self.family in (socket.AF_INET, socket.AF_INET6):
                made.attempts.append(address[:2])
            raise ConnectionRefusedError

        async def getaddrinfo(_: object, host: Any, port: int, **__: Any) -> list[tuple[Any, ...]]:
            if is_address(host):
                found = [host]
            else:
                made.looked_up.append(host)
                found = made.resolves_to
            return [
                (family(address), socket.SOCK_STREAM, 6, "", sockaddr(address, port))
                for address in found
            ]

        monkeypatch.setattr(socket.socket, "connect", attempt)
        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
        yield made


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def sockaddr(address: str, port: int) -> tuple[Any, ...]:
    return (address, port, 0, 0) if ":" in address else (address, port)


def has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_the_corpus_has_three_hundred_urls_and_a_hundred_public_addresses() -> None:
    assert len({attack.url for attack in ATTACKS}) == len(ATTACKS)
    assert len(SENDABLE) >= 300
    assert len(set(PUBLIC)) == len(PUBLIC) >= 100


@EVERYWHERE
@pytest.mark.row("X1", "X2", "X3", "X4", "X7", "X8")
async def test_nothing_of_the_corpus_is_connected_to_by_its_url(
    transport: None, world: World
) -> None:
    for attack in ATTACKS:
        world.resolves_to = [attack.reaches]
        await world.refuses(attack.url)
    assert (world.attempts, world.let_through, world.server.accepted) == ([], [], 0)


@EVERYWHERE
@pytest.mark.row("X1", "X2", "X4", "X5", "X7", "X8")
async def test_nothing_of_the_corpus_is_connected_to_by_a_name_that_resolves_to_it(
    transport: None, world: World
) -> None:
    for attack in ATTACKS:
        world.resolves_to = [attack.reaches]
        await world.refuses(attack.by_name)
    assert (world.attempts, world.let_through, world.server.accepted) == ([], [], 0)
    assert len(world.looked_up) > 150


@EVERYWHERE
@pytest.mark.row("X1", "X2", "X3", "X4", "X6", "X7", "X8")
async def test_nothing_of_the_corpus_is_connected_to_by_a_redirect(
    transport: None, world: World
) -> None:
    for attack in SENDABLE:
        world.resolves_to = [attack.reaches]
        await world.refuses(world.redirects_to(attack.url))
    assert (world.attempts, world.let_through) == ([], [])
    assert world.server.accepted == len(world.server.requests) == len(SENDABLE)


@EVERYWHERE
@pytest.mark.row("X1", "X2", "X8")
@pytest.mark.parametrize("way", ["by its address", "by a name", "by a redirect"])
async def test_every_public_address_is_connected_to(
    transport: None, world: World, way: str
) -> None:
    public = PUBLIC if has_ipv6() else [address for address in PUBLIC if ":" not in address]
    for address in public:
        world.resolves_to = [address]
        url = "http://public.example/" if way == "by a name" else url_of(address)
        with pytest.raises(ToolError, match="http_get failed: No connection"):
            await world.getter.get(world.redirects_to(url) if way == "by a redirect" else url)
    assert world.attempts == [(address, 80) for address in public]
    assert world.let_through == [each for address in public for each in (address, address)]


@EVERYWHERE
@pytest.mark.row("X5")
async def test_a_name_is_refused_if_any_one_of_its_addresses_is_not_public(
    transport: None, world: World
) -> None:
    public = ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111"]
    for inside in ("10.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254", "64:ff9b::7f00:1"):
        for addresses in itertools.permutations([*public, inside]):
            world.resolves_to = list(addresses)
            await world.refuses("https://mixed.example/")
    assert world.attempts == []


@EVERYWHERE
@pytest.mark.row("X5", "X8")
@pytest.mark.parametrize("answers_before", [1, 3])
async def test_a_name_whose_answer_changes_is_judged_again_before_it_is_connected_to(
    transport: None, world: World, monkeypatch: pytest.MonkeyPatch, answers_before: int
) -> None:
    lookup = asyncio.BaseEventLoop.getaddrinfo
    later: list[str] = []

    async def getaddrinfo(*args: Any, **options: Any) -> Any:
        first = len(world.looked_up) < answers_before
        world.resolves_to = ["1.1.1.1"] if first else later
        return await lookup(*args, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    for inside in (["127.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["10.0.0.1", "1.1.1.1"], ["::1"]):
        later[:] = inside
        world.looked_up.clear()
        for _ in range(4):  # from the second on, a name that was good a moment ago
            await world.refuses("http://rebinding.example/")
    assert {address for address, _ in world.attempts} <= {"1.1.1.1"}
    assert set(world.let_through) <= {"1.1.1.1"}


@EVERYWHERE
@pytest.mark.row("X5")
async def test_a_name_is_resolved_for_its_address_alone_and_stays_the_name_of_the_site(
    transport: None, world: World
) -> None:
    world.resolves_to = ["127.0.0.1"]
    world.server.text("/", "found")
    result = await world.getter.get(f"http://name.example:{world.server.port}/")
    assert result.endswith("found")
    assert f"\r\nhost: name.example:{world.server.port}\r\n" in world.server.requests[0]


@EVERYWHERE
@pytest.mark.row("X5")
async def test_tls_is_told_the_name_of_the_site_and_not_its_address(
    transport: None, world: World
) -> None:
    hellos: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hellos.append(await reader.read(4096))
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        world.resolves_to = ["127.0.0.1"]
        world.open_ports.add(port)
        with pytest.raises(ToolError, match="http_get failed"):
            await HTTPGetter(check_address=lambda *_: None, allowed_ports={port}).get(
                f"https://name.example:{port}/"
            )
    assert b"name.example" in hellos[0]
    assert b"127.0.0.1" not in hellos[0]
