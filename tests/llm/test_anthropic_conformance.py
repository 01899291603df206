"""The Anthropic adapter keeps what the port promises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aether.extensions.llm.anthropic import AnthropicProvider
from aether.http.contracts import Timeout
from aether.llm.contracts import LLMProvider
from aether.testing.providers import ProviderConformance
from tests.llm.conftest import Answer, ScriptedTransport

USAGE = {"input_tokens": 9, "output_tokens": 3}
TEXT = {"type": "text", "text": "Hello there."}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1, "b": 2}}


class SpeakingTransport(ScriptedTransport):
    """Answers every request as Anthropic would, after some thinking."""

    def _next(
        self, url: str, headers: Mapping[str, str], body: bytes | None, timeout: Timeout
    ) -> Answer:
        asked = json.loads(body or b"{}")
        said, stop = (CALL, "tool_use") if asked.get("tools") else (TEXT, "end_turn")
        thought = {"type": "thinking", "thinking": "Well.", "signature": "s"}
        message = {"model": "claude-x", "usage": USAGE}
        if not asked.get("stream"):
            whole = {**message, "content": [thought, said], "stop_reason": stop}
            return Answer([json.dumps(whole).encode()])
        events = [
            {"type": "message_start", "message": {**message, "content": []}},
            *_block(0, {**thought, "thinking": "", "signature": ""}),
            *_deltas(0, "thinking", "Well."),
            *_deltas(0, "signature", "s"),
            *_block(1, {**said, **({"text": ""} if said is TEXT else {"input": {}})}),
            *(
                _deltas(1, "text", "Hello ", "there.")
                if said is TEXT
                else _deltas(1, "input_json", json.dumps(CALL["input"]), field="partial_json")
            ),
            {"type": "content_block_stop", "index": 1},
            {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": USAGE},
            {"type": "message_stop"},
        ]
        return Answer([f"data: {json.dumps(event)}\n\n".encode() for event in events])


def _block(index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "content_block_start", "index": index, "content_block": block}]


def _deltas(index: int, kind: str, *pieces: str, field: str = "") -> list[dict[str, Any]]:
    return [
        {
            "type": "content_block_delta",
            "index": index,
            "delta": {"type": f"{kind}_delta", field or kind: piece},
        }
        for piece in pieces
    ]


class TestAnthropic(ProviderConformance):
    def make_provider(self) -> LLMProvider:
        return AnthropicProvider("sk-ant-test-key", transport=SpeakingTransport())

    def make_tool_calling_provider(self) -> LLMProvider:
        return self.make_provider()
