"""Answers that follow a schema: it reaches the model, and the answer comes back as text.

It must not know a protocol, nor whether the schema is a format, a tool or words there.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from aether.testing._provider_tests.answering import ADD, SCHEMA
from aether.testing._provider_tests.harness import ADDING, BOTH_WAYS, FOLLOWING, outcome
from aether.testing._provider_tests.sending import SendingHarness, holds

__all__ = ["StructuredTests"]

BESIDE: dict[str, dict[str, Any]] = {
    "alone": {},
    "beside tools": {"tools": [ADD]},
    "beside tools that may not be called": {"tools": [ADD], "tool_choice": "none"},
}


class StructuredTests(SendingHarness):
    """Schemas for the answer."""

    @pytest.mark.parametrize("beside", BESIDE)
    @BOTH_WAYS
    async def test_a_schema_for_the_answer_is_sent_and_answered_in_text(
        self, streaming: bool, beside: str
    ) -> None:
        request = self.request(output_schema=SCHEMA, max_tokens=64, **BESIDE[beside])
        async with self._answering_as_asked() as (provider, server):
            came = await outcome(provider, request, streaming=streaming)
        response = came.succeeded()
        (sent,) = server.requests
        for text in ("marked_property", "Marked words."):
            assert holds(sent, text), f"{text!r} of the schema is not in {sent.body!r}"
        assert beside != "beside tools" or "add" in self.wire.offered(sent), "the tool is lost"
        assert not response.tool_calls, f"the answer came as {response.tool_calls}"
        assert json.loads(response.text) == FOLLOWING
        assert response.finish_reason == "stop"
        assert response.message.text == response.text
        assert not response.message.tool_calls
        assert not streaming or came.text == response.text, "the deltas do not join to the text"

    @BOTH_WAYS
    async def test_a_call_of_a_tool_stays_a_call_beside_a_schema(self, streaming: bool) -> None:
        request = self.request(output_schema=SCHEMA, tools=[ADD])
        async with self._serving(ADDING) as (provider, _):
            came = await outcome(provider, request, streaming=streaming)
        response = came.succeeded()
        assert [(call.name, call.arguments) for call in response.tool_calls] == [
            ("add", {"a": 1, "b": 2})
        ]
        assert response.finish_reason == "tool_calls"
