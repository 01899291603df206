"""A transport on httpx2: for a client of one's own, HTTP/2, SOCKS or its mock transports.

It must not know what is sent. httpx2 is an extra, imported with this module where there is one;
else the first transport that is made says how to install it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import os
import socket
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
)
from contextlib import AbstractAsyncContextManager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.request import getproxies_environment
from weakref import WeakKeyDictionary, WeakMethod

from aether._optional import require
from aether.errors import (
    AetherError,
    ConfigurationError,
    InputError,
    ProtocolError,
    ProviderConnectionError,
    RequestTimeoutError,
)
from aether.extensions.http._decoding import decoded
from aether.extensions.http._per_loop import PerLoop, close_all
from aether.extensions.http._wire import (
    HEADERS,
    Waiting,
    check_max_connections,
    check_proxy,
    check_request,
    closed_meanwhile,
    flatten,
    given_up,
    proxy_for,
    read_body,
    reason_of,
    unusable_proxy,
)
from aether.http.bodies import read_error_body
from aether.http.contracts import AddressCheck, HTTPResponse, HTTPStream, Timeout

if TYPE_CHECKING:
    import httpx2
else:
    with contextlib.suppress(ImportError):  # told when a transport is made
        importlib.import_module("httpx2")

__all__ = ["HttpxTransport"]

_CUT_OFF = ("disconnected", "peer closed")
_PIECES = 128
"""So many pieces are read at most before the rest of the loop has its turn. httpx2 hands out each
chunk of the chunked coding on its own: thousands of tiny ones may have come at once."""
_PORTS = {"http": 80, "https": 443}


class HttpxTransport:
    """Requests through httpx2: one client, with its connections, for each event loop.

    A client of your own (`client=`) is used as it is, its cookies included, in the loop that it
    belongs to, and is left open; it is not used for requests with `check_address`, whose
    connections are never shared.

    `max_connections`, for each event loop, is for those whose files or whose server are limited:
    further requests wait for their turn, as long as their total limit allows. By default there is
    no such limit; a client of your own has its own.
    """

    def __init__(
        self, client: httpx2.AsyncClient | None = None, *, max_connections: int | None = None
    ) -> None:
        _library()
        check_max_connections(max_connections)
        self._own = client
        make = functools.partial(_make_client, max_connections=max_connections)
        self._clients: PerLoop[httpx2.AsyncClient] = PerLoop(make, _close_client)
        close = functools.partial(close_all, _close_client)
        self._guarded: PerLoop[set[httpx2.AsyncClient]] = PerLoop(set, close)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: Timeout,
        max_bytes: int,
        check_address: AddressCheck | None = None,
    ) -> HTTPResponse:
        exchange = self._exchange(method, url, headers, body, timeout, check_address)
        async with exchange:
            pieces = exchange.chunks()
            if exchange.status >= 400:
                content = await read_error_body(pieces)
            else:
                content = await read_body(pieces, max_bytes=max_bytes, host=exchange.host)
            return HTTPResponse(exchange.status, exchange.headers, content)

    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: Timeout,
        check_address: AddressCheck | None = None,
    ) -> AbstractAsyncContextManager[HTTPStream]:
        return self._exchange(method, url, headers, body, timeout, check_address)

    async def aclose(self) -> None:
        try:
            await self._clients.aclose()
        finally:
            await self._guarded.aclose()

    def _exchange(self, *asked: Any) -> _Exchange:
        return _Exchange(self._own, self._clients, self._guarded, *asked)

    @staticmethod
    def _prepare() -> None:
        """Read certificates, and import a part of httpx2 that comes with them: in any thread, and
        not when the first client is made, in its loop.
        """
        with contextlib.suppress(Exception):  # raised again, and told, where they are needed
            _certificates()


class _Exchange(AbstractAsyncContextManager[HTTPStream]):
    """One request and its answer. On the way out, what was not read to its end is closed.

    The total limit is held at each wait of its own, not while the reader works; and whichever
    task it is that reads.
    """

    def __init__(
        self,
        own: httpx2.AsyncClient | None,
        clients: PerLoop[httpx2.AsyncClient],
        guarded: PerLoop[set[httpx2.AsyncClient]],
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: Timeout,
        check_address: AddressCheck | None,
    ) -> None:
        self._own = own
        self._clients = clients
        self._guarded = guarded
        self._request = method, url, headers, body
        self._timeout = timeout
        self._check_address = check_address
        self._deadline: float | None = None
        self._refusal: Exception | None = None
        self._broken: AetherError | None = None
        self._read = 0
        self.host = ""
        self.status = 0
        self.headers: Mapping[str, str] = {}

    async def __aenter__(self) -> Self:
        method, url, headers, _ = self._request
        self.host = check_request(method, url, headers)
        self._clients.check_open()
        if self._timeout.total is not None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout.total
        self._client = await self._choose_client()
        failure: Exception | None = None
        try:
            async with _waiting_of(self._client).until(self._deadline):
                self._answer = await self._send()
        except Exception as error:  # noqa: BLE001 - raised below, as one of ours
            failure = self._refusal or self._translate(error)
            self._refusal = None
        except BaseException:
            await self._close_client()
            raise
        if failure is not None:
            await self._close_client()
            # Outside of `except`, so that no trace of httpx2's error, which has the request's
            # headers in it, hangs on to ours.
            try:
                raise failure
            finally:
                del failure  # which would hold this frame, and be held by it
        self.status = self._answer.status_code
        self.headers = flatten(self._answer.headers.multi_items())
        was_read = self._answer.is_stream_consumed
        self._coded_as = {} if was_read else self.headers
        self._pieces = _content(self._answer) if was_read else self._answer.aiter_raw()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._broken is not None:  # it has been raised: its frames hold this, which held it
            self._broken = given_up(self.host)
        try:
            await self._pieces.aclose()
            await self._answer.aclose()
        finally:
            await self._close_client()

    def chunks(self) -> AsyncIterator[bytes]:
        return decoded(self, self._coded_as)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._broken is not None:
            raise self._broken
        try:
            async with asyncio.timeout_at(self._deadline):
                self._read += 1
                if self._read % _PIECES == 0:
                    await asyncio.sleep(0)
                while not (piece := await anext(self._pieces)):
                    pass
            return piece
        except StopAsyncIteration:
            raise
        except Exception as error:  # noqa: BLE001 - raised below, as one of ours
            self._broken = self._translate(error)
        except BaseException:
            # httpx2 has closed the answer by now, and would call the next read the body's end.
            self._broken = given_up(self.host)
            raise
        raise self._broken

    async def _choose_client(self) -> httpx2.AsyncClient:
        if self._check_address is not None:
            self._beside = await self._guarded.get()
            client = _make_client(trust_env=False)
            self._beside.add(client)
            return client
        return self._own or await self._clients.get()

    async def _close_client(self) -> None:
        if self._check_address is not None:
            self._beside.discard(self._client)
            await self._client.aclose()

    async def _send(self) -> httpx2.Response:
        method, url, headers, body = self._request
        request = self._client.build_request(
            method, url, headers=headers, content=body, timeout=_limits(self._timeout)
        )
        if self._check_address is None:
            return await self._client.send(request, stream=True, follow_redirects=False)
        name = request.url
        addresses = await self._find_addresses(name, self._check_address)
        # The Host header was set from the name already, and TLS is told it in its own place.
        request.extensions["sni_hostname"] = name.raw_host.decode("ascii")
        while True:
            request.url = name.copy_with(host=addresses.pop(0))
            try:
                return await self._client.send(request, stream=True, follow_redirects=False)
            except (_library().ConnectError, _library().ConnectTimeout):
                if not addresses:
                    raise

    async def _find_addresses(self, url: httpx2.URL, check_address: AddressCheck) -> list[str]:
        """The addresses of the URL's host, after all of them have passed the check."""
        host, port = url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout.connect):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise RequestTimeoutError(f"No address of {host} in time.", kind="connect") from None
        addresses = [str(address[0]) for *_, address in found]
        try:
            for address in addresses:
                check_address(address, port)
        except Exception as refusal:
            self._refusal = refusal
            raise
        return addresses

    def _translate(self, error: Exception) -> AetherError:
        if self._client.is_closed and not isinstance(error, AetherError):
            return closed_meanwhile(error, self.host)
        return _translate(error, self.host)


