"""OpenAI, and any one server that speaks its protocol at a base URL of its own.

It must not know the other adapters. Of OpenAI's two protocols it speaks Chat Completions.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Literal
from urllib.parse import urlsplit

from aether import config
from aether.errors import ConfigurationError
from aether.extensions.llm._exchange import Exchange
from aether.extensions.llm._http import Endpoint
from aether.extensions.llm._vendors import OPENAI, Vendor
from aether.extensions.llm._wire.openai_chat import ChatCodec
from aether.http.contracts import Timeout, Transport
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk

__all__ = ["OpenAIProvider"]


class OpenAIProvider:
    """OpenAI over Chat Completions.

    `api_key` is needed on OpenAI's own host, and comes from `OPENAI_API_KEY` there if it is not
    given. `base_url` includes the version, as in `http://localhost:8000/v1`. `api` is `auto` or
    `chat`, and comes from `OPENAI_API` if it is not given. `transport` is a registered name (from
    `AETHER_HTTP` if it is not given), which `aclose` closes, or a `Transport`, which it does not.
    `timeout` is in seconds, until the first and between two pieces of an answer (default 600), or a
    `Timeout`.
    """

    def __init__(
        self,
        api_key: str | None = None,
        default_model: str | None = None,
        *,
        base_url: str | None = None,
        api: Literal["auto", "chat", "responses"] | None = None,
        transport: str | Transport | Callable[[], Transport] | None = None,
        timeout: float | Timeout | None = None,
    ) -> None:
        _check_api(api)
        vendor = _vendor_at(base_url)
        if vendor.key_required:
            api_key = api_key or config.environment("OPENAI_API_KEY")
            if not api_key:
                raise ConfigurationError(
                    "OpenAI needs an API key. Set OPENAI_API_KEY or pass api_key=; or try without "
                    "a key: LLM_PROVIDER=local."
                )
        self.default_model = default_model or OPENAI.default_model
        endpoint = Endpoint(
            provider=vendor.name,
            base_url=base_url or OPENAI.base_url or "",
            api_key=api_key or None,
            key_header=vendor.key_header,
            transport=transport,
            timeout=timeout,
        )
        self.base_url = endpoint.base_url
        self._exchange = Exchange(endpoint, ChatCodec(vendor), self.default_model)

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
        return f"OpenAIProvider(default_model={self.default_model!r}, base_url={self.base_url!r})"


def _vendor_at(base_url: str | None) -> Vendor:
    """OpenAI itself, or a server of which no more is known than that it speaks the protocol."""
    if base_url is None or _host(base_url) == _host(OPENAI.base_url or ""):
        return OPENAI
    return replace(OPENAI, key_required=False, max_tokens_field="max_tokens", echoes_reasoning=True)


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # the endpoint says what is wrong with it
        return None


def _check_api(api: str | None) -> None:
    chosen = config.openai_api() if api is None else api
    if chosen == "responses":
        raise ConfigurationError(
            "The Responses API is not available in this version of Aether. Use api='chat' (or "
            "OPENAI_API=chat), and a model that takes tools over it, such as gpt-6-luna."
        )
    if chosen not in ("auto", "chat"):
        raise ConfigurationError(f"api is 'auto' or 'chat', not {api!r}.")
