"""What every transport does alike: judge what is to be sent, read a body within its limits.

It must not know an HTTP library.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import io
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from aether._version import __version__
from aether.errors import (
    AetherError,
    ClientClosedError,
    ConfigurationError,
    InputError,
    ProtocolError,
    ProviderConnectionError,
)

__all__ = [
    "HEADERS",
    "Waiting",
    "check_max_connections",
    "check_proxy",
    "check_request",
    "closed_meanwhile",
    "flatten",
    "given_up",
    "joined",
    "not_requestable",
    "proxy_for",
    "read_body",
    "reason_of",
    "too_long",
    "unusable_proxy",
]

HEADERS = {"User-Agent": f"aether/{__version__}", "Accept-Encoding": "identity"}
"""Sent where a request does not set them itself."""

_LARGE_PIECE = 64 * 1024

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f\\]")  # a space and a backslash too


class Waiting:
    """The waits of one loop that closing ends. The libraries close only connections that stand, and
    go on to make others, and to wait for what comes of them.
    """

    __slots__ = ("_limits",)

    def __init__(self) -> None:
        self._limits: set[asyncio.Timeout] = set()

    def __len__(self) -> int:
        return len(self._limits)

    def until(self, deadline: float | None) -> _Wait:
        """`TimeoutError` when the time is up, or at once when all is ended."""
        return _Wait(self._limits, asyncio.timeout_at(deadline))

    def end(self) -> None:
        """End every wait. Their tasks learn of it in the loop's next turn."""
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            with contextlib.suppress(RuntimeError):  # it has come just now
                limit.reschedule(now)


class _Wait:
    # No generator, which would take longer, and which a loop that is shut down closes in mid-wait.
    __slots__ = ("_limit", "_limits")

    def __init__(self, limits: set[asyncio.Timeout], limit: asyncio.Timeout) -> None:
        self._limits = limits
        self._limit = limit

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._limits.add(self._limit)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._limits.discard(self._limit)
        await self._limit.__aexit__(kind, error, traceback)


def check_max_connections(number: int | None) -> None:
    """`ConfigurationError` for what is no number of connections, nor `None`, which is no limit."""
    if number is not None and (type(number) is not int or number < 1):
        raise ConfigurationError(
            f"max_connections takes a whole number from 1, or None for no limit, not {number!r}."
        )


def check_request(method: str, url: str, headers: Mapping[str, str]) -> str:
    """Refuse what HTTP cannot say, or says otherwise than it looks, with `InputError`.

    Returns the URL's host, which is all of it that a message may tell.
    """
    if not _is_token(method):
        raise InputError("The HTTP method is not a word.")
    host, has_user = _examine(url)
    for name, value in headers.items():
        if not _is_token(name):
            raise InputError("A header has a name that HTTP does not allow.")
        if not (value.isascii() and value.replace("\t", " ").isprintable()):
            raise InputError(
                f"The header {name} has a line break, a NUL or another character in it that is "
                "not printable ASCII."
            )
        if value != value.strip():
            raise InputError(f"The header {name} begins or ends with a space.")
        if has_user and name.lower() == "authorization":
            raise InputError(
                f"The URL of {host} has a user name or password, and there is an Authorization "
                "header: take one of them away."
            )
    return host


def not_requestable(host: str) -> InputError:
    """What is said of a URL that a library refuses."""
    return InputError(f"Not a URL that can be requested: its host is {host!r}.")


def closed_meanwhile(error: Exception, host: str) -> AetherError:
    """What a library's error means when the transport was closed before the answer was whole."""
    if isinstance(error, RuntimeError):  # so the libraries refuse a request that comes too late
        return ClientClosedError("This transport was closed. Make a new one.")
    return ProviderConnectionError(
        f"The connection to {host} was closed, because its transport was, before the answer was "
        "whole.",
        kind="closed",
        retryable=False,
    )


def given_up(host: str) -> ProviderConnectionError:
    """The error of who reads on, where reading has ended before the body did."""
    return ProviderConnectionError(f"Reading the answer of {host} was given up.", kind="reset")


def flatten(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names in lower case, repeated ones joined."""
    pairs = list(headers)
    given = dict(pairs)
    flat = dict(zip(map(str.lower, given), given.values(), strict=True))
    if len(flat) == len(pairs) and "".join(flat.values()).isascii():
        return flat
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name.lower(), []).append(value)
    return {name: joined(each) for name, each in values.items()}


def joined(values: list[str]) -> str:
    """The values of one header as one."""
    text = ", ".join(values)
    return text if text.isascii() else ", ".join(map(_readable, values))


async def read_body(pieces: AsyncIterator[bytes], *, max_bytes: int, host: str) -> bytes:
    """The whole body; `ProtocolError` if it is longer than `max_bytes`."""
    body = io.BytesIO()  # which gives its bytes away without copying them
    async for piece in pieces:
        body.write(piece)
        if body.tell() > max_bytes:
            raise too_long(host, max_bytes)
        if len(piece) >= _LARGE_PIECE:  # many may be made of one that was compressed
            await asyncio.sleep(0)
    return body.getvalue()


def too_long(host: str, max_bytes: int) -> ProtocolError:
    """What is said of a body that is longer than it may be."""
    return ProtocolError(f"The answer of {host} is longer than {max_bytes} bytes.", kind="size")


def proxy_for(url: str, proxies: dict[str, str]) -> str | None:
    """Which of the proxies, as `urllib` has them, leads to a URL; `None` if none is to."""
    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def check_proxy(proxy: str) -> None:
    """`ConfigurationError` if a proxy of the environment is no address. It may have a password."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or port == 0 or _NOT_IN_URLS.search(host):
        raise unusable_proxy() from None


def unusable_proxy() -> ConfigurationError:
    """What is said of a proxy of the environment, without showing it."""
    return ConfigurationError(
        "The environment names a proxy that cannot be used. It looks like http://host:port: see "
        "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, or exempt this host with NO_PROXY."
    )


def reason_of(error: OSError) -> str:
    """Why the system made no connection, and what can be done where that is known."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            "too many files are open. Raise their limit (ulimit -n), or give the transport "
            "max_connections"
        )
    return error.strerror or type(error).__name__


@functools.lru_cache(maxsize=256)
def _is_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None


@functools.lru_cache(maxsize=256)
def _examine(url: str) -> tuple[str, bool]:
    """The host, and whether a user name or password stands before it."""
    if _NOT_IN_URLS.search(url):
        raise InputError("The URL has a space, a control character or a backslash in it.")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InputError("The URL's host or port is not valid.") from None
    if parts.scheme not in ("http", "https"):
        raise InputError("The URL does not begin with http:// or https://.")
    if not host:
        raise InputError("The URL has no host.")
    return host, "@" in parts.netloc


def _readable(value: str) -> str:
    # Bytes that are not UTF-8 come as lone surrogates, which nothing can print or store.
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
