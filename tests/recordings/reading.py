"""Reading an answer through the adapter of its protocol, over a transport that splits the bytes.

It must not know what is expected of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from aether.errors import AetherError
from aether.http.contracts import AddressCheck, HTTPResponse, HTTPStream, Timeout, Transport
from aether.llm.messages import LLMRequest, LLMResponse, Message
from tests.recordings.cases import Case
from tests.recordings.serving import pieces_of

__all__ = ["PROTOCOLS", "Outcome", "Splitting", "Tool", "make_provider", "read"]

PROTOCOLS = ("openai.chat", "openai.responses", "anthropic.messages", "gemini.generate")

SECONDS = 60.0
_KEY = "key-of-a-recording"
_OPENAI = "aether.extensions.llm.openai:OpenAIProvider"
_COMPATIBLE = "aether.extensions.llm.openai_compatible:OpenAICompatibleProvider"
_VENDORS = {
    "azure_openai": "azure",
    **{
        name: name
        for name in (
            "cerebras",
            "deepseek",
            "groq",
            "llamacpp",
            "lmstudio",
            "mistral",
            "ollama",
            "openrouter",
            "perplexity",
            "together",
            "vllm",
            "xai",
        )
    },
}
"""Which row of Aether's vendors a recording's provider is; any other is a bare base URL."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as an adapter sees it."""

    name: str
    description: str = "A tool of the recording."
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )


@dataclass(slots=True)
class Outcome:
    """What came of one reading: a response or an error, and what was said on the way."""

    response: LLMResponse | None = None
    error: Exception | None = None
    text: str = ""
    reasoning: str = ""
    faults: list[str] = field(default_factory=list)
    """Promises of the port that the stream itself broke."""


def make_provider(case: Case, base_url: str, transport: Transport) -> Any:
    """The adapter for the case. Raises whatever it raises, an `ImportError` if there is none."""
    more: dict[str, Any] = {"base_url": base_url, "transport": transport}
    if case.protocol == "anthropic.messages":
        where = "aether.extensions.llm.anthropic:AnthropicProvider"
    elif case.protocol == "gemini.generate":
        where = "aether.extensions.llm.gemini:GeminiProvider"
    elif case.protocol == "openai.responses":
        where, more["api"] = _OPENAI, "responses"
    elif case.provider in _VENDORS:
        where, more["vendor"] = _COMPATIBLE, _VENDORS[case.provider]
    else:
        where, more["api"] = _OPENAI, "chat"
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)(_KEY, case.model, **more)


async def read(
    provider: Any, messages: Sequence[Message], tools: Sequence[Tool], *, stream: bool
) -> Outcome:
    """One call. An exception that is no `AetherError` is an outcome too."""
    request = LLMRequest(messages=messages, tools=tools)
    outcome = Outcome()
    try:
        async with asyncio.timeout(SECONDS):
            if stream:
                await _read_stream(provider, request, outcome)
            else:
                outcome.response = await provider.complete(request)
    except AetherError as error:
        outcome.error = error
    except TimeoutError:
        outcome.faults.append(f"nothing came of it within {SECONDS:g} s")
    except Exception as error:  # noqa: BLE001 - which one it is, is what is to be told
        outcome.error = error
        outcome.faults.append(f"{type(error).__name__} is no AetherError: {error}")
    return outcome


async def _read_stream(provider: Any, request: LLMRequest, outcome: Outcome) -> None:
    finals = 0
    async with aclosing(provider.stream(request)) as chunks:
        async for chunk in chunks:
            if finals:
                outcome.faults.append("a chunk came after the final one")
            outcome.text += chunk.text
            outcome.reasoning += chunk.reasoning or ""
            if chunk.is_final:
                finals += 1
                outcome.response = chunk.response
                _check_final(chunk, outcome)
    if finals != 1:
        outcome.faults.append(f"the stream ended with {finals} final chunks")


def _check_final(chunk: Any, outcome: Outcome) -> None:
    response = chunk.response
    if response is None:
        outcome.faults.append("the final chunk has no response")
        return
    if outcome.text != response.text:
        outcome.faults.append(f"deltas {outcome.text!r} do not join to text {response.text!r}")
    if outcome.reasoning not in ("", response.reasoning or ""):
        outcome.faults.append(f"reasoning {response.reasoning!r}, its deltas {outcome.reasoning!r}")
    for name in ("input", "output", "cache_read", "cache_write", "reasoning"):
        ours, whole = getattr(chunk, f"{name}_tokens"), getattr(response, f"{name}_tokens")
        if ours != whole:
            outcome.faults.append(f"{name} tokens {ours} on the final chunk, {whole} in all")


class Splitting:
    """A transport whose streams come in pieces of 1 to `biggest` bytes, the same for one seed."""

    def __init__(self, inner: Transport, biggest: int, seed: int) -> None:
        self._inner = inner
        self._biggest = biggest
        self._seed = seed

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
        return await self._inner.request(
            method,
            url,
            headers=headers,
            body=body,
            timeout=timeout,
            max_bytes=max_bytes,
            check_address=check_address,
        )

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
        return self._split(
            self._inner.stream(
                method,
                url,
                headers=headers,
                body=body,
                timeout=timeout,
                check_address=check_address,
            )
        )

    async def aclose(self) -> None:
        """The inner transport belongs to who made it."""

    @asynccontextmanager
    async def _split(
        self, opening: AbstractAsyncContextManager[HTTPStream]
    ) -> AsyncGenerator[HTTPStream, None]:
        async with opening as answer:
            yield _SplitAnswer(answer, self._biggest, random.Random(self._seed))


class _SplitAnswer:
    def __init__(self, answer: HTTPStream, biggest: int, chance: random.Random) -> None:
        self._answer = answer
        self._biggest = biggest
        self._chance = chance

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    def chunks(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        async for data in self._answer.chunks():
            for piece in pieces_of(data, self._biggest, self._chance):
                yield piece
