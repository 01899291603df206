"""Gemini, over generateContent.

It must not know the other adapters.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from aether import config
from aether.errors import BadRequestError, ConfigurationError, ProviderError
from aether.extensions.llm._exchange import Exchange
from aether.extensions.llm._http import Endpoint
from aether.extensions.llm._wire.gemini import GeminiCodec, without_state
from aether.extensions.llm._wire.host_state import host_of
from aether.http.contracts import Timeout, Transport
from aether.llm.batches import Batch, ChunkStream
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk

__all__ = ["GeminiProvider"]

BASE_URL = "https://generativelanguage.googleapis.com"
API_VERSION = "v1beta"
DEFAULT_MODEL = "gemini-3.8-flash"

_VERSION = re.compile(r"v[0-9]+((alpha|beta)[0-9]*)?")

_log = logging.getLogger("aether.llm")


class GeminiProvider:
    """Google's models over the Gemini API.

    `api_key` is needed on Google's own hosts, and comes from `GEMINI_API_KEY` or `GOOGLE_API_KEY`
    there if it is not given. `base_url` is without the version; one that ends with a version sets
    `api_version`, unless that is given. `transport` is a registered name (from `AETHER_HTTP` if it
    is not given), which `aclose` closes, or a `Transport`, which it does not. `timeout` is in
    seconds, until the first and between two pieces of an answer (default 600), or a `Timeout`.

    A model is a name, `gemini-3.8-flash`, or a resource, `tunedModels/x`. All system messages make
    the one system instruction. Thoughts are summarized, as `reasoning`, where a request sets how
    much to reason. `extra_body={"tools": [{"googleSearch": {}}]}` adds Google's own tools.
    """

    def __init__(
        self,
        api_key: str | None = None,
        default_model: str | None = None,
        *,
        base_url: str | None = None,
        api_version: str | None = None,
        transport: str | Transport | Callable[[], Transport] | None = None,
        timeout: float | Timeout | None = None,
    ) -> None:
        base_url, found = _without_version(base_url or BASE_URL)
        version = api_version or found or API_VERSION
        if not _VERSION.fullmatch(version):
            raise ConfigurationError(
                f"api_version is a version of the Gemini API, such as 'v1beta', not {version!r}."
            )
        host = host_of(base_url)
        state_host = None if _is_google(host) else host
        if state_host is None:
            api_key = (
                api_key
                or config.environment("GEMINI_API_KEY")
                or config.environment("GOOGLE_API_KEY")
            )
            if not api_key:
                raise ConfigurationError(
                    "Gemini needs an API key. Set GEMINI_API_KEY or GOOGLE_API_KEY, or pass "
                    "api_key=; or try without a key: LLM_PROVIDER=local."
                )
        self.default_model = default_model or DEFAULT_MODEL
        self.api_version = version
        endpoint = Endpoint(
            provider="gemini",
            base_url=base_url,
            api_key=api_key or None,
            key_header="x-goog-api-key",
            state_host=state_host,
            transport=transport,
            timeout=timeout,
        )
        self.base_url = endpoint.base_url
        codec = GeminiCodec(version, state_host=state_host)
        self._exchange = Exchange(endpoint, codec, self.default_model)

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        """One answer, usually to one request. Cancelling it closes the connection at once."""
        try:
            return await self._exchange.complete(request)
        except BadRequestError as error:
            unsigned = _unsigned(request, error)
        try:
            return await self._exchange.complete(unsigned)
        except ProviderError as error:
            error.attempts += 1
            raise

    def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        """One answer in pieces. Closing the iterator closes the connection at once."""
        if without_state(request) is None:
            return self._exchange.stream(request)
        return ChunkStream(self._batches_of_signed(request))

    async def aclose(self) -> None:
        """Close the connections that were opened here. Twice is fine."""
        await self._exchange.aclose()

    async def _batches_of_signed(self, request: LLMRequest) -> AsyncGenerator[Batch, None]:
        try:
            async with aclosing(self._exchange.stream(request)) as chunks:
                async for batch in chunks.batches:
                    yield batch
            return
        except BadRequestError as error:  # nothing was handed out: it would be a broken stream
            unsigned = _unsigned(request, error)
        try:
            async with aclosing(self._exchange.stream(unsigned)) as chunks:
                async for batch in chunks.batches:
                    yield batch
        except ProviderError as error:
            error.attempts += 1
            raise

    def __repr__(self) -> str:
        return f"GeminiProvider(default_model={self.default_model!r}, base_url={self.base_url!r})"


def _unsigned(request: LLMRequest, error: BadRequestError) -> LLMRequest:
    """The request without its thoughts' signatures, if they are what was refused; else the error.

    A signature counts only for the model and the project that gave it.
    """
    message = str(error).lower().replace("_", " ")
    unsigned = without_state(request) if "thought signature" in message else None
    if unsigned is None:
        raise error
    _log.warning("gemini refused the signatures of earlier thoughts; asked again without them")
    return unsigned


def _without_version(base_url: str) -> tuple[str, str | None]:
    """The base URL, and the version at its end if there is one."""
    head, _, tail = base_url.rstrip("/").rpartition("/")
    if _VERSION.fullmatch(tail) and not head.endswith(("/", ":")):
        return head, tail
    return base_url, None


def _is_google(host: str) -> bool:
    return host == "googleapis.com" or host.endswith(".googleapis.com")
