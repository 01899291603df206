"""Aether: `ask` and `stream_text`, as its README shows them."""

from __future__ import annotations

from aether import Aether, AetherError, ProviderConfig
from comparison.peers.contracts import KEY, MODELS, PROMPT, TOOL_DESCRIPTION, Heard, Said

DISTRIBUTION = "aether-framework"
PROTOCOLS = ("openai", "openai.responses", "anthropic", "gemini")
ERRORS: tuple[type[BaseException], ...] = (AetherError,)


def caller(protocol: str, url: str) -> _Client:
    provider, _, api = protocol.partition(".")
    options = {"api": api} if api else {}
    config = ProviderConfig(
        provider, model=MODELS[protocol], api_key=KEY, base_url=url, options=options
    )
    return _Client(Aether(config=config))


async def get_weather(city: str) -> str:
    return f"Sunny in {city}."


get_weather.__doc__ = TOOL_DESCRIPTION


class _Client:
    def __init__(self, client: Aether) -> None:
        self._client = client

    async def ask(self) -> Said:
        response = await self._client.complete(PROMPT)
        return Said(response.text, response.finish_reason)

    async def stream(self, heard: Heard, *, tool: bool = False) -> Said:
        said = Said("", None)
        async for chunk in self._client.stream(PROMPT, tools=[get_weather] if tool else []):
            said.finish = chunk.finish_reason
            said.text += chunk.text
            if chunk.text and heard(chunk.text):
                break
        return said

    def tokens(self) -> int:
        usage = self._client.usage
        return sum((entry.input_tokens or 0) + (entry.output_tokens or 0) for entry in usage.ledger)

    async def close(self) -> None:
        await self._client.aclose()
