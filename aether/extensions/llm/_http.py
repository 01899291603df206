"""Requests of an adapter over a transport: URL, headers, key, JSON, streams, refusals.

It must not know a protocol's bodies, nor which HTTP library sends them.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

from pydantic_core import to_json

from aether.errors import (
    ClientClosedError,
    ConfigurationError,
    InputError,
    ProviderError,
    ToolError,
)
from aether.extensions.llm._event_stream import MAX_DOCUMENT_BYTES, EventStream
from aether.extensions.llm._wire.errors import Source, refusal
from aether.extensions.llm._wire.retry_after import parse_retry_after, parse_should_retry
from aether.http.contracts import Timeout, Transport
from aether.http.finding import TransportMaker, transport_maker
from aether.llm.wrapper import check_seconds
from aether.tools.threads import worker_threads

__all__ = ["Endpoint", "render_json"]

_imported: set[str] = set()
"""The names of the transports that were imported already, with their libraries."""

DEFAULT_TIMEOUT = Timeout(connect=5.0, read=600.0)

_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-generation-id")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_KEY = re.compile(r"[\x21-\x7e]+")
_SHORTEST_TIME = 0.001  # some transports take 0 for no limit
_SHORTEST_SECRET = 6  # a shorter key is a placeholder, and may be a part of any word

Headers = Mapping[str, str]


class Endpoint:
    """One server, with its key and the transport to it.

    `transport` is a `Transport`, which `aclose` leaves open; or a registered name, or a function
    that makes one: that transport is made for the first request and closed by `aclose`. The key is
    in no attribute, `repr` or message; it goes to this server's origin alone. `timeout` is in
    seconds, until the first and between two pieces of an answer, or a `Timeout`. `state_host` is
    what opaque state is bound to where the provider's name stands for more than one server.
    """

    def __init__(
        self,
        *,
        provider: str,
        base_url: str,
        query: str = "",
        api_key: str | None = None,
        key_header: str = "authorization",
        state_host: str | None = None,
        transport: str | Transport | Callable[[], Transport] | None = None,
        timeout: float | Timeout | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        url = _split(base_url, provider)
        self.provider = provider
        self.base_url = f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"
        self._query = url.query or query
        self._state_host = state_host
        self._headers, self._redact = _seal(api_key, key_header, provider)
        self._timeout = _limits(timeout)
        self._clock = clock
        # A class has all that a transport has, and makes one.
        is_transport = isinstance(transport, Transport) and not isinstance(transport, type)
        self._transport = cast("Transport", transport) if is_transport else None
        self._make_transport = None if self._transport else _maker(transport)
        self._lock = threading.Lock()
        self._closed = False

    def source(self, model: str) -> Source:
        """What the errors of one call to `model` carry."""
        return Source(self.provider, model, self._redact, None, self._state_host)

    async def post(
        self,
        path: str,
        body: bytes,
        headers: Headers,
        source: Source,
        on_headers: Callable[[Headers], None] | None = None,
    ) -> bytes:
        """Send JSON. The body of the answer, if its status is 200; else what that stands for.

        Sets the source's request id. `on_headers` is told those of the answer, whatever it is.
        """
        transport = self._transport
        if transport is None:
            transport = await self._open()
        try:
            answer = await transport.request(
                "POST",
                self._url(path),
                headers=self._headers(headers, "application/json"),
                body=body,
                timeout=self._timeout,
                max_bytes=MAX_DOCUMENT_BYTES,
            )
        except ProviderError as error:
            source.sign(error)
            raise
        source.request_id = _request_id(answer.headers, source)
        if on_headers is not None:
            on_headers(answer.headers)
        if answer.status != 200:
            raise _refused(answer.status, answer.headers, answer.body, source)
        return answer.body

    @contextlib.asynccontextmanager
    async def stream(
        self,
        path: str,
        body: bytes,
        headers: Headers,
        *,
        source: Source,
        on_headers: Callable[[Headers], None] | None = None,
    ) -> AsyncGenerator[EventStream, None]:
        """Send JSON, and enter when the answer has begun with status 200; else as `post`.

        Leaving early closes the connection at once. A transport's errors are signed.
        """
        transport = self._transport
        if transport is None:
            transport = await self._open()
        try:
            async with transport.stream(
                "POST",
                self._url(path),
                headers={
                    **self._headers(headers, "text/event-stream"),
                    "accept-encoding": "identity",  # a compressor may hold pieces back
                },
                body=body,
                timeout=self._timeout,
            ) as answer:
                source.request_id = _request_id(answer.headers, source)
                if on_headers is not None:
                    on_headers(answer.headers)
                events = EventStream(answer, read_seconds=self._timeout.read, clock=self._clock)
                try:
                    if answer.status != 200:
                        text = await events.read_error_body()
                        raise _refused(answer.status, answer.headers, text, source)
                    yield events
                finally:
                    await events.aclose()
        except ProviderError as error:
            source.sign(error)
            raise

    async def aclose(self) -> None:
        """Close the transport, if it was made here. Twice is fine; a request after it is not."""
        with self._lock:
            self._closed = True
            transport, self._transport = self._transport, None
        if transport is not None and self._make_transport is not None:
            await transport.aclose()

    async def _open(self) -> Transport:
        """The transport, imported and made where there is none yet."""
        maker = self._make_transport
        if isinstance(maker, TransportMaker) and maker.name not in _imported:
            # Importing an HTTP library takes some tenths of a second, in which no task would go on.
            with contextlib.suppress(ToolError):  # no thread is left: then it takes them here
                await worker_threads.run(maker.load)
            _imported.add(maker.name)
        return self._make()

    def _make(self) -> Transport:
        with self._lock:
            transport = self._transport
            if transport is None:
                if self._closed or self._make_transport is None:
                    raise ClientClosedError(f"This provider ({self.provider}) was closed.")
                transport = self._transport = self._make_transport()
            return transport

    def _url(self, path: str) -> str:
        if not self._query:
            return self.base_url + path
        return f"{self.base_url}{path}{'&' if '?' in path else '?'}{self._query}"


def render_json(body: Mapping[str, Any]) -> bytes:
    """The body of a request. `InputError` for a value that JSON cannot hold."""
    try:
        return to_json(body)
    except ValueError as error:
        raise InputError(f"The request cannot be written as JSON: {error}") from error


class _Secret(str):
    """A header's value that does not show itself where a dict of headers is printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'"