def _translate(error: Exception, host: str) -> AetherError:
    """The library's error as one of Aether's. Only the host of the URL is told."""
    library = _library()
    if isinstance(error, AetherError):
        return error
    if isinstance(error, library.InvalidURL | library.UnsupportedProtocol | ValueError):
        return InputError(f"Not a URL that can be requested: its host is {host!r}.")
    if isinstance(error, library.ConnectTimeout | library.PoolTimeout):
        return RequestTimeoutError(f"No connection to {host} in time.", kind="connect")
    if isinstance(error, library.TimeoutException):
        return RequestTimeoutError(f"{host} sent nothing for too long.", kind="read")
    if isinstance(error, TimeoutError):
        return RequestTimeoutError(f"No whole answer from {host} in time.", kind="total")
    if isinstance(error, library.ConnectError | library.ProxyError | socket.gaierror):
        return _not_connected(error, host)
    if isinstance(error, library.LocalProtocolError):
        return InputError("The request has a header that HTTP does not allow.")
    if isinstance(error, library.RemoteProtocolError) and not any(
        sign in str(error) for sign in _CUT_OFF
    ):
        return ProtocolError(f"{host} answered with something that is not HTTP.", kind="http")
    return ProviderConnectionError(
        f"The connection to {host} broke: {type(error).__name__}.", kind="reset"
    )


def _library() -> Any:
    return require("httpx2", extra="httpx")


