"""What every transport does alike: judge what is to be sent, read a body within its limits.

It must not know an HTTP library.
"""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from aether._version import __version__
from aether.errors import InputError, ProtocolError

__all__ = [
    "HEADERS",
    "check_request",
    "flatten",
    "proxy_for",
    "read_body",
]

HEADERS = {"User-Agent": f"aether/{__version__}", "Accept-Encoding": "identity"}
"""Sent where a request does not set them itself."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f\\]")  # a space and a backslash too


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


def flatten(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names in lower case, repeated ones joined."""
    flat: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        text = value if value.isascii() else _readable(value)
        flat[lower] = f"{flat[lower]}, {text}" if lower in flat else text
    return flat


async def read_body(pieces: AsyncIterator[bytes], *, max_bytes: int, host: str) -> bytes:
    """The whole body; `ProtocolError` if it is longer than `max_bytes`."""
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > max_bytes:
            raise ProtocolError(
                f"The answer of {host} is longer than {max_bytes} bytes.", kind="size"
            )
    return bytes(body)


def proxy_for(url: str, proxies: dict[str, str]) -> str | None:
    """Which of the proxies, as `urllib` has them, leads to a URL; `None` if none is to."""
    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


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