def _seal(
    api_key: str | None, key_header: str, provider: str
) -> tuple[Callable[[Headers, str], dict[str, str]], Callable[[str], str]]:
    """Two functions that alone know the key: one makes headers, one takes it out of a text."""
    if api_key is not None and not _KEY.fullmatch(api_key):
        raise ConfigurationError(
            f"The API key for {provider} has a space, a line break or a character that is not "
            "ASCII in it. Copy it again, without what surrounds it."
        )
    fixed = {"content-type": "application/json"}
    if api_key is not None:
        bearer = key_header == "authorization"
        fixed[key_header] = _Secret(f"Bearer {api_key}" if bearer else api_key)

    def headers(extra: Headers, accept: str) -> dict[str, str]:
        made = {**fixed, "accept": accept}
        for name, value in extra.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise InputError(f"The extra header {name!r} is not one that HTTP can carry.")
            made[name.lower()] = value
        return made

    if api_key is None or len(api_key) < _SHORTEST_SECRET:
        return headers, str
    secret = api_key

    def redact(text: str) -> str:
        return text.replace(secret, "[key]")

    return headers, redact


def _split(base_url: str, provider: str) -> SplitResult:
    unusable = ConfigurationError(
        f"The base URL for {provider} is not usable. It looks like https://host/path."
    )
    try:
        url = urlsplit(base_url)
        port = url.port
    except ValueError:  # its message would show the URL, which may hold a key
        raise unusable from None
    sound = base_url.isprintable() and " " not in base_url and "\\" not in base_url
    if url.scheme not in ("http", "https") or not url.hostname or port == 0 or not sound:
        raise unusable
    if url.username is not None or url.password is not None:
        raise ConfigurationError(
            f"The base URL for {provider} carries a password. Pass it as the key or a header."
        )
    return url


def _limits(timeout: float | Timeout | None) -> Timeout:
    if timeout is None:
        return DEFAULT_TIMEOUT
    if isinstance(timeout, Timeout):
        for name in ("connect", "read", "total"):
            if (seconds := getattr(timeout, name)) is not None:
                check_seconds(name, seconds, minimum=_SHORTEST_TIME)
        return timeout
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise ConfigurationError("timeout takes seconds, or a Timeout.")
    if not 0 < timeout <= sys.float_info.max:
        raise ConfigurationError("timeout takes seconds above 0.")
    return Timeout(connect=DEFAULT_TIMEOUT.connect, read=float(timeout))


def _maker(choice: object) -> Callable[[], Transport]:
    if choice is None or isinstance(choice, str):
        return transport_maker(choice)
    if not callable(choice):
        raise ConfigurationError(
            f"transport takes a registered name or a Transport, not {type(choice).__name__}."
        )
    return cast("Callable[[], Transport]", choice)


def _request_id(headers: Headers, source: Source) -> str | None:
    for name in _REQUEST_ID_HEADERS:
        if name in headers and (value := headers[name]):
            return source.redact(value)
    return None


def _refused(status: int, headers: Headers, body: bytes, source: Source) -> ProviderError:
    return refusal(
        status,
        body,
        source=source,
        retry_after=parse_retry_after(headers),
        should_retry=parse_should_retry(headers),
    )
