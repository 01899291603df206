"""Aether with its default stack: retries, circuit breaker, costs with their ledger, events."""

from __future__ import annotations

from aether import Aether, Agent, ProviderConfig
from benchmarks.contracts import KEY, MODEL, PROMPT, Heard, add


def client(url: str) -> Client:
    config = ProviderConfig(provider="openai", model=MODEL, base_url=url, api_key=KEY)
    return Client(Aether(config=config))


class Client:
    def __init__(self, aether: Aether) -> None:
        self.aether = aether

    async def call(self, prompt: str = PROMPT) -> str:
        return await self.aether.ask(prompt)

    async def stream(self, heard: Heard, prompt: str = PROMPT) -> None:
        async for text in self.aether.stream_text(prompt):
            heard(text)

    async def tool(self, turns: int | None = None) -> str:
        return await self.aether.ask(PROMPT, tools=[add], max_tool_iterations=turns)

    def agent(self) -> object:
        return Agent("adder", instructions="Answer.", tools=[add], client=self.aether)

    async def close(self) -> None:
        await self.aether.aclose()
