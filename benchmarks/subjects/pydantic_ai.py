"""pydantic-ai: `Agent.run` and `Agent.run_stream`, as its documentation has them."""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent, UsageLimits
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from benchmarks.contracts import KEY, MODEL, PROMPT, Heard, add


def client(url: str) -> Client:
    return Client(OpenAIProvider(base_url=url, api_key=KEY))


class Client:
    def __init__(self, provider: Any) -> None:
        self._model = OpenAIChatModel(MODEL, provider=provider)
        self._provider = provider
        self._plain = Agent(self._model)
        self._adding = Agent(self._model, tools=[add])

    async def call(self, prompt: str = PROMPT) -> str:
        text: str = (await self._plain.run(prompt)).output
        return text

    async def stream(self, heard: Heard, prompt: str = PROMPT) -> None:
        async with self._plain.run_stream(prompt) as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                heard(text)

    async def tool(self, turns: int | None = None) -> str:
        limits = UsageLimits(request_limit=turns) if turns else None
        text: str = (await self._adding.run(PROMPT, usage_limits=limits)).output
        return text

    def agent(self) -> object:
        return Agent(self._model, tools=[add])

    async def close(self) -> None:
        await self._provider.client.close()
