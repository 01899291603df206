"""Conversations as plain text, turn about, with tools, calls and results told in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import InputError
from aether.extensions.llm._local.prompting import render_messages
from aether.llm.contracts import (
    AudioPart,
    CachePoint,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
)


@dataclass(frozen=True)
class Spec:
    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


ADD = Spec(
    "add",
    "Add two integers.",
    {
        "type": "object",
        "properties": {"a": {"type": "integer", "description": "the first «number»"}},
    },
)
CALL = ToolCall("call_1", "add", {"a": 17, "b": 25})


def test_plain_conversation_is_left_as_it_is() -> None:
    messages = [
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
    ]
    assert render_messages(messages) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]


def test_system_messages_are_joined_at_the_front() -> None:
    messages = [Message("system", "One."), Message("user", "Hi"), Message("system", "Two.")]
    assert render_messages(messages) == [
        {"role": "system", "content": "One.\n\nTwo."},
        {"role": "user", "content": "Hi"},
    ]


def test_tools_are_described_word_for_word_after_the_system_message() -> None:
    system, user = render_messages([Message("system", "Be brief."), Message("user", "Hi")], [ADD])
    assert system["content"].startswith("Be brief.\n\n")
    assert "add: Add two integers." in system["content"]
    assert "the first «number»" in system["content"]
    assert user == {"role": "user", "content": "Hi"}


def test_definitions_of_parameters_are_shown_with_them() -> None:
    tool = Spec("draw", "Draw.", {"$defs": {"Point": {"type": "integer"}}, "type": "object"})
    assert '"Point"' in render_messages([Message("user", "Hi")], [tool])[0]["content"]


def test_calls_and_results_are_told_as_text() -> None:
    messages = [
        Message("user", "What is 17 + 25?"),
        Message("assistant", tool_calls=[CALL]),
        Message("tool", "42", tool_call_id="call_1"),
    ]
    assert render_messages(messages) == [
        {"role": "user", "content": "What is 17 + 25?"},
        {"role": "assistant", "content": '{"tool": "add", "arguments": {"a": 17, "b": 25}}'},
        {"role": "user", "content": "Result of add: 42"},
    ]


def test_model_that_has_a_result_is_asked_to_answer() -> None:
    messages = [
        Message("assistant", tool_calls=[CALL]),
        Message("tool", "42", tool_call_id="call_1"),
    ]
    last = render_messages(messages, [ADD])[-1]
    assert last["content"].startswith("Result of add: 42\n\nNow answer")
    going_on = [*messages, Message("user", "And 1 + 1?")]
    assert "Now answer" not in render_messages(going_on, [ADD])[-1]["content"]


def test_request_without_messages_is_refused() -> None:
    with pytest.raises(InputError, match="no messages"):
        render_messages([])


def test_failed_result_says_so() -> None:
    messages = [
        Message("assistant", tool_calls=[CALL]),
        Message("tool", "no such number", tool_call_id="call_1", is_error=True),
        Message("tool", "left over", tool_call_id="unknown"),
    ]
    last = render_messages(messages)[-1]
    assert last["content"] == "Error of add: no such number\n\nResult: left over"


def test_text_beside_a_call_is_kept() -> None:
    content: list[ContentPart] = [
        ReasoningPart(text="hidden"),
        TextPart(text="Let me add."),
        CachePoint(),
    ]
    (turn,) = render_messages([Message("assistant", content, tool_calls=[CALL])])
    assert turn["content"].startswith('Let me add.\n\n{"tool": "add"')


@pytest.mark.parametrize(
    "part",
    [
        ImagePart(url="https://example.com/a.png"),
        AudioPart(data=b"x", media_type="audio/wav"),
        FilePart(data=b"x", media_type="application/pdf"),
    ],
)
def test_content_that_is_no_text_is_refused(part: Any) -> None:
    with pytest.raises(InputError, match=f"reads text only.*type '{part.type}'"):
        render_messages([Message("user", [TextPart(text="Look:"), part])])


@given(
    st.lists(
        st.builds(
            Message,
            st.sampled_from(["system", "user", "assistant", "tool"]),
            st.text(min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
def test_one_system_message_at_most_and_then_turn_about(
    messages: list[Message], with_tools: bool
) -> None:
    rendered = render_messages(messages, [ADD] if with_tools else [])
    roles = [message["role"] for message in rendered]
    assert set(roles) <= {"system", "user", "assistant"}
    assert "system" not in roles[1:]
    assert all(first != second for first, second in pairwise(roles))
    everything = "\n\n".join(message["content"] for message in rendered)
    assert all(message.text in everything for message in messages)