def _make_client(
    *, trust_env: bool = True, max_connections: int | None = None
) -> httpx2.AsyncClient:
    library = _library()
    make: Callable[..., httpx2.AsyncClient] = functools.partial(
        library.AsyncClient,
        headers=HEADERS,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        limits=library.Limits(max_connections=max_connections, max_keepalive_connections=None),
        verify=_certificates(),
    )
    proxies = getproxies_environment() if trust_env else {}
    try:
        for scheme, proxy in proxies.items():
            if scheme in ("http", "https", "all"):
                check_proxy(proxy)
        # For its proxies: the certificates that the environment names hold in any case.
        client = make(trust_env=trust_env)
    except (ConfigurationError, ValueError):
        client = make(trust_env=False, event_hooks=_without(proxies, unusable_proxy))
    except ImportError:
        client = make(trust_env=False, event_hooks=_without(proxies, _no_socks))
    # Private, and a test watches them: there is no public way to the pools of a client.
    for transport in (
        getattr(client, "_transport", None),
        *getattr(client, "_mounts", {}).values(),
    ):
        pool: Any = getattr(transport, "_pool", None)
        close = getattr(pool, "_close_connections", None)
        if close is not None:
            # Weakly: a pool that held its own method would be left to the garbage collector.
            pool._close_connections = functools.partial(_close_all, WeakMethod(close))  # noqa: SLF001 - see above
        backend = getattr(pool, "_network_backend", None)
        if backend is not None:
            pool._network_backend = _Network(backend)  # noqa: SLF001 - see above
    return client


class _Network:
    """As httpx2 has it, but a connection whose handshake is cancelled is closed, not left open."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    async def connect_tcp(self, *args: Any, **options: Any) -> _Stream:
        return _Stream(await self._network.connect_tcp(*args, **options))


class _Stream:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.read = stream.read
        self.write = stream.write
        self.aclose = stream.aclose
        self.get_extra_info = stream.get_extra_info

    async def start_tls(self, *args: Any, **options: Any) -> _Stream:
        try:
            return _Stream(await self._stream.start_tls(*args, **options))
        except BaseException:
            await self.aclose()
            raise


def _without(
    proxies: dict[str, str], refusal: Callable[[], ConfigurationError]
) -> dict[str, list[Callable[[httpx2.Request], Awaitable[None]]]]:
    """What lets a client without proxies send only what is to go through none of them."""

    async def refuse(request: httpx2.Request) -> None:
        if proxy_for(str(request.url), proxies) is not None:
            raise refusal()

    return {"request": [refuse]}


def _no_socks() -> ConfigurationError:
    return ConfigurationError(
        "The environment names a SOCKS proxy, and the package that httpx2 needs for one is not "
        "installed. Install it with: pip install socksio. Or exempt this host with NO_PROXY."
    )


async def _close_all(close: Callable[[], Any], connections: list[Any]) -> None:
    """Close kept connections that have expired, even if who happens to do it is cancelled.

    The pool has forgotten them by then: the rest of them would stay open.
    """
    if connections:
        closing = asyncio.ensure_future(close()(connections))
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
        await asyncio.shield(closing)


_closing: set[asyncio.Future[None]] = set()


def _certificates() -> ssl.SSLContext:
    return _tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.lru_cache(maxsize=4)
def _tls(*_: str | None) -> ssl.SSLContext:
    """How certificates are checked. Reading those that are trusted takes some 20 ms, which no loop
    should wait for again: so it is kept for each place that the environment names.
    """
    context: ssl.SSLContext = _library().create_ssl_context()
    return context


_waiting: WeakKeyDictionary[httpx2.AsyncClient, Waiting] = WeakKeyDictionary()
"""Requests whose answers have not begun."""


def _waiting_of(client: httpx2.AsyncClient) -> Waiting:
    return _waiting.setdefault(client, Waiting())


async def _close_client(client: httpx2.AsyncClient) -> None:
    _waiting_of(client).end()
    await client.aclose()


async def _content(answer: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """The body of an answer that was read, and decoded, already: a mock's, or by a user's hook."""
    yield answer.content


def _limits(timeout: Timeout) -> httpx2.Timeout:
    # Who waits for one of a limited number of connections is held by the total limit alone.
    limits: httpx2.Timeout = _library().Timeout(
        connect=timeout.connect, read=timeout.read, write=timeout.read, pool=None
    )
    return limits


def _not_connected(error: BaseException, host: str) -> ProviderConnectionError:
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return ProviderConnectionError(f"No address was found for {host}.", kind="dns")
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ProviderConnectionError(
                f"The certificate of {host} was refused: {cause.verify_message}.",
                kind="tls",
                retryable=False,
            )
        if isinstance(cause, ssl.SSLError):
            return ProviderConnectionError(
                f"No TLS connection to {host}: {cause.reason}.", kind="tls"
            )
        if isinstance(cause, OSError) and cause.errno is not None:
            return ProviderConnectionError(
                f"No connection to {host}: {reason_of(cause)}.", kind="connect"
            )
    return ProviderConnectionError(f"No connection to {host}.", kind="connect")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
