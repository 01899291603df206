"""The default transport, on aiohttp.

It must not know what is sent. aiohttp comes with this module, which the registry imports when a
transport is first asked for by name.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp

from aether.errors import (
    AetherError,
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

__all__ = ["AiohttpTransport"]

_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})


class AiohttpTransport:
    """Requests through aiohttp: one session, with its connections, for each event loop.

    Proxies that the environment names (`HTTPS_PROXY` and so on) are used, except for requests
    with `check_address`, whose connections are never shared either.
    """

    def __init__(self) -> None:
        self._sessions = PerLoop(self._make_session, _close_session)
        self._timeouts: dict[Timeout, aiohttp.ClientTimeout] = {}

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
        async with _Exchange(self, check_address) as exchange:
            answer = await exchange.send(method, url, headers, body, timeout)
            names = flatten(answer.headers.items())
            pieces = exchange.chunks(decoder_for(names))
            if answer.status >= 400:
                content = await read_error_body(pieces)
                await pieces.aclose()
            else:
                content = await read_body(pieces, max_bytes=max_bytes, host=host_of(url))
            return HTTPResponse(answer.status, names, content)

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
    ) -> AsyncIterator[_AiohttpStream]:
        async with _Exchange(self, check_address) as exchange:
            answer = await exchange.send(method, url, headers, body, timeout)
            yield _AiohttpStream(exchange, answer.status, flatten(answer.headers.items()))

    async def aclose(self) -> None:
        await self._sessions.aclose()

    async def session(self, check_address: AddressCheck | None) -> aiohttp.ClientSession:
        """The running loop's session; one of its own for a request whose addresses are checked."""
        if check_address is None:
            return await self._sessions.get()
        return self._make_session(check_address)

    def timeout(self, timeout: Timeout) -> aiohttp.ClientTimeout:
        """The limits in the library's own form."""
        limits = self._timeouts.get(timeout)
        if limits is None:
            if len(self._timeouts) > 100:
                self._timeouts.clear()
            limits = self._timeouts[timeout] = aiohttp.ClientTimeout(
                total=timeout.total,
                connect=timeout.connect,
                sock_connect=timeout.connect,
                sock_read=timeout.read,
            )
        return limits

    def translate(self, error: Exception, url: str) -> AetherError:
        """The library's error as one of Aether's. Only the host of the URL is told.

        It is to be raised `from None`: the library's own may show the whole URL, or what was read.
        """
        host = host_of(url)
        if isinstance(error, AetherError):
            return error
        if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
            return InputError(f"Not a URL that can be requested: its host is {host!r}.")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return ProviderConnectionError(f"No address was found for {host}.", kind="dns")
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return ProviderConnectionError(
                f"The certificate of {host} was refused: {error.certificate_error}.",
                kind="tls",
                retryable=False,
            )
        if isinstance(error, aiohttp.ClientSSLError):
            return ProviderConnectionError(f"No TLS connection to {host}: {error}.", kind="tls")
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return RequestTimeoutError(f"No connection to {host} in time.", kind="connect")
        if isinstance(error, aiohttp.SocketTimeoutError):
            return RequestTimeoutError(f"{host} sent nothing for too long.", kind="read")
        if isinstance(error, TimeoutError):
            return RequestTimeoutError(f"No whole answer from {host} in time.", kind="total")
        if isinstance(error, aiohttp.ClientConnectorError):
            reason = error.os_error.strerror or type(error.os_error).__name__
            return ProviderConnectionError(f"No connection to {host}: {reason}.", kind="connect")
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return ProviderConnectionError(
                f"The proxy refused to connect to {host} (status {error.status}).", kind="connect"
            )
        if isinstance(error, aiohttp.ClientResponseError):
            return ProtocolError(f"{host} answered with something that is not HTTP.", kind="http")
        return ProviderConnectionError(
            f"The connection to {host} broke: {type(error).__name__}.", kind="reset"
        )

    def _make_session(self, check_address: AddressCheck | None = None) -> aiohttp.ClientSession:
        guarded = check_address is not None
        connector = aiohttp.TCPConnector(
            limit=0,
            force_close=guarded,
            use_dns_cache=not guarded,
            socket_factory=None if check_address is None else _checking(check_address),
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=not guarded and _proxies_are_set(),
            headers=HEADERS,
            timeout=aiohttp.ClientTimeout(total=None),
        )


class _Exchange:
    """One request and its answer. On the way out, what was not read to its end is closed."""

    __slots__ = ("_answer", "_check_address", "_refusal", "_session", "_transport", "_url")

    def __init__(self, transport: AiohttpTransport, check_address: AddressCheck | None) -> None:
        self._transport = transport
        self._check_address = check_address
        self._refusal: Exception | None = None
        self._session: aiohttp.ClientSession | None = None
        self._answer: aiohttp.ClientResponse | None = None
        self._url = ""

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: Timeout,
    ) -> aiohttp.ClientResponse:
        check_headers(headers)
        self._url = url
        check = None if self._check_address is None else self._keeping(self._check_address)
        self._session = await self._transport.session(check)
        try:
            self._answer = await self._session.request(
                method,
                url,
                headers=headers,
                data=body,
                timeout=self._transport.timeout(timeout),
                allow_redirects=False,
            )
        except Exception as error:  # noqa: BLE001 - no foreign exception leaves
            raise self._transport.translate(self._refusal or error, url) from None
        return self._answer

    def _keeping(self, check_address: AddressCheck) -> AddressCheck:
        """The check, which refuses all once it has refused one, and keeps the reason.

        Of a name with several addresses aiohttp tries one after another, and of what went wrong
        it tells the `OSError`s alone.
        """

        def check(address: str, port: int) -> None:
            if self._refusal is None:
                try:
                    check_address(address, port)
                except Exception as error:  # noqa: BLE001 - raised below
                    self._refusal = error
            if self._refusal is not None:
                raise self._refusal

        return check

    async def chunks(self, decoder: Decoder | None) -> AsyncGenerator[bytes, None]:
        """The decoded pieces of the body."""
        answer = self._answer
        if answer is None:
            return
        content = answer.content
        try:
            while data := await content.readany():
                if decoder is None:
                    yield data
                else:
                    for piece in decoder.feed(data):
                        yield piece
        except Exception as error:  # noqa: BLE001 - no foreign exception leaves
            raise self._transport.translate(error, self._url) from None
        if decoder is not None:
            decoder.finish()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._answer is not None:
            # No effect on one that was read to its end, whose connection is kept.
            self._answer.close()
        if self._check_address is not None and self._session is not None:
            await self._session.close()


class _AiohttpStream:
    __slots__ = ("_exchange", "headers", "status")

    def __init__(self, exchange: _Exchange, status: int, headers: Mapping[str, str]) -> None:
        self._exchange = exchange
        self.status = status
        self.headers = headers

    def chunks(self) -> AsyncIterator[bytes]:
        return self._exchange.chunks(decoder_for(self.headers))


async def _close_session(session: aiohttp.ClientSession) -> None:
    await session.close()


def _checking(check_address: AddressCheck) -> Any:
    def make_socket(address: Any) -> socket.socket:
        family, kind, protocol, _, (host, port, *_) = address
        check_address(host, port)
        return socket.socket(family, kind, protocol)

    return make_socket


def _proxies_are_set() -> bool:
    # Asked once for a session: aiohttp would look through the environment at every request, which
    # takes longer than all else. NO_PROXY alone names none.
    return any(name.lower() in _PROXIES for name, value in os.environ.items() if value)
