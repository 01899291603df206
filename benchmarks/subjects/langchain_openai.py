"""langchain-openai: `ainvoke` and `astream` of `ChatOpenAI`, and a tool loop by hand."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from benchmarks.contracts import KEY, MODEL, PROMPT, Heard, add

_ADD = tool(add)


def client(url: str) -> Client:
    return Client(ChatOpenAI(model=MODEL, base_url=url, api_key=KEY))


class Client:
    def __init__(self, model: Any) -> None:
        self._model = model
        self._adding = model.bind_tools([_ADD])

    async def call(self, prompt: str = PROMPT) -> str:
        message = await self._model.ainvoke(prompt)
        text: str = message.content
        return text

    async def stream(self, heard: Heard, prompt: str = PROMPT) -> None:
        async for chunk in self._model.astream(prompt):
            if chunk.content:
                heard(chunk.content)

    async def tool(self, turns: int | None = None) -> str:  # noqa: ARG002 - it has no limit
        messages: list[Any] = [HumanMessage(PROMPT)]
        while True:
            message = await self._adding.ainvoke(messages)
            if not message.tool_calls:
                text: str = message.content
                return text
            messages.append(message)
            for call in message.tool_calls:
                total = await _ADD.ainvoke(call["args"])
                messages.append(ToolMessage(str(total), tool_call_id=call["id"]))

    def agent(self) -> None:
        return None

    async def close(self) -> None:
        pass
