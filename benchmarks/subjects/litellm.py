"""litellm: `acompletion(...)`, with and without `stream=True`, and a tool loop by hand.

It keeps its connections itself.
"""

from __future__ import annotations

import json
from typing import Any

import litellm

from benchmarks.contracts import ADD, KEY, MODEL, PROMPT, Heard, add

litellm.telemetry = False


def client(url: str) -> Client:
    return Client({"model": f"openai/{MODEL}", "api_base": url, "api_key": KEY})


class Client:
    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    async def call(self, prompt: str = PROMPT) -> str:
        messages = [{"role": "user", "content": prompt}]
        response = await litellm.acompletion(messages=messages, **self._options)
        return response.choices[0].message.content or ""

    async def stream(self, heard: Heard, prompt: str = PROMPT) -> None:
        messages = [{"role": "user", "content": prompt}]
        stream = await litellm.acompletion(messages=messages, stream=True, **self._options)
        async for chunk in stream:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                heard(text)

    async def tool(self, turns: int | None = None) -> str:  # noqa: ARG002 - it has no limit
        messages: list[Any] = [{"role": "user", "content": PROMPT}]
        while True:
            response = await litellm.acompletion(messages=messages, tools=[ADD], **self._options)
            message = response.choices[0].message
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
        pass
