"""URLs as `http_get` takes them: one strict parser, and no URL that another would read otherwise.

It must not know which addresses are public, nor fetch anything.

`urllib.parse` splits, rules here refuse whatever parsers are known to disagree about, and `text`
is put together anew from the parts that were judged, so that the library which sends the request
is left with nothing to interpret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote, urljoin, urlsplit

from aether.errors import ToolError

__all__ = ["WebURL", "parse_web_url"]

_MAX_LENGTH = 8000
_PORTS = {"http": 80, "https": 443}

_AUTHORITY = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_.-]+))(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
"""A last label which makes `inet_aton` and browsers read the whole host as an IPv4 address."""

_NOT_IN_URL = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~:/?@!$&'()*+,;=%]")


@dataclass(frozen=True, slots=True)
class WebURL:
    """A URL that was judged. `text` is its one spelling, without a fragment."""

    text: str
    host: str
    """In lower case; an IPv6 address without its brackets."""
    port: int
    is_address: bool
    """Whether `host` is an IP address and not a name."""


def parse_web_url(text: str, *, base: str | None = None) -> WebURL:
    """Judge a URL, or a reference relative to `base`; `ToolError` says what is wrong with it.

    The path and query may hold any printable character (what needs escaping is escaped as UTF-8);
    a host that is not ASCII is to be given in its `xn--` form.
    """
    if len(text) > _MAX_LENGTH:
        raise _refused(f"it is longer than {_MAX_LENGTH} characters")
    if " " in text or not text.isprintable():
        raise _refused("it has a space or an invisible character in it; write those as %20 etc.")
    if "\\" in text:
        raise _refused("it has a backslash in it")
    if text.startswith("///"):
        raise _refused("browsers and libraries disagree about a URL that begins with ///")
    try:
        parts = urlsplit(text)
        if base is not None and not parts.scheme:
            parts = urlsplit(urljoin(base, text))
    except ValueError as error:
        raise _refused(f"it cannot be read ({error})") from None
    if parts.scheme not in _PORTS:
        raise _refused("it must begin with http:// or https://")
    host, port, is_address = _parse_authority(parts.netloc, _PORTS[parts.scheme])
    if "@" in text and not parts.path:
        raise _refused("parsers disagree about an @ that has no / between it and the host")
    authority = f"[{host}]" if ":" in host else host
    if port != _PORTS[parts.scheme]:
        authority += f":{port}"
    path = _escape(parts.path) or "/"
    query = f"?{_escape(parts.query)}" if parts.query else ""
    return WebURL(f"{parts.scheme}://{authority}{path}{query}", host, port, is_address)


def _parse_authority(netloc: str, default_port: int) -> tuple[str, int, bool]:
    if "@" in netloc:
        raise _refused("it has a user name or password in it")
    if not netloc.isascii():
        raise _refused("its host is not plain ASCII; give the host in its xn-- form")
    match = _AUTHORITY.fullmatch(netloc)
    if match is None:
        raise _refused("its host or port is missing or malformed")
    port = int(match["port"]) if match["port"] else default_port
    if match["v6"]:
        try:
            address = IPv6Address(match["v6"])
        except ValueError:
            raise _refused("its host is no IPv6 address") from None
        # As RFC 5952, section 5 has it written; `str` does so only on Python 3.13 and newer.
        mapped = address.ipv4_mapped
        return str(address) if mapped is None else f"::ffff:{mapped}", port, True
    host = match["name"].lower()
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            return str(IPv4Address(host)), port, True
        except ValueError:
            raise _refused(
                "its host is an odd spelling of an IP address; write four decimal numbers"
            ) from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise _refused("its host is no domain name (nor may it end with a dot)")
    return host, port, False


def _escape(text: str) -> str:
    return _NOT_IN_URL.sub(lambda match: quote(match[0]), text)


def _refused(reason: str) -> ToolError:
    return ToolError(f"http_get refuses this URL: {reason}.")
