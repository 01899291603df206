"""What Aether needs of an HTTP library: one small Protocol, `Transport`.

It must not know which library answers, nor what is sent. A transport maps every error of its
library to `aether.errors` here, once: `ProviderConnectionError` (`kind` is `dns`, `connect`, `tls`,
`reset`...), `RequestTimeoutError` (`kind` is `connect`, `read` or `total`), `ProtocolError`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from aether.registry import declare_builtins

__all__ = [
    "ERROR_BODY_MAX_BYTES",
    "ERROR_BODY_MAX_SECONDS",
    "KIND",
    "AddressCheck",
    "HTTPResponse",
    "HTTPStream",
    "Timeout",
    "Transport",
]

KIND = "http_transport"

ERROR_BODY_MAX_BYTES = 64 * 1024
ERROR_BODY_MAX_SECONDS = 2.0

AddressCheck = Callable[[str, int], None]
"""Called with the IP address and port of every connection before it is made; raises to refuse."""


@dataclass(frozen=True, slots=True)
class Timeout:
    """Limits in seconds; `None` is no limit."""

    connect: float | None = 5.0
    """Until the connection stands, TLS included."""
    read: float | None = 60.0
    """Between two pieces of the answer, and until its first byte."""
    total: float | None = None
    """For the whole request, its body included."""
    first_content: float | None = None
    """Until the first content of an answer: what only keeps the connection open is none."""
    stall: float | None = None
    """Between two pieces of content of a streamed answer. No transport knows these two: the layer
    `TimeoutProvider` watches what the adapter makes of the answer."""

    @property
    def watches_content(self) -> bool:
        """Whether there is a limit for content."""
        return self.first_content is not None or self.stall is not None


@dataclass(frozen=True, slots=True)
class HTTPResponse:
    """A whole answer. Header names are lower case; repeated ones are joined by `, `."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HTTPStream(Protocol):
    """An answer whose body is read as it comes. Header names are lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body's pieces, as they arrive, never held back, never empty. To be read once.

        A body that ends early (short of its length, without its last chunk) raises
        `ProviderConnectionError`.
        """
        ...


@runtime_checkable
class Transport(Protocol):
    """Sends requests. One transport serves many event loops, one after another or in threads.

    Redirects are never followed, cookies never kept, and statuses are not judged. Connections are
    kept for reuse, per event loop. Cancelling a call closes its connection at once.
    """

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
        """Send and read the whole answer.

        A decoded body over `max_bytes` is a `ProtocolError`. Of an answer with a status of 400 or
        more at most `ERROR_BODY_MAX_BYTES` are read, for at most `ERROR_BODY_MAX_SECONDS`; what
        has come by then is the body.
        """
        ...

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
        """Send and enter when the headers are there. Leaving early closes the connection at once.

        `Timeout.read` applies to each piece. After a body that was read to its end the connection
        is kept for reuse.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections, also those of event loops that have ended. Twice is fine."""
        ...


declare_builtins(
    KIND,
    {
        "aiohttp": "aether.extensions.http.aiohttp:AiohttpTransport",
        "httpx": "aether.extensions.http.httpx:HttpxTransport",
    },
)
