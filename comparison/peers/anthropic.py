"""The anthropic SDK: `create(...)` and the helper `stream(...)`, as its README shows them."""

from __future__ import annotations

from typing import Any

import anthropic

from comparison.peers.contracts import (
    KEY,
    MODELS,
    PROMPT,
    TOOL,
    TOOL_DESCRIPTION,
    TOOL_PARAMETERS,
    Heard,
    Said,
)

DISTRIBUTION = "anthropic"
PROTOCOLS = ("anthropic",)
ERRORS: tuple[type[BaseException], ...] = (anthropic.AnthropicError,)

_ASKED: dict[str, Any] = {
    "model": MODELS["anthropic"],
    "max_tokens": 1024,
    "messages": [{"role": "user", "content": PROMPT}],
}
_TOOLS: dict[str, Any] = {
    "tools": [{"name": TOOL, "description": TOOL_DESCRIPTION, "input_schema": TOOL_PARAMETERS}]
}


def caller(_protocol: str, url: str) -> _Messages:
    return _Messages(anthropic.AsyncAnthropic(base_url=url, api_key=KEY))


class _Messages:
    def __init__(self, client: anthropic.AsyncAnthropic) -> None:
        self._client = client

    async def ask(self) -> Said:
        message = await self._client.messages.create(**_ASKED)
        texts = [block.text for block in message.content if block.type == "text"]
        return Said("".join(texts), message.stop_reason)

    async def stream(self, heard: Heard, *, tool: bool = False) -> Said:
        said = Said("", None)
        async with self._client.messages.stream(**_ASKED, **(_TOOLS if tool else {})) as stream:
            async for text in stream.text_stream:
                said.text += text
                if heard(text):
                    return said
            message = await stream.get_final_message()
        said.finish = message.stop_reason
        return said

    def tokens(self) -> None:
        return None

    async def close(self) -> None:
        await self._client.close()
