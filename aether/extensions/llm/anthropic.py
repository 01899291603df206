"""Anthropic, and any one server that speaks its Messages API at a base URL of its own.

It must not know the other adapters.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from urllib.parse import urlsplit

from aether import config
from aether.errors import ConfigurationError
from aether.extensions.llm._exchange import Exchange
from aether.extensions.llm._http import Endpoint
from aether.extensions.llm._wire.anthropic import PROVIDER, MessagesCodec
from aether.extensions.llm._wire.host_state import host_of
from aether.http.contracts import Timeout, Transport
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk

__all__ = ["AnthropicProvider"]

_BASE_URL = "https://api.anthropic.com"
_DEFAULT_MODEL = "claude-haiku-5-5"


class AnthropicProvider:
    """Anthropic's Messages API.

    `api_key` is needed on Anthropic's own host, and comes there from `ANTHROPIC_API_KEY`, else from
    `ANTHROPIC_AUTH_TOKEN`, if it is not given. It goes out as a bearer token, as the vendor's SDKs
    send it since October 2026. `base_url` is without the version, as in `https://host`; a `/v1` at
    its end is left out. `transport` is a registered name (from `AETHER_HTTP`
    if it is not given), which `aclose` closes, or a `Transport`, which it does not. `timeout` is in
    seconds, until the first and between two pieces of an answer (default 600), or a `Timeout`.

    Beta features are asked for with the request's `extra_headers` (`anthropic-beta`) and
    `extra_body`.
    """

    def __init__(
        self,
        api_key: str | None = None,
        default_model: str | None = None,
        *,
        base_url: str | None = None,
        transport: str | Transport | Callable[[], Transport] | None = None,
        timeout: float | Timeout | None = None,
    ) -> None:
        base_url = _without_version(base_url) if base_url else _BASE_URL
        host = host_of(base_url)
        state_host = host if host != host_of(_BASE_URL) else None
        if state_host is None:
            api_key = (
                api_key
                or config.environment("ANTHROPIC_API_KEY")
                or config.environment("ANTHROPIC_AUTH_TOKEN")
            )
            if not api_key:
                raise ConfigurationError(
                    "Anthropic needs an API key. Set ANTHROPIC_API_KEY or pass api_key=; or try "
                    "without a key: LLM_PROVIDER=local."
                )
        self.default_model = default_model or _DEFAULT_MODEL
        endpoint = Endpoint(
            provider=PROVIDER,
            base_url=base_url,
            api_key=api_key or None,
            state_host=state_host,
            transport=transport,
            timeout=timeout,
        )
        self.base_url = endpoint.base_url
        self._exchange = Exchange(
            endpoint, MessagesCodec(state_host=state_host), self.default_model
        )

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        """One answer; one request, unless the server pauses in between. Cancelling it closes the
        connection at once.
        """
        return await self._exchange.complete(request)

    def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        """One answer in pieces. Closing the iterator closes the connection at once."""
        return self._exchange.stream(request)

    async def aclose(self) -> None:
        """Close the connections that were opened here. Twice is fine."""
        await self._exchange.aclose()

    def __repr__(self) -> str:
        return (
            f"AnthropicProvider(default_model={self.default_model!r}, base_url={self.base_url!r})"
        )


def _without_version(url: str) -> str:
    """Without the end that every path begins with, which would otherwise stand there twice."""
    try:
        parts = urlsplit(url)
    except ValueError:  # the endpoint says what is wrong with it
        return url
    path = parts.path.rstrip("/").removesuffix("/messages").removesuffix("/v1")
    return parts._replace(path=path).geturl()
