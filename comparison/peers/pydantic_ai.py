"""pydantic-ai: `Agent.run` and `Agent.run_stream`, as its documentation shows them."""

from __future__ import annotations

from typing import Any

from anthropic import AsyncAnthropic
from pydantic_ai import Agent, exceptions
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider

from comparison.peers.contracts import KEY, MODELS, PROMPT, TOOL_DESCRIPTION, Heard, Said

DISTRIBUTION = "pydantic-ai-slim"
PROTOCOLS = ("openai", "openai.responses", "anthropic", "gemini")
# Its errors have two roots; whatever its module of errors defines is taken.
ERRORS: tuple[type[BaseException], ...] = tuple(
    each
    for each in vars(exceptions).values()
    if isinstance(each, type)
    and issubclass(each, BaseException)
    and each.__module__ == exceptions.__name__
)


def caller(protocol: str, url: str) -> _Agent:
    model: Any
    name = MODELS[protocol]
    if protocol == "anthropic":
        client = AsyncAnthropic(base_url=url, api_key=KEY)
        model = AnthropicModel(name, provider=AnthropicProvider(anthropic_client=client))
    elif protocol == "gemini":
        model = GoogleModel(name, provider=GoogleProvider(api_key=KEY, base_url=url))
    else:
        provider = OpenAIProvider(base_url=url, api_key=KEY)
        kind = OpenAIChatModel if protocol == "openai" else OpenAIResponsesModel
        model = kind(name, provider=provider)
    return _Agent(model)


async def get_weather(city: str) -> str:
    return f"Sunny in {city}."


get_weather.__doc__ = TOOL_DESCRIPTION


class _Agent:
    def __init__(self, model: Any) -> None:
        self._plain: Agent[None, str] = Agent(model)
        self._with_tool: Agent[None, str] = Agent(model, tools=[get_weather])
        self._total = 0

    async def ask(self) -> Said:
        result = await self._plain.run(PROMPT)
        return Said(result.output, result.response.finish_reason)

    async def stream(self, heard: Heard, *, tool: bool = False) -> Said:
        agent = self._with_tool if tool else self._plain
        said = Said("", None)
        async with agent.run_stream(PROMPT) as result:
            try:
                async for text in result.stream_text(delta=True):
                    said.text += text
                    if text and heard(text):
                        break
                else:
                    said.finish = result.response.finish_reason
            finally:
                self._total += result.usage.total_tokens
        return said

    def tokens(self) -> int:
        return self._total

    async def close(self) -> None:
        """Its providers keep their clients for the whole process."""
