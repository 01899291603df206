"""Well-known servers that speak OpenAI's protocol, each a row of `_vendors`.

It must not know the other adapters.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from urllib.parse import urlsplit

from aether.config import environment
from aether.errors import ConfigurationError, UnknownNameError
from aether.extensions.llm._exchange import Exchange
from aether.extensions.llm._http import Endpoint
from aether.extensions.llm._vendors import VENDORS, Vendor
from aether.extensions.llm._wire.host_state import host_of
from aether.extensions.llm._wire.openai_chat import ChatCodec
from aether.http.contracts import Timeout, Transport
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk

__all__ = ["OpenAICompatibleProvider"]


class OpenAICompatibleProvider:
    """A named server, such as `vendor="groq"`, over Chat Completions.

    `api_key` is needed at the addresses of the cloud ones, and comes from `<NAME>_API_KEY` there
    if it is not given; at another `base_url`, and for local servers, it is not. Of the server's own
    address, `base_url` may leave out the path. A server without a default model wants one with each
    call, or here. `transport` and `timeout` are as those of `OpenAIProvider`.
    """

    def __init__(
        self,
        api_key: str | None = None,
        default_model: str | None = None,
        *,
        vendor: str,
        base_url: str | None = None,
        transport: str | Transport | Callable[[], Transport] | None = None,
        timeout: float | Timeout | None = None,
    ) -> None:
        row = _row(vendor)
        prefix = row.name.upper()
        if base_url is None and row.base_url is None:
            raise ConfigurationError(
                f"{row.name} has no common address. Set {prefix}_BASE_URL or pass base_url=."
            )
        base_url = _completed(base_url, row.base_url)
        host = host_of(base_url)
        if row.base_url is None or host != host_of(row.base_url):
            row = replace(row, state_host=host)
        if row.key_required and (row.base_url is None or _is_at(base_url, row.base_url)):
            api_key = api_key or environment(f"{prefix}_API_KEY")
            if not api_key:
                raise ConfigurationError(
                    f"{row.name} needs an API key. Set {prefix}_API_KEY or pass api_key=; or try "
                    "without a key: LLM_PROVIDER=local."
                )
        self.default_model = default_model or row.default_model
        endpoint = Endpoint(
            provider=row.name,
            base_url=base_url,
            query=row.query,
            api_key=api_key or None,
            key_header=row.key_header,
            state_host=row.state_host,
            transport=transport,
            timeout=timeout,
        )
        self.vendor = row.name
        self.base_url = endpoint.base_url
        self._exchange = Exchange(endpoint, ChatCodec(row), self.default_model)

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        """One request, one answer. Cancelling it closes the connection at once."""
        return await self._exchange.complete(request)

    def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        """One request, its answer in pieces. Closing the iterator closes the connection at once."""
        return self._exchange.stream(request)

    async def aclose(self) -> None:
        """Close the connections that were opened here. Twice is fine."""
        await self._exchange.aclose()

    def __repr__(self) -> str:
        return (
            f"OpenAICompatibleProvider(vendor={self.vendor!r}, "
            f"default_model={self.default_model!r}, base_url={self.base_url!r})"
        )


def _is_at(url: str, own: str) -> bool:
    """Whether it is an address of the same server."""
    try:
        given, known = urlsplit(url), urlsplit(own)
    except ValueError:  # the endpoint says what is wrong with it
        return False
    return (given.scheme, given.netloc.lower()) == (known.scheme, known.netloc)


def _completed(url: str | None, own: str | None) -> str:
    """The URL with the path that the server's own has, where it is that without a path."""
    if not url or own is None:
        return url or own or ""
    if not _is_at(url, own) or urlsplit(url).path not in ("", "/"):
        return url
    return urlsplit(url)._replace(path=urlsplit(own).path).geturl()


def _row(vendor: str) -> Vendor:
    row = VENDORS.get(vendor)
    if row is None:
        close = difflib.get_close_matches(vendor, VENDORS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UnknownNameError(
            f"Unknown vendor {vendor!r}.{hint} Known: {', '.join(sorted(VENDORS))}. For any other "
            "server use OpenAIProvider(base_url=...)."
        )
    return row
