"""The tool that reads the public web, and nothing that is not public.

It must not know which HTTP library sends: the transport comes from the registry, by name. What a
URL may look like is for `_urls`, which addresses are public for `_addresses`.

Every hop of a redirect is judged anew: the URL, then all addresses that its name resolves to,
then, by the transport and right before each connection is made, the one address that it is made
to. The last of these holds even if the name has changed its answer in between.
"""

from __future__ import annotations

import asyncio
import codecs
import re
import socket
from collections.abc import Callable, Collection

from aether import config
from aether.errors import ConfigurationError, InputError, ProviderError, ToolError
from aether.extensions.tools._addresses import WEB_PORTS, check_public_address
from aether.extensions.tools._urls import WebURL, parse_web_url
from aether.http.contracts import AddressCheck, HTTPStream, Timeout, Transport
from aether.http.finding import transport_maker
from aether.tools.contracts import Tool
from aether.tools.registry import register_tool
from aether.tools.schema import build_tool

__all__ = ["HTTPGetter", "build_http_get", "http_get"]

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {
    "user-agent": "Aether",
    "accept": "text/*, application/json, */*;q=0.5",
    "accept-encoding": "identity",
}

_MEDIA_TYPE = re.compile(r"[\w.+-]{1,80}/[\w.+-]{1,80}", re.ASCII)
_TEXT_TYPE = re.compile(
    r"text/.+|.+[+/](json|xml|yaml|toml|javascript|ecmascript|graphql|sql|x-sh|x-yaml|x-ndjson"
    r"|x-www-form-urlencoded|x-javascript)",
)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE)
# Python has codecs that are no character sets (unicode_escape, idna) and imports a codec by the
# name it is asked for; only what the web uses is looked up.
_WEB_CHARSET = re.compile(
    r"utf-?8|utf-?16(le|be)?|utf-16-?(le|be)|us-ascii|ascii|iso-?8859-?\d{1,2}|latin-?1"
    r"|windows-125[0-8]|cp125[0-8]|koi8-[ru]|gb2312|gbk|gb18030|big5|euc-(jp|kr)"
    r"|shift[-_]jis|iso-2022-(jp|kr)|macintosh",
)


def _registered_transport() -> Transport:
    return transport_maker()()


class HTTPGetter:
    """Fetches pages of the public web as text; `http_get` is the one with the default rules.

    With `allowed_hosts` only these hosts are fetched from, redirects included: exact names, so
    `example.com` does not open `www.example.com`. Their addresses must be public all the same. Of
    any other host not even the name is looked up. `ConfigurationError` for what is no host.

    `check_address` judges every address before it is connected to, `allowed_ports` the ports of
    URLs. Each call makes a `transport`, and closes it before it returns, fails or is cancelled.
    """

    def __init__(
        self,
        *,
        allowed_hosts: Collection[str] | None = None,
        allowed_ports: Collection[int] = WEB_PORTS,
        check_address: AddressCheck = check_public_address,
        transport: Callable[[], Transport] = _registered_transport,
    ) -> None:
        self._allowed_hosts = None if allowed_hosts is None else _hosts(allowed_hosts)
        self._allowed_ports = frozenset(allowed_ports)
        self._check_address = check_address
        self._transport = transport

    async def get(self, url: str) -> str:
        """Fetch `url`: its status, final URL and content type, then its body as text.

        Raises `ToolError` if the URL or a redirect is refused, if there is no whole answer within
        `AETHER_HTTP_TOOL_TIMEOUT` seconds (all hops together), or if the connection fails. A
        status such as 404 is an answer. A body over `AETHER_HTTP_TOOL_MAX_BYTES` is cut, which
        the last line says; one that is not text is described.
        """
        seconds = config.http_tool_timeout()
        try:
            async with asyncio.timeout(seconds):
                return await self._follow(url, Timeout(seconds, seconds, seconds))
        except (ProviderError, InputError) as error:
            raise ToolError(f"http_get failed: {error}") from error
        except TimeoutError:
            raise ToolError(f"http_get got no whole answer within {seconds:g} seconds.") from None

    async def _follow(self, url: str, timeout: Timeout) -> str:
        target = await self._judged(url)
        transport = self._transport()
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                async with transport.stream(
                    "GET",
                    target.text,
                    headers=_HEADERS,
                    timeout=timeout,
                    check_address=self._check_address,
                ) as answer:
                    location = answer.headers.get("location")
                    if answer.status not in _REDIRECTS or not location:
                        return await _render(answer, target, config.http_tool_max_bytes())
                target = await self._judged(location, base=target.text)
        finally:
            await transport.aclose()
        raise ToolError(f"http_get gave up after {_MAX_REDIRECTS} redirects.")

    async def _judged(self, text: str, *, base: str | None = None) -> WebURL:
        url = parse_web_url(text, base=base)
        if url.port not in self._allowed_ports:
            raise ToolError(f"http_get refuses {url.host}: port {url.port} is not allowed.")
        if self._allowed_hosts is not None and url.host not in self._allowed_hosts:
            raise ToolError(f"http_get refuses {url.host}: it is not on the list of allowed hosts.")
        # All answers count, not only the one that would be connected to: a name with a public and
        # a private address is no public site.
        addresses = [url.host] if url.is_address else await _resolve(url.host, url.port)
        for address in addresses:
            try:
                self._check_address(address, url.port)
            except ToolError as error:
                raise ToolError(f"http_get refuses {url.host}. {error}") from None
        return url


