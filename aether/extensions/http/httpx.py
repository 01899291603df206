"""A transport on httpx2: for a client of one's own, HTTP/2, SOCKS or its mock transports.

It must not know what is sent. httpx2 is an extra, imported when the first transport is made.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from aether._optional import require
from aether.errors import (
    AetherError,
    ClientClosedError,
    InputError,
    ProtocolError,
    ProviderConnectionError,
    RequestTimeoutError,
)
from aether.extensions.http._decoding import Decoder, decoder_for
from aether.extensions.http._per_loop import PerLoop
from aether.extensions.http._wire import (
    HEADERS,
    check_headers,
    flatten,
    host_of,
    read_body,
)
from aether.http.bodies import read_error_body
from aether.http.contracts import AddressCheck, HTTPResponse, Timeout

if TYPE_CHECKING:
    import httpx2

__all__ = ["HttpxTransport"]

_CUT_OFF = ("disconnected", "peer closed")


class HttpxTransport:
    """Requests through httpx2: one client, with its connections, for each event loop.

    A client of your own (`client=`) is used as it is, in the loop that it belongs to, and is left
    open; it is not used for requests with `check_address`, whose connections are never shared.
    """

    def __init__(self, client: httpx2.AsyncClient | None = None) -> None:
        self._httpx: Any = require("httpx2", extra="httpx")
        self._own = client
        self._closed = False
        self._clients: PerLoop[httpx2.AsyncClient] = PerLoop(self._make_client, _close_client)

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
        host = host_of(url)
        try:
            async with (
                asyncio.timeout(timeout.total),
                self._send(method, url, headers, body, timeout, check_address) as answer,
            ):
                pieces = answer.chunks()
                if answer.status >= 400:
                    content = await read_error_body(pieces)
                    await pieces.aclose()
                else:
                    content = await read_body(pieces, max_bytes=max_bytes, host=host)
                return HTTPResponse(answer.status, answer.headers, content)
        except TimeoutError as error:
            raise self._translate(error, host) from None

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: Timeout,
        check_address: AddressCheck | None = None,
    ) -> AsyncIterator[_HttpxStream]:
        deadline = asyncio.timeout(timeout.total)
        try:
            async with (
                deadline,
                self._send(method, url, headers, body, timeout, check_address) as answer,
            ):
                yield answer
        except TimeoutError as error:
            if not deadline.expired():  # the reader's own
                raise
            raise self._translate(error, host_of(url)) from None

    async def aclose(self) -> None:
        self._closed = True
        await self._clients.aclose()

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: Timeout,
        check_address: AddressCheck | None,
    ) -> AsyncIterator[_HttpxStream]:
        check_headers(headers)
        if self._closed:
            raise ClientClosedError("This transport was closed. Make a new one.")
        client = await self._client(check_address)
        answer: httpx2.Response | None = None
        host = host_of(url)
        try:
            try:
                request = client.build_request(
                    method, url, headers=headers, content=body, timeout=self._limits(timeout)
                )
                if check_address is not None:
                    await _pin(request, check_address)
                answer = await client.send(request, stream=True, follow_redirects=False)
            except Exception as error:  # noqa: BLE001 - no foreign exception leaves
                raise self._translate(error, host) from None
            yield _HttpxStream(self, answer, host)
        finally:
            if answer is not None:
                await answer.aclose()
            if check_address is not None:
                await client.aclose()

    async def _client(self, check_address: AddressCheck | None) -> httpx2.AsyncClient:
        if check_address is not None:
            return self._make_client(trust_env=False)
        return self._own or await self._clients.get()

    def _make_client(self, *, trust_env: bool = True) -> httpx2.AsyncClient:
        client: httpx2.AsyncClient = self._httpx.AsyncClient(
            headers=HEADERS,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            limits=self._httpx.Limits(max_connections=None, max_keepalive_connections=None),
            trust_env=trust_env,
        )
        return client

    def _limits(self, timeout: Timeout) -> httpx2.Timeout:
        limits: httpx2.Timeout = self._httpx.Timeout(
            connect=timeout.connect, read=timeout.read, write=timeout.read, pool=timeout.connect
        )
        return limits

    def _translate(self, error: BaseException, host: str) -> AetherError:
        """The library's error as one of Aether's. Only the host of the URL is told.

        It is to be raised `from None`: the library's own shows the whole URL, or what was read.
        """
        library = self._httpx
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

    async def pieces(
        self, answer: httpx2.Response, decoder: Decoder | None, host: str
    ) -> AsyncGenerator[bytes, None]:
        """The decoded pieces of a body."""
        try:
            async for data in answer.aiter_raw():
                if decoder is None:
                    yield data
                else:
                    for piece in decoder.feed(data):
                        yield piece
        except Exception as error:  # noqa: BLE001 - no foreign exception leaves
            raise self._translate(error, host) from None
        if decoder is not None:
            decoder.finish()


class _HttpxStream:
    __slots__ = ("_answer", "_host", "_transport", "headers", "status")

    def __init__(self, transport: HttpxTransport, answer: httpx2.Response, host: str) -> None:
        self._transport = transport
        self._answer = answer
        self._host = host
        self.status = answer.status_code
        self.headers: Mapping[str, str] = flatten(answer.headers.multi_items())

    def chunks(self) -> AsyncGenerator[bytes, None]:
        return self._transport.pieces(self._answer, decoder_for(self.headers), self._host)


async def _close_client(client: httpx2.AsyncClient) -> None:
    await client.aclose()


async def _pin(request: httpx2.Request, check_address: AddressCheck) -> None:
    """Have the request sent to an address that was checked, under the name that it asks for."""
    host = request.url.host
    port = request.url.port or (443 if request.url.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(sockaddr[0]) for *_, sockaddr in answers]
    for address in addresses:
        check_address(address, port)
    # The Host header was set from the name already, and TLS is told it in its own place.
    request.url = request.url.copy_with(host=addresses[0])
    request.extensions = {**request.extensions, "sni_hostname": host}


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
    return ProviderConnectionError(f"No connection to {host}.", kind="connect")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
