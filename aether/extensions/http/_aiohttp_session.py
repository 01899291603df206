"""What aiohttp is told once, so that it keeps the promises of the port.

It must not know a single request.
"""

from __future__ import annotations

import asyncio
import functools
import math
import select
import socket
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies_environment

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from aether.errors import ConfigurationError, RequestTimeoutError
from aether.extensions.http._wire import HEADERS, check_proxy, proxy_for
from aether.http.contracts import AddressCheck, Timeout

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

__all__ = ["Session", "abort", "limits"]

_LONGEST_HEADER = 32 * 1024


class Session:
    """aiohttp's session of one event loop; or of one request, if addresses are to be checked."""

    __slots__ = ("_proxies", "_turns", "client", "refusal")

    def __init__(
        self, check_address: AddressCheck | None = None, *, max_connections: int | None = None
    ) -> None:
        guarded = check_address is not None
        self.refusal: Exception | None = None
        """What the check raised."""
        # aiohttp's own limit would count waiting as connecting.
        self._turns = None if max_connections is None else asyncio.Semaphore(max_connections)
        self._proxies = {} if guarded else getproxies_environment()
        connector = _Connector(
            limit=0,
            force_close=guarded,
            use_dns_cache=not guarded,
            socket_factory=None if check_address is None else self._checking(check_address),
        )
        self.client = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=HEADERS,
            max_field_size=_LONGEST_HEADER,
            max_line_size=_LONGEST_HEADER,
            response_class=_AbortingResponse,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        # aiohttp would send a GET again when its connection breaks, and has no public switch for
        # it (its own test client sets this too). What is sent again is for the caller to say.
        self.client._retry_connection = False  # noqa: SLF001 - see above

    async def take_turn(self, timeout: Timeout) -> Timeout:
        """Wait, first come, first served, until a connection may be made. What is left of the
        limits then; `RequestTimeoutError` if nothing is.
        """
        if self._turns is None:
            return timeout
        if not self._turns.locked():
            await self._turns.acquire()
            return timeout
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(timeout.total):
                await self._turns.acquire()
        except TimeoutError:
            raise RequestTimeoutError(
                "All connections that there may be were in use until the time was up.",
                kind="connect",
            ) from None
        if timeout.total is None:
            return timeout
        return replace(timeout, total=timeout.total - (loop.time() - begun))

    def end_turn(self) -> None:
        """Let the next one in."""
        if self._turns is not None:
            self._turns.release()

    async def aclose(self) -> None:
        await self.client.close()

    def proxy_for(self, url: str) -> str | None:
        """The URL of the proxy that the environment names for this one."""
        proxy = proxy_for(url, self._proxies) if self._proxies else None
        if proxy is not None and not proxy.lower().startswith(("http://", "https://")):
            raise ConfigurationError(
                f"aiohttp knows no {proxy.partition('://')[0]} proxy. Set AETHER_HTTP=httpx, which "
                "knows SOCKS, or exempt this host with NO_PROXY."
            )
        if proxy is not None:
            check_proxy(proxy)
        return proxy

    def _checking(self, check_address: AddressCheck) -> Callable[[Any], socket.socket]:
        """Makes sockets to addresses that the check allows, and none once it has refused one.

        Of a name with several addresses aiohttp tries one after another, and of what went wrong
        it tells the `OSError`s alone: so the refusal is kept.
        """

        def make_socket(address: Any) -> socket.socket:
            family, kind, protocol, _, (host, port, *_) = address
            if self.refusal is None:
                try:
                    check_address(host, port)
                except Exception as error:  # noqa: BLE001 - raised below
                    self.refusal = error
            if self.refusal is not None:
                raise self.refusal
            return socket.socket(family, kind, protocol)

        return make_socket


class _Connector(aiohttp.TCPConnector):
    """Hands out no kept connection that its peer has closed.

    aiohttp knows of it when the loop has read the end, which may stand in the socket yet: servers
    that close after each answer do it at about the time of the next request. Nothing has been sent
    by then, so another connection takes its place.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used: weakref.WeakSet[ResponseHandler] = weakref.WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol not in self._used:
                if protocol is not None:
                    self._used.add(protocol)
                return connection
            if not _has_something_to_read(connection):
                return connection
            abort(connection)
            connection.close()


class _AbortingResponse(aiohttp.ClientResponse):
    """An answer whose connection breaks off when it is given up before its head has come."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        try:
            return await super().start(connection)
        except BaseException:
            abort(connection)
            raise


def abort(connection: Connection) -> None:
    """Close the connection now."""
    # Closing alone would wait until all is sent that was written; and with TLS for the peer's
    # goodbye, for up to 30 seconds (asyncio's `ssl_shutdown_timeout`).
    if connection.transport is not None:
        connection.transport.abort()


def _has_something_to_read(connection: Connection) -> bool:
    """Whether the peer has closed the connection, or has said what nobody asked for: both end it.

    Nothing is read away.
    """
    transport = connection.transport
    sock = None if transport is None else transport.get_extra_info("socket")
    number = -1 if sock is None else sock.fileno()
    if number < 0:
        return True
    if not hasattr(select, "poll"):  # on Windows, where no number is too large for `select`
        return bool(select.select([number], [], [], 0)[0])
    asked = select.poll()
    asked.register(number, select.POLLIN)
    return bool(asked.poll(0))


@functools.lru_cache(maxsize=128)
def limits(timeout: Timeout) -> aiohttp.ClientTimeout:
    """The limits in the library's own form."""

    # A limit of 0 is none to aiohttp: one that has passed must not become endless patience. And it
    # would round what is over 5 seconds up to whole ones.
    def limit(seconds: float | None) -> float | None:
        return None if seconds is None else max(seconds, 0.001)

    return aiohttp.ClientTimeout(
        total=limit(timeout.total),
        connect=limit(timeout.connect),
        sock_read=limit(timeout.read),
        ceil_threshold=math.inf,
    )