def _hosts(names: Collection[str]) -> frozenset[str]:
    if isinstance(names, str):
        raise TypeError(f"allowed_hosts is a list of hosts; for one, write [{names!r}]")
    hosts = set()
    for name in names:
        host = name.lower().strip("[]")
        try:
            url = parse_web_url(f"https://[{host}]/" if ":" in host else f"https://{host}/")
        except ToolError:
            url = None
        if url is None or url.host != host:
            raise ConfigurationError(
                f"{name!r} cannot be an allowed host: give its exact name, such as "
                "'docs.python.org', without a scheme, port, path or wildcard."
            )
        hosts.add(host)
    return frozenset(hosts)


async def _resolve(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ToolError(f"http_get finds no address for {host}: {error.strerror}.") from error
    return [str(sockaddr[0]) for *_, sockaddr in answers]


async def _render(answer: HTTPStream, url: WebURL, limit: int) -> str:
    content_type = answer.headers.get("content-type", "")
    match = _MEDIA_TYPE.match(content_type.strip())
    media_type = match[0].lower() if match else "unknown"
    head = f"HTTP {answer.status}\nURL: {url.text}\nContent-Type: {media_type}\n\n"
    if match and not _TEXT_TYPE.fullmatch(media_type):
        return head + _not_text(answer)
    body, truncated = await _read(answer, limit)
    charset = _charset(content_type)
    if b"\0" in body and not charset.startswith("utf-16"):
        return head + _not_text(answer)
    text = codecs.getincrementaldecoder(charset)("replace").decode(body, not truncated)
    encoded = text.removeprefix("\ufeff").encode()
    if truncated or len(encoded) > limit:
        shown = encoded[:limit].decode(errors="ignore")
        return f"{head}{shown}\n[Truncated after {limit} bytes: the body goes on.]"
    return head + encoded.decode()


async def _read(answer: HTTPStream, limit: int) -> tuple[bytes, bool]:
    """The body's beginning, and whether there is more of it."""
    body = bytearray()
    chunks = answer.chunks()
    try:
        async for chunk in chunks:
            body += chunk
            if len(body) > limit:
                return bytes(body[:limit]), True
    finally:
        close = getattr(chunks, "aclose", None)  # an async generator left early has one
        if close is not None:
            await close()
    return bytes(body), False


def _charset(content_type: str) -> str:
    match = _CHARSET.search(content_type)
    if match and _WEB_CHARSET.fullmatch(match[1].lower()):
        try:
            return codecs.lookup(match[1]).name
        except LookupError:
            pass
    return "utf-8"


def _not_text(answer: HTTPStream) -> str:
    length = answer.headers.get("content-length", "")
    size = f"{length} bytes" if length.isdecimal() else "of unknown length"
    return f"[The body is not text, {size}: it is not shown.]"


_public_web = HTTPGetter()


@register_tool(timeout=None)  # it has a limit of its own, AETHER_HTTP_TOOL_TIMEOUT
async def http_get(url: str) -> str:
    """Fetch a page of the public web and return its status, content type and text.

    Addresses that are not public are refused. Long pages are cut, and say so.

    Args:
        url: The address of the page, beginning with http:// or https://.
    """
    return await _public_web.get(url)


def build_http_get(*, allowed_hosts: Collection[str], name: str = "http_get") -> Tool:
    """A tool like `http_get` that fetches from these hosts alone, redirects included.

    Who makes a model fetch a URL of his choice can have it write into that URL what it has read:
    with a list, nobody but these hosts gets it. The names are exact, as `HTTPGetter` says; the
    model is told them.
    """
    getter = HTTPGetter(allowed_hosts=allowed_hosts)

    async def fetch(url: str) -> str:
        """Fetch a page.

        Args:
            url: The address of the page, beginning with http:// or https://.
        """
        return await getter.get(url)

    return build_tool(
        fetch,
        name=name,
        description=f"Fetch a page of {' or '.join(allowed_hosts) or 'no host'} and return its "
        "status, content type and text. Long pages are cut, and say so.",
        timeout=None,
    )
