"""The openai SDK: `create(...)` and `create(..., stream=True)`, as its README shows them."""

from __future__ import annotations

from typing import Any

import openai

from comparison.peers.contracts import (
    KEY,
    MODELS,
    PROMPT,
    TOOL,
    TOOL_DESCRIPTION,
    TOOL_PARAMETERS,
    Caller,
    Heard,
    Said,
)

DISTRIBUTION = "openai"
PROTOCOLS = ("openai", "openai.responses")
ERRORS: tuple[type[BaseException], ...] = (openai.OpenAIError,)

_MODEL = MODELS["openai"]
_MESSAGES: Any = [{"role": "user", "content": PROMPT}]
_FUNCTION = {"name": TOOL, "description": TOOL_DESCRIPTION, "parameters": TOOL_PARAMETERS}


def caller(protocol: str, url: str) -> Caller:
    client = openai.AsyncOpenAI(base_url=url, api_key=KEY)
    return _Chat(client) if protocol == "openai" else _Responses(client)


class _Calling:
    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client

    def tokens(self) -> None:
        return None

    async def close(self) -> None:
        await self._client.close()


class _Chat(_Calling):
    async def ask(self) -> Said:
        completion = await self._client.chat.completions.create(model=_MODEL, messages=_MESSAGES)
        choice = completion.choices[0]
        return Said(choice.message.content or "", choice.finish_reason)

    async def stream(self, heard: Heard, *, tool: bool = False) -> Said:
        tools: Any = {"tools": [{"type": "function", "function": _FUNCTION}]} if tool else {}
        stream = await self._client.chat.completions.create(
            model=_MODEL, messages=_MESSAGES, stream=True, **tools
        )
        said = Said("", None)
        async for chunk in stream:
            if not chunk.choices:
                continue
            choice = chunk.choices[0]
            said.finish = choice.finish_reason or said.finish
            if choice.delta.content:
                said.text += choice.delta.content
                if heard(choice.delta.content):
                    break
        return said


class _Responses(_Calling):
    async def ask(self) -> Said:
        response = await self._client.responses.create(model=_MODEL, input=PROMPT)
        return Said(response.output_text, response.status)

    async def stream(self, heard: Heard, *, tool: bool = False) -> Said:
        tools: Any = {"tools": [{"type": "function", **_FUNCTION}]} if tool else {}
        stream = await self._client.responses.create(
            model=_MODEL, input=PROMPT, stream=True, **tools
        )
        said = Said("", None)
        async for event in stream:
            if event.type == "response.output_text.delta":
                said.text += event.delta
                if heard(event.delta):
                    break
            elif event.type in ("response.completed", "response.incomplete", "response.failed"):
                said.finish = event.response.status
            elif event.type == "error":
                said.finish = event.type
        return said
