"""Whole answers of Anthropic: text, thinking, calls, usage, ends, and what is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aether.errors import (
    AuthenticationError,
    BadRequestError,
    OverloadedError,
    ProtocolError,
    ProviderError,
    RateLimitError,
    ServerError,
)
from aether.extensions.llm._wire.anthropic import parse_response
from aether.extensions.llm._wire.errors import Source
from aether.llm.contracts import LLMResponse

TEXT = {"type": "text", "text": "Hello"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}}


def source() -> Source:
    return Source("anthropic", "asked-model", str, "req_1")


def parse(value: Any) -> LLMResponse:
    return parse_response(json.dumps(value).encode(), source=source())


def answer(*content: Any, stop: Any = "end_turn", **fields: Any) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "model": "told-model",
        "content": list(content),
        "stop_reason": stop,
        "usage": {"input_tokens": 9, "output_tokens": 3},
        **fields,
    }


def test_text_is_read() -> None:
    response = parse(answer(TEXT, {"type": "text", "text": " there", "citations": None}))
    assert response.text == "Hello there"
    assert response.model == "told-model"
    assert response.finish_reason == "stop"
    assert response.finish_reason_raw == "end_turn"
    assert (response.input_tokens, response.output_tokens) == (9, 3)
    assert response.request_id == "req_1"
    assert response.provider == "anthropic"
    assert response.reasoning is None


def test_thinking_is_reasoning_and_no_text() -> None:
    response = parse(
        answer(
            {"type": "thinking", "thinking": "One. ", "signature": "s1"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "thinking", "thinking": "Two.", "signature": "s2"},
            TEXT,
        )
    )
    assert response.reasoning == "One. Two."
    assert response.text == "Hello"


def test_calls_are_read_beside_text() -> None:
    response = parse(answer(TEXT, CALL, {**CALL, "id": "toolu_2", "input": {}}, stop="tool_use"))
    assert [(call.id, call.name, call.arguments) for call in response.tool_calls] == [
        ("toolu_1", "add", {"a": 1}),
        ("toolu_2", "add", {}),
    ]
    assert response.finish_reason == "tool_calls"
    assert response.message.text == "Hello"
    assert response.message.tool_calls == response.tool_calls


def test_calls_count_whatever_the_stop_reason_says() -> None:
    assert parse(answer(CALL, stop="end_turn")).finish_reason == "tool_calls"


@pytest.mark.row("S20")
def test_a_call_without_an_id_or_with_a_known_one_is_given_one() -> None:
    calls = parse(answer({**CALL, "id": None}, CALL, CALL, stop="tool_use")).tool_calls
    assert len({call.id for call in calls}) == 3
    assert all(call.id for call in calls)


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "other"),
        ("something_new", "other"),
        (None, "other"),
    ],
)
def test_why_it_stopped(stop: str | None, finish: str) -> None:
    response = parse(answer(TEXT, stop=stop))
    assert response.finish_reason == finish
    assert response.finish_reason_raw == stop


def test_a_text_may_be_null() -> None:
    response = parse(answer({"type": "text", "text": None}, TEXT))
    assert response.text == "Hello"
    assert response.message.provider_state == {}


def test_an_answer_may_be_empty() -> None:
    response = parse(answer())
    assert response.text == ""
    assert response.finish_reason == "stop"


@pytest.mark.parametrize("given", [{}, {"a": 1}])
def test_a_call_that_the_limit_may_have_cut_off_is_not_run(given: dict[str, Any]) -> None:
    whole, cut = parse(
        answer(CALL, {**CALL, "id": "toolu_2", "input": given}, stop="max_tokens")
    ).tool_calls
    assert whole.invalid_arguments is None
    assert json.loads(cut.invalid_arguments or "null") == given
    assert cut.arguments == {}


# Usage


def counted(**usage: Any) -> tuple[Any, ...]:
    response = parse(answer(TEXT, usage=usage))
    return (
        response.input_tokens,
        response.output_tokens,
        response.cache_read_tokens,
        response.cache_write_tokens,
        response.reasoning_tokens,
    )


def test_input_is_the_sum_of_what_was_cached_and_what_was_not() -> None:
    assert counted(
        input_tokens=100,
        cache_read_input_tokens=20,
        cache_creation_input_tokens=3,
        cache_creation={"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 0},
        output_tokens=50,
        output_tokens_details={"thinking_tokens": 40},
    ) == (123, 50, 20, 3, 40)


def test_what_is_not_told_is_not_known() -> None:
    assert counted(input_tokens=1, output_tokens=2) == (1, 2, None, None, None)
    assert counted(output_tokens=2, cache_read_input_tokens=5) == (None, 2, 5, None, None)
    assert counted(input_tokens=-1, output_tokens="2", output_tokens_details=7) == (None,) * 5
    assert parse(answer(TEXT, usage=None)).input_tokens is None


def test_a_compaction_by_the_server_is_counted_as_well() -> None:
    spent = {"type": "compaction", "input_tokens": 1_000, "output_tokens": 30}
    usage = {"input_tokens": 10, "output_tokens": 2, "cache_read_input_tokens": 1}
    assert counted(**usage, iterations=[spent, {"type": "message", **usage}]) == (
        *(1_011, 32),
        *(1, None, None),
    )
    assert counted(**usage, iterations=[{"type": "compaction"}])[:2] == (None, None)


# What is no answer


@pytest.mark.parametrize(
    "value",
    [
        {},
        answer(stop=None),
        answer(stop="tool_use"),
        answer(TEXT, stop="tool_use"),
        answer(TEXT, stop=5),
        answer("Hello"),
        answer({"text": "Hello"}),
        answer({"type": "text", "text": ["Hello"]}),
        answer({**CALL, "input": '{"a": 1}'}),
        answer({**CALL, "name": ""}),
        answer(content="Hello"),
        {"type": "completion", "completion": "Hello", "stop_reason": "stop_sequence"},
        "Hello",
    ],
)
def test_what_the_protocol_does_not_allow_is_an_error(value: Any) -> None:
    with pytest.raises(ProtocolError):
        parse(value)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{"])
def test_a_body_that_is_no_json_is_an_error(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="answered 200"):
        parse_response(body, source=source())


@pytest.mark.parametrize(
    ("kind", "error_class", "status"),
    [
        ("overloaded_error", OverloadedError, 529),
        ("rate_limit_error", RateLimitError, 429),
        ("authentication_error", AuthenticationError, 401),
        ("invalid_request_error", BadRequestError, 400),
        ("api_error", ServerError, 500),
        ("timeout_error", ServerError, 504),
    ],
)
def test_an_error_in_the_body_is_raised_as_what_it_is(
    kind: str, error_class: type[ProviderError], status: int
) -> None:
    value = {"type": "error", "error": {"type": kind, "message": "No."}, "request_id": "req_2"}
    with pytest.raises(error_class) as caught:
        parse(value)
    assert caught.value.status == status
    assert caught.value.kind in (kind, "error")


@pytest.mark.row("S24")
@pytest.mark.parametrize("kind", ["mcp_tool_use", "of_tomorrow"])
def test_an_answer_that_nobody_reads_is_no_empty_one(kind: str) -> None:
    block = {"type": kind, "id": "b_1", "name": "add", "input": {}}
    response = parse(answer(block))
    assert (response.text, response.finish_reason) == ("", "other")
    assert kind in str(response.message.provider_state)
    assert parse(answer(block, TEXT)).finish_reason == "stop"
