"""The OpenAI adapter in the conformance suite that every provider can be put through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aether.extensions.llm.openai import OpenAIProvider
from aether.http.contracts import Timeout
from aether.testing.providers import ProviderConformance
from tests.llm.conftest import Answer, ScriptedTransport

CALL = {
    "index": 0,
    "id": "call_1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'},
}
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


class SpeakingTransport(ScriptedTransport):
    """Answers every request as OpenAI would: with a greeting, or with a call of an offered tool."""

    def _next(
        self, url: str, headers: Mapping[str, str], body: bytes | None, timeout: Timeout
    ) -> Answer:
        asked = json.loads(body or b"{}")
        message: dict[str, Any] = {"role": "assistant", "content": "Hello there."}
        finish = "stop"
        if asked.get("tools"):
            message, finish = {"role": "assistant", "tool_calls": [CALL]}, "tool_calls"
        if asked.get("stream"):
            words = (message.get("content") or "").split()
            deltas = [{**message, "content": ""}, *({"content": word} for word in words)]
            events: list[Any] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
            events += [
                {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
                {"model": "gpt-x", "choices": [], "usage": USAGE},
            ]
            lines = [*map(json.dumps, events), "[DONE]"]
            return Answer([f"data: {line}\n\n".encode() for line in lines])
        choice = {"index": 0, "message": message, "finish_reason": finish}
        answer = {"model": "gpt-x", "choices": [choice], "usage": USAGE}
        return Answer([json.dumps(answer).encode()])


class TestOpenAIProvider(ProviderConformance):
    def make_provider(self) -> OpenAIProvider:
        return OpenAIProvider("sk-test-key", transport=SpeakingTransport())

    def make_tool_calling_provider(self) -> OpenAIProvider:
        return self.make_provider()
