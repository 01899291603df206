"""The default transport, on aiohttp.

It must not know what is sent. aiohttp comes with this module, which the registry imports when a
transport is first asked for by name.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType, TracebackType
from typing import Self

import aiohttp
from aiohttp.http import HttpProcessingError

from aether.errors import (
    AetherError,
    ProtocolError,
    ProviderConnectionError,
    RequestTimeoutError,
)
from aether.extensions.http._aiohttp_answer import Answer, Headers
from aether.extensions.http._aiohttp_line import Line, at_least
from aether.extensions.http._aiohttp_session import Session, Target, Turns
from aether.extensions.http._decoding import decoded
from aether.extensions.http._per_loop import PerLoop, close_all
from aether.extensions.http._wire import (
    check_max_connections,
    closed_meanwhile,
    given_up,
    not_requestable,
    read_body,
    reason_of,
    too_long,
)
from aether.http.bodies import read_error_body
from aether.http.contracts import AddressCheck, HTTPResponse, HTTPStream, Timeout

__all__ = ["AiohttpTransport"]


class AiohttpTransport:
    """Requests through aiohttp: one session, with its connections, for each event loop.

    Proxies that the environment names when a loop's first request is made (`HTTPS_PROXY` and so
    on) are used, except for requests with `check_address`, whose connections are never shared
    either.

    `max_connections`, for each event loop, is for those whose files or whose server are limited:
    further requests wait for their turn, as long as their total limit allows. By default there is
    no such limit.
    """

    def __init__(self, *, max_connections: int | None = None) -> None:
        check_max_connections(max_connections)
        make = functools.partial(Session, max_connections=max_connections)
        self._sessions = PerLoop(make, Session.aclose)
        close = functools.partial(close_all, Session.aclose)
        self._guarded: PerLoop[set[Session]] = PerLoop(set, close)

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
        exchange = _Exchange(
            self._sessions, self._guarded, method, url, headers, body, timeout, check_address
        )
        await exchange.begin()
        try:
            content: bytes | None
            if exchange.status >= 400:
                content = await read_error_body(exchange.chunks())
            elif (content := exchange.whole_body()) is None:
                pieces = exchange.chunks()
                content = await read_body(pieces, max_bytes=max_bytes, host=exchange.host)
            elif len(content) > max_bytes:
                raise too_long(exchange.host, max_bytes)
            return HTTPResponse(exchange.status, exchange.headers, content)
        finally:
            exchange.end()
            await exchange.aclose()

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
        return _Exchange(
            self._sessions, self._guarded, method, url, headers, body, timeout, check_address
        )

    async def aclose(self) -> None:
        try:
            await self._sessions.aclose()
        finally:
            await self._guarded.aclose()


class _Exchange(AbstractAsyncContextManager[HTTPStream]):
    """One request and its answer. On the way out, what was not read to its end is closed.

    It is its own iterator over the body: nothing is left to close when a reader stops.
    """

    host = ""
    status = 0
    headers: Mapping[str, str] = MappingProxyType({})
    _answer: Answer | aiohttp.ClientResponse
    _line: Line
    _beside: set[Session]
    """Where that of one request is kept, to be closed with the others."""
    _broken: AetherError | None = None
    _turns: Turns | None = None
    """Those of which it has taken one."""
    _until: float | None = None

    def __init__(
        self,
        sessions: PerLoop[Session],
        guarded: PerLoop[set[Session]],
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: Timeout,
        check_address: AddressCheck | None,
    ) -> None:
        self._sessions = sessions
        self._guarded = guarded
        self._request = method, url, headers
        self._body = body
        self._timeout = timeout
        self._check_address = check_address

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
        await self.aclose()

    async def begin(self) -> None:
        """Send the request, until its answer has begun. If that fails, nothing is left to close."""
        if self._check_address is None:
            self._session = session = self._sessions.made() or await self._sessions.get()
        else:
            self._sessions.check_open()
            self._beside = await self._guarded.get()
            self._session = session = Session(self._check_address)
            self._beside.add(session)
        try:
            target = self._target(session)
            self.host = target.host
            if session.turns is None and self._timeout.total is None:
                asked = session.ask(target, self._body, self._timeout)
            else:
                asked = self._ask_in_time(target, self._timeout)
            self._answer, self._line = await asked
        except Exception as error:  # noqa: BLE001 - raised below, as one of ours
            failure = session.refusal or self._translate(error)
        except BaseException:
            await self._leave()
            raise
        else:
            self.status = self._answer.status
            self.headers = Headers(self._answer.headers)
            return
        await self._leave()
        # Outside of `except`, so that no trace of aiohttp's error, which has the request's headers
        # in it, hangs on to ours.
        try:
            raise failure
        finally:
            del failure  # which would hold this frame, and be held by it

    def end(self) -> None:
        """Let go of the answer: its connection is closed, if it was not read to its end."""
        if self._answer.connection is not None:  # or the request was not sent whole
            self._line.abort()
            self._answer.close()
        if self._broken is not None:  # it has been raised: its frames hold this, which held it
            self._broken = given_up(self.host)
        if self._turns is not None:
            self._turns.end()

    async def aclose(self) -> None:
        """Close what is of this request alone."""
        if self._check_address is not None:
            self._beside.discard(self._session)
            await self._session.aclose()

    def whole_body(self) -> bytes | None:
        """The body, if all of it has come, and as it is: most answers come so, with their head."""
        content = self._answer.content
        coded = "content-encoding" in self._answer.headers
        if coded or not content.is_eof() or content.exception() is not None:
            return None
        return content.read_nowait()

    def chunks(self) -> AsyncIterator[bytes]:
        return decoded(self, self.headers)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._broken is not None:
            raise self._broken
        content = self._answer.content
        try:
            piece = content.read_nowait() if content.is_eof() else await self._next(content)
        except Exception as error:  # noqa: BLE001 - raised below, as one of ours
            self._broken = self._translate(error)
            piece = _left_over(content)
        if piece:
            return piece
        if self._broken is not None:
            raise self._broken
        raise StopAsyncIteration

    async def _next(self, content: aiohttp.StreamReader) -> bytes:
        if self._until is not None and self._until <= asyncio.get_running_loop().time():
            raise TimeoutError  # which is met below in a wait alone: what has come takes none
        patience = self._session.patience
        patience.begin(content, self._line, self._timeout.read)
        try:
            if self._until is None:
                return await content.readany()
            async with asyncio.timeout_at(self._until):
                return await content.readany()
        finally:
            patience.end(content)

    def _target(self, session: Session) -> Target:
        # Where an error comes from, no frame is to hold the headers, which others may print.
        method, url, headers = self._request
        return session.target(method, url, tuple(headers.items()))

    async def _ask_in_time(
        self, target: Target, timeout: Timeout
    ) -> tuple[Answer | aiohttp.ClientResponse, Line]:
        session = self._session
        if session.turns is not None:
            timeout = await session.turns.take(timeout)
            self._turns = session.turns
        if timeout.total is not None:
            self._until = asyncio.get_running_loop().time() + at_least(timeout.total)
        async with asyncio.timeout_at(self._until):
            return await session.ask(target, self._body, timeout)

    async def _leave(self) -> None:
        """As `end` and `aclose`, where no answer has begun."""
        if self._turns is not None:
            self._turns.end()
        await self.aclose()

    def _translate(self, error: Exception) -> AetherError:
        if isinstance(error, AetherError) and not self._session.closed:  # which ends a turn's wait
            return error
        # Their frames hold what was waited for, and that the error: until garbage is collected.
        error.__traceback__ = error.__cause__ = None
        if self._session.closed:
            return closed_meanwhile(error, self.host)
        return _translate(error, self.host)


def _translate(error: Exception, host: str) -> AetherError:
    """The library's error as one of Aether's. Only the host of the URL is told."""
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
        place = host
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            place = f"the proxy for {host}"
        return ProviderConnectionError(
            f"No connection to {place}: {reason_of(error.os_error)}.", kind="connect"
        )
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ProviderConnectionError(
            f"The proxy refused to connect to {host} (status {error.status}).", kind="connect"
        )
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return ProtocolError(f"{host} answered with something that is not HTTP.", kind="http")
    # Last, for a certificate's error is a ValueError too.
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError | ValueError):
        return not_requestable(host)
    return ProviderConnectionError(
        f"The connection to {host} broke: {type(error).__name__}.", kind="reset"
    )


def _left_over(content: aiohttp.StreamReader) -> bytes:
    """What had come when the connection broke: aiohttp hands it out no more."""
    content.set_exception(None)  # type: ignore[arg-type]  # there is no other public way
    return content.read_nowait()
