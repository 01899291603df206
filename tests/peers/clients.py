"""Clients of Aether for a peer, one for each protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable
from typing import Any
from urllib.request import Request, urlopen

import pytest

from aether import Aether, ProviderConfig
from aether.errors import BadRequestError
from aether.llm.contracts import LLMRequest
from tests.peers.recording import Refuser, Sent

__all__ = ["KEY", "MODELS", "PROTOCOLS", "asked", "client", "drain", "fetch", "post"]

PROTOCOLS = ("chat", "responses", "anthropic", "gemini")
KEY = "sk-of-nobody-0123456789"

_PROVIDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("openai", {"api": "chat"}),
    "llamacpp": ("llamacpp", {}),
    "responses": ("openai", {"api": "responses"}),
    "anthropic": ("anthropic", {}),
    "gemini": ("gemini", {"api_version": "v1beta"}),  # the one version that the mocks know
}
MODELS = {
    "chat": "gpt-6-luna",
    "responses": "gpt-6-luna",
    "anthropic": "claude-haiku-5-5",
    "gemini": "gemini-3.8-flash",
}


def client(
    protocol: str,
    base_url: str | None = None,
    *,
    model: str | None = None,
    transport: Any = None,
    timeout: float | None = None,
) -> Aether:
    """The client that a user would have, its whole default stack included."""
    provider, options = _PROVIDERS[protocol]
    return Aether(
        config=ProviderConfig(
            provider=provider,
            model=model or MODELS[protocol],
            api_key=KEY,
            base_url=base_url,
            transport=transport,
            timeout=timeout,
            options=options,
        )
    )


async def asked(protocol: str, request: LLMRequest, *, streamed: bool = False) -> Sent:
    """What is sent to the protocol's own vendor."""
    refuser = Refuser()
    async with client(protocol, transport=refuser) as aether:
        provider: Any = aether.provider
        answer = drain(provider.stream(request)) if streamed else provider.complete(request)
        with pytest.raises(BadRequestError, match="Noted"):
            await answer
    return refuser.take()


async def drain(stream: AsyncIterable[Any]) -> None:
    """Read it to its end."""
    async for _ in stream:
        pass


def fetch(url: str) -> Any:
    """What a peer says of itself, at an address of its own that is no model's."""
    with urlopen(url, timeout=30) as answer:
        return json.load(answer)


def post(url: str, body: object) -> Any:
    """Tell a peer what to do next."""
    data = json.dumps(body).encode()
    request = Request(url, data, {"content-type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)
