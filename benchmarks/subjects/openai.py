"""The openai SDK: `create(...)`, with and without `stream=True`, and a tool loop by hand."""

from __future__ import annotations

import json
from typing import Any

import openai

from benchmarks.contracts import ADD, KEY, MODEL, PROMPT, Heard, add


def client(url: str) -> Client:
    return Client(openai.AsyncOpenAI(base_url=url, api_key=KEY))


class Client:
    def __init__(self, sdk: openai.AsyncOpenAI) -> None:
        self._sdk = sdk

    async def call(self, prompt: str = PROMPT) -> str:
        messages: Any = [{"role": "user", "content": prompt}]
        completion = await self._sdk.chat.completions.create(model=MODEL, messages=messages)
        return completion.choices[0].message.content or ""

    async def stream(self, heard: Heard, prompt: str = PROMPT) -> None:
        messages: Any = [{"role": "user", "content": prompt}]
        stream = await self._sdk.chat.completions.create(
            model=MODEL, messages=messages, stream=True
        )
        async for chunk in stream:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                heard(text)

    async def tool(self, turns: int | None = None) -> str:  # noqa: ARG002 - it has no limit
        messages: list[Any] = [{"role": "user", "content": PROMPT}]
        tools: Any = [ADD]
        while True:
            completion = await self._sdk.chat.completions.create(
                model=MODEL, messages=messages, tools=tools
            )
            message = completion.choices[0].message
            if not message.tool_calls:
                return message.content or ""
            messages.append(message)
            for call in message.tool_calls:
                total = add(**json.loads(call.function.arguments))
                told = {"role": "tool", "tool_call_id": call.id, "content": str(total)}
                messages.append(told)

    def agent(self) -> None:
        return None

    async def close(self) -> None:
        await self._sdk.close()
