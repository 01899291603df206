"""OpenAI, and any one server that speaks one of its protocols at a base URL of its own.

It must not know the other adapters.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Literal, get_args
from urllib.parse import urlsplit

from aether import config
from aether.errors import ConfigurationError
from aether.extensions.llm._exchange import Exchange
from aether.extensions.llm._http import Endpoint
from aether.extensions.llm._vendors import ELSEWHERE, OPENAI
from aether.extensions.llm._wire.codec import Codec
from aether.extensions.llm._wire.host_state import host_of
from aether.http.contracts import Timeout, Transport
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk

__all__ = ["OpenAIProvider"]

Api = Literal["auto", "chat", "responses"]

_OPENAI_URL = OPENAI.base_url or ""
_OPERATIONS = ("/chat/completions", "/responses")
_OPENAI_HOST = urlsplit(_OPENAI_URL).hostname or ""


class OpenAIProvider:
    """OpenAI over its Responses API or over Chat Completions.

    `api_key` is needed on OpenAI's own hosts, and comes from `OPENAI_API_KEY` there if it is not
    given. `base_url` includes the version, as in `http://localhost:8000/v1`; on OpenAI's hosts it
    may be left out. `transport` is a registered name (from `AETHER_HTTP` if it is not given), which
    `aclose` closes, or a `Transport`, which it does not. `timeout` is in seconds, until the first
    and between two pieces of an answer (default 600), or a `Timeout`.

    `api` is `responses`, `chat` or `auto`, and comes from `OPENAI_API` if it is not given. `auto`,
    the default, is the Responses API on OpenAI's hosts, which all of its models speak with tools
    and reasoning together, and Chat Completions elsewhere, which most servers speak.

    Over the Responses API the server is told to store nothing (`store` is false): reasoning goes
    back to it with the messages, encrypted. A model's commentary on its work counts as `reasoning`,
    unless it says nothing else. Summaries of reasoning are asked for with
    `extra_body={"reasoning": {"summary": "auto"}}`, as some models give them to verified
    organizations only. There are no stop sequences and there is no
    audio: an `InputError` says so. `seed` and cache points that a model does not know are left out.
    """

    def __init__(
        self,
        api_key: str | None = None,
        default_model: str | None = None,
        *,
        base_url: str | None = None,
        api: Api | None = None,
        transport: str | Transport | Callable[[], Transport] | None = None,
        timeout: float | Timeout | None = None,
    ) -> None:
        chosen = config.openai_api() if api is None else api
        if chosen not in get_args(Api):
            raise ConfigurationError(f"api is 'auto', 'chat' or 'responses', not {api!r}.")
        base_url = _without_operation(base_url or _OPENAI_URL)
        at_openai = _is_openai(base_url)
        vendor = OPENAI if at_openai else replace(ELSEWHERE, state_host=host_of(base_url))
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
            base_url=_with_version(base_url) if at_openai else base_url,
            api_key=api_key or None,
            key_header=vendor.key_header,
            state_host=vendor.state_host,
            transport=transport,
            timeout=timeout,
        )
        self.base_url = endpoint.base_url
        self.api = ("responses" if at_openai else "chat") if chosen == "auto" else chosen
        """The protocol that is spoken: `chat` or `responses`."""
        codec: Codec
        if self.api == "responses":
            from aether.extensions.llm._wire.openai_responses import ResponsesCodec

            codec = ResponsesCodec(vendor, at_openai=at_openai)
        else:
            from aether.extensions.llm._wire.openai_chat import ChatCodec

            codec = ChatCodec(vendor)
        self._exchange = Exchange(endpoint, codec, self.default_model)

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
            f"OpenAIProvider(default_model={self.default_model!r}, base_url={self.base_url!r}, "
            f"api={self.api!r})"
        )


def _is_openai(url: str) -> bool:
    """Whether it is one of OpenAI's own hosts; those of its regions have a prefix."""
    host = host_of(url)
    return host == _OPENAI_HOST or host.endswith(f".{_OPENAI_HOST}")


def _with_version(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(path="/v1").geturl() if parts.path in ("", "/") else url


def _without_operation(url: str) -> str:
    """Without the end that a request's path adds, which would otherwise stand there twice."""
    end = next((end for end in _OPERATIONS if url.rstrip("/").endswith(end)), "")
    return url.rstrip("/").removesuffix(end) if end else url
