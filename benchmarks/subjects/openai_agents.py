"""openai-agents: `Runner.run` and `.run_streamed` over Chat Completions, without its tracing."""

from __future__ import annotations

from typing import Any

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from benchmarks.contracts import KEY, MODEL, PROMPT, Heard, add

set_tracing_disabled(True)
_ADD = function_tool(add)


def client(url: str) -> Client:
    return Client(AsyncOpenAI(base_url=url, api_key=KEY))


class Client:
    def __init__(self, sdk: AsyncOpenAI) -> None:
        self._sdk = sdk
        self._model = OpenAIChatCompletionsModel(model=MODEL, openai_client=sdk)
        self._plain = Agent(name="answerer", model=self._model)
        self._adding = Agent(name="adder", model=self._model, tools=[_ADD])

    async def call(self, prompt: str = PROMPT) -> str:
        return await self._text(self._plain, prompt)

    async def stream(self, heard: Heard, prompt: str = PROMPT) -> None:
        result = Runner.run_streamed(self._plain, prompt)
        async for event in result.stream_events():
            if (
                event.type == "raw_response_event"
                and event.data.type == "response.output_text.delta"
            ):
                heard(event.data.delta)

    async def tool(self, turns: int | None = None) -> str:
        return await self._text(self._adding, PROMPT, **({"max_turns": turns} if turns else {}))

    def agent(self) -> object:
        return Agent(name="adder", model=self._model, tools=[_ADD])

    async def close(self) -> None:
        await self._sdk.close()

    async def _text(self, agent: Any, prompt: str, **options: Any) -> str:
        result = await Runner.run(agent, prompt, **options)
        text: str = result.final_output
        return text
