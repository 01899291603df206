"""What aiohttp is told once, so that it keeps the promises of the port.

It must not know what becomes of an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import math
import socket
from collections.abc import Hashable
from dataclasses import replace
from typing import Any
from urllib.request import getproxies_environment

import aiohttp
from yarl import URL

from aether.errors import ConfigurationError, RequestTimeoutError
from aether.extensions.http._aiohttp_answer import Answer
from aether.extensions.http._aiohttp_idle import IdleLines
from aether.extensions.http._aiohttp_line import LONGEST_HEADER, Line, Patience, at_least
from aether.extensions.http._wire import (
    HEADERS,
    Waiting,
    check_proxy,
    check_request,
    not_requestable,
    proxy_for,
    unusable_proxy,
)
from aether.http.contracts import AddressCheck, Timeout

__all__ = ["Session", "Target", "Turns"]

_AT_ONCE = 64 * 1024
"""So much is written at once: asyncio takes it without a pause."""
_LARGE_BODY = 1024 * 1024
_TARGETS = 64
"""So many are kept. A client has a few; one whose headers change with each request, many."""


class Session:
    """aiohttp's connections of one event loop; or of one request, if addresses are to be checked.

    They are used by way of aiohttp's connector and parser. Its own session would send a GET again
    when a connection breaks; and what it does for each request (redirects, cookies, timers, a task
    for the body) costs as much as all the rest.
    """

    __slots__ = (
        "_connector",
        "_door",
        "_idle",
        "_lines",
        "_waiting",
        "closed",
        "patience",
        "target",
        "turns",
    )

    def __init__(
        self, check_address: AddressCheck | None = None, *, max_connections: int | None = None
    ) -> None:
        guarded = check_address is not None
        self._door = None if check_address is None else _Door(check_address)
        self._waiting = Waiting()
        # aiohttp's own limit would count waiting as connecting.
        self.turns = None if max_connections is None else Turns(max_connections, self._waiting)
        self._connector = aiohttp.TCPConnector(
            limit=0,
            force_close=guarded,
            use_dns_cache=not guarded,
            socket_factory=self._door,
        )
        proxies = _Proxies({} if guarded else getproxies_environment())
        make = functools.partial(Target, proxies, keeps_lines=not guarded)
        self.target = functools.lru_cache(_TARGETS)(make)
        """What a method, a URL and a tuple of headers come to."""
        loop = asyncio.get_running_loop()
        self._lines: set[Line] = set()
        self._idle = IdleLines(loop)
        self.patience = Patience(loop)
        self.closed = False

    @property
    def refusal(self) -> Exception | None:
        """What the check of addresses raised."""
        return None if self._door is None else self._door.refusal

    async def ask(
        self, target: Target, body: bytes | None, timeout: Timeout
    ) -> tuple[Answer | aiohttp.ClientResponse, Line]:
        """Send a request. The answer has begun; its body is to be read, or to be closed."""
        if not (body and len(body) <= _AT_ONCE and target.is_plain):
            return await self._ask_in_parts(target.request(body), timeout)
        line = self._idle.take(target.server) or await self._connect(target.ready, timeout)
        try:
            asked = line.ask(target.written(body))
            self.patience.begin(line, line, timeout.read)
            message, content = await asked
        except BaseException:
            line.close()
            raise
        finally:
            self.patience.end(line)
        return Answer(message, content, line, self._idle), line

    async def _ask_in_parts(
        self, request: aiohttp.ClientRequest, timeout: Timeout
    ) -> tuple[aiohttp.ClientResponse, Line]:
        """As aiohttp sends a request: the body in a task of its own."""
        line = self._idle.take(request.connection_key) or await self._connect(request, timeout)
        connection, protocol = line.connection, line.protocol
        answer: aiohttp.ClientResponse | None = None
        try:
            protocol.set_response_params(
                skip_payload=request.method == "HEAD",
                read_until_eof=True,
                auto_decompress=False,
                # aiohttp's own limit, for it begins when all is sent.
                read_timeout=None if timeout.read is None else at_least(timeout.read),
                max_line_size=LONGEST_HEADER,
                max_field_size=LONGEST_HEADER,
            )
            connection.add_callback(functools.partial(self._released, line))
            answer = await request.send(connection)
            await answer.start(connection)
            protocol.read_timeout = None  # the body is for `patience`, like others
            protocol.start_timeout()
            line.watch(answer.content)
        except BaseException:
            if answer is not None:
                answer.close()
            line.close()
            raise
        return answer, line

    def _released(self, line: Line) -> None:
        """Leave the connection to aiohttp, which keeps it; or close it now, if it is not to be."""
        line.end()
        if self._connector.force_close or line.protocol.should_close:
            line.abort()

    async def _connect(self, request: aiohttp.ClientRequest, timeout: Timeout) -> Line:
        """A new line, or one that aiohttp has kept.

        But none that its peer has closed, or on which it has gone on. aiohttp knows of the end
        when the loop has read it, which may stand in the socket yet: servers that close after each
        answer do it at about the time of the next request. And an answer that came while nobody
        had asked would be taken for that to the next request. Nothing has been sent by then, so
        another connection takes its place.
        """
        while not self.closed:
            try:
                async with self._waiting.until(None):
                    connection = await self._connector.connect(
                        request, [], _connecting(timeout.connect)
                    )
            except TimeoutError:
                raise aiohttp.ConnectionTimeoutError from None
            protocol, transport = connection.protocol, connection.transport
            if protocol is None or transport is None:
                connection.close()
                raise aiohttp.ClientConnectionError("The connection was lost.")
            line = transport.get_protocol()
            if not isinstance(line, Line):  # it was made just now
                if transport.is_closing() or protocol.should_close:  # also if the peer spoke first
                    connection.close()
                    raise aiohttp.ClientConnectionResetError("The connection was lost.")
                line = Line(request.connection_key, connection, protocol, transport, self._lines)
                transport.set_protocol(line)
                return line
            line.connection = connection
            if line.is_quiet():
                return line
            line.close()
        raise RuntimeError("The session is closed.")

    async def aclose(self) -> None:
        self.closed = True
        if self._door is not None:
            self._door.refusal = None  # it has been raised: its frames hold this, which held it
        self.patience.close()
        # First: aiohttp, once closed, cancels who looks for an address, as if of itself, and leaves
        # a connection open on which a proxy was asked for another.
        self._waiting.end()
        while self._waiting:  # noqa: ASYNC110 - for a few turns of the loop
            await asyncio.sleep(0)
        for line in list(self._lines):
            line.abort()  # aiohttp would wait until all is sent that was written
        closing = self._connector.close()  # also of idle lines, which are in use to aiohttp
        self._idle.close()
        await closing


class Turns:
    """No more connections at once than there may be, for one event loop."""

    __slots__ = ("_free", "_waiting")

    def __init__(self, connections: int, waiting: Waiting) -> None:
        self._free = asyncio.Semaphore(connections)
        self._waiting = waiting

    async def take(self, timeout: Timeout) -> Timeout:
        """Wait, first come, first served, until a connection may be made. What is left of the
        limits then; `RequestTimeoutError` if nothing is, or all is closed meanwhile.
        """
        if not self._free.locked():
            await self._free.acquire()
            return timeout
        loop = asyncio.get_running_loop()
        begun = loop.time()
        deadline = None if timeout.total is None else begun + timeout.total
        try:
            async with self._waiting.until(deadline):
                await self._free.acquire()
        except TimeoutError:
            raise RequestTimeoutError(
                "All connections that there may be were in use until the time was up.",
                kind="connect",
            ) from None
        return timeout if deadline is None else replace(timeout, total=deadline - loop.time())

    def end(self) -> None:
        """Let the next one in."""
        self._free.release()


class Target:
    """A method, a URL and headers, checked and made ready for any number of requests."""

    __slots__ = (
        "_head",
        "_headers",
        "_method",
        "_proxy",
        "_url",
        "host",
        "is_plain",
        "ready",
        "server",
    )

    def __init__(
        self,
        proxies: _Proxies,
        method: str,
        url: str,
        headers: tuple[tuple[str, str], ...],
        *,
        keeps_lines: bool,
    ) -> None:
        self.host = check_request(method, url, dict(headers))
        self._method = method
        sent = {name.lower(): (name, value) for name, value in (*HEADERS.items(), *headers)}
        self._headers = dict(sent.values())
        self._proxy = proxies.url_for(url)
        self.is_plain = keeps_lines and self._proxy is None and method.upper() != "HEAD"
        """Whether nothing speaks against writing a request at once, and reading the answer here."""
        try:
            self._url = URL(url)
            if self._url.raw_user is not None or self._url.raw_password is not None:
                user, password = self._url.user or "", self._url.password or ""
                self._headers["Authorization"] = aiohttp.encode_basic_auth(user, password, "latin1")
                self._url = self._url.with_user(None)
            self.ready = self.request(b"")
            self.server: Hashable = self.ready.connection_key
            self._head = _head(self.ready)
        except (aiohttp.InvalidURL, ValueError):
            requestable = False
        else:
            requestable = True
        if not requestable:  # outside of `except`, so that no trace of aiohttp's error is in ours
            raise not_requestable(self.host)

    def request(self, body: bytes | None) -> aiohttp.ClientRequest:
        """The request as aiohttp makes it."""
        return aiohttp.ClientRequest(
            self._method,
            self._url,
            headers=self._headers,
            # aiohttp warns of long bytes, which it writes in one go; of a file it takes parts.
            data=io.BytesIO(body) if body is not None and len(body) > _LARGE_BODY else body,
            proxy=self._proxy,
            proxy_headers=None if self._proxy is None else HEADERS,
            loop=asyncio.get_running_loop(),
        )

    def written(self, body: bytes) -> bytes:
        """The request with its body, as it is sent at once."""
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)


class _Door:
    """Makes sockets to addresses that the check allows, and none once it has refused one.

    Of a name with several addresses aiohttp tries one after another, and of what went wrong
    it tells the `OSError`s alone: so the refusal is kept.
    """

    __slots__ = ("_check_address", "refusal")

    def __init__(self, check_address: AddressCheck) -> None:
        self._check_address = check_address
        self.refusal: Exception | None = None

    def __call__(self, address: Any) -> socket.socket:
        family, kind, protocol, _, (host, port, *_) = address
        if self.refusal is None:
            try:
                self._check_address(host, port)
            except Exception as error:  # noqa: BLE001 - raised below
                self.refusal = error
        if self.refusal is not None:
            raise self.refusal
        return socket.socket(family, kind, protocol)


class _Proxies:
    """Those of the environment. They may have passwords, which no variable is to show."""

    __slots__ = ("_named",)

    def __init__(self, named: dict[str, str]) -> None:
        self._named = named

    def url_for(self, url: str) -> URL | None:
        """The one that leads to a URL, if it is not to be reached without."""
        return _proxy_for(url, self._named) if self._named else None


def _head(request: aiohttp.ClientRequest) -> bytes:
    """What stands before the length of the body."""
    lines = [f"{request.method} {request.url.raw_path_qs} HTTP/1.1"]
    lines += [
        f"{name}: {value}"
        for name, value in request.headers.items()
        if name.lower() != "content-length"
    ]
    return "\r\n".join([*lines, "Content-Length: "]).encode()


@functools.lru_cache(maxsize=128)
def _connecting(seconds: float | None) -> aiohttp.ClientTimeout:
    # aiohttp would round what is over 5 seconds up to whole ones.
    return aiohttp.ClientTimeout(
        connect=None if seconds is None else at_least(seconds), ceil_threshold=math.inf
    )


def _proxy_for(url: str, proxies: dict[str, str]) -> URL | None:
    """The URL of the proxy that the environment names for a URL."""
    proxy = proxy_for(url, proxies)
    if proxy is None:
        return None
    if not proxy.lower().startswith(("http://", "https://")):
        raise ConfigurationError(
            f"aiohttp knows no {proxy.partition('://')[0]} proxy. Set AETHER_HTTP=httpx, which "
            "knows SOCKS, or exempt this host with NO_PROXY."
        )
    check_proxy(proxy)
    with contextlib.suppress(ValueError):
        return URL(proxy)
    raise unusable_proxy()
