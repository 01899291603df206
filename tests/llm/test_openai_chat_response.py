"""What is read from a whole answer, whoever wrote it; and what is no answer."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether.errors import (
    AetherError,
    BadRequestError,
    ContentFilterError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ServerError,
)
from aether.extensions.llm._vendors import OPENAI, VENDORS, Vendor
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.openai_chat import parse_response
from aether.llm.contracts import LLMResponse


def parse(value: object, *, vendor: Vendor = OPENAI) -> LLMResponse:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    source = Source(vendor.name, "asked-model", lambda text: text.replace("sk-key", "[key]"))
    return parse_response(body, source=source, vendor=vendor)


def answer(
    content: object = "Hello", finish: str | None = "stop", **message: Any
) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "model": "told-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }


def call(arguments: object = "{}", *, id: object = "call_1", name: object = "add") -> Any:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_plain_answer_is_read() -> None:
    response = parse(answer())
    assert response.text == "Hello"
    assert response.model == "told-model"
    assert response.provider == "openai"
    assert response.finish_reason == response.finish_reason_raw == "stop"
    assert (response.input_tokens, response.output_tokens) == (9, 3)
    assert response.cache_read_tokens is None
    assert response.reasoning_tokens is None
    assert response.message.content == "Hello"


def test_the_model_that_was_asked_for_stands_in_where_none_is_told() -> None:
    assert parse({**answer(), "model": None}).model == "asked-model"


@pytest.mark.parametrize(
    ("raw", "neutral"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("content_filter", "content_filter"),
        ("error", "error"),
        ("model_length", "length"),
        ("insufficient_system_resource", "error"),
        ("abort", "error"),
        ("content_filter: PROHIBITED_CONTENT", "content_filter"),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", "error"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("STOP", "stop"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("SAFETY", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "error"),
        ("something_new", "other"),
        (None, "other"),
    ],
)
def test_finish_reasons_are_mapped_and_kept(raw: str | None, neutral: str) -> None:
    response = parse(answer(finish=raw))
    assert response.finish_reason == neutral
    assert response.finish_reason_raw == raw


def test_calls_are_told_by_the_calls_and_not_by_the_finish_reason() -> None:
    response = parse(answer(None, "stop", tool_calls=[call('{"a": 1}')]))
    assert response.finish_reason == "tool_calls"
    assert response.text == ""
    assert [(c.id, c.name, c.arguments) for c in response.tool_calls] == [
        ("call_1", "add", {"a": 1})
    ]
    assert response.message.tool_calls == response.tool_calls


@pytest.mark.parametrize("arguments", ["{}", "", "null", " ", None, {}])
def test_a_call_without_parameters_has_no_arguments(arguments: object) -> None:
    (made,) = parse(answer(None, "tool_calls", tool_calls=[call(arguments)])).tool_calls
    assert made.arguments == {}
    assert made.invalid_arguments is None


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "7", '{"a": NaN}', ["x"], 7])
def test_arguments_that_are_no_object_are_marked(arguments: object) -> None:
    (made,) = parse(answer(None, "tool_calls", tool_calls=[call(arguments)])).tool_calls
    assert made.arguments == {}
    assert made.invalid_arguments


@pytest.mark.parametrize("finish", ["length", "model_length", "content_filter", "error", "abort"])
def test_a_call_cut_off_before_its_arguments_is_marked(finish: str) -> None:
    (made,) = parse(answer(None, finish, tool_calls=[call("")])).tool_calls
    assert made.invalid_arguments is not None


@pytest.mark.parametrize("finish", ["function_call", "stop"])
def test_a_call_in_the_place_of_older_servers_is_one(finish: str) -> None:
    old = {"name": "add", "arguments": '{"a": 1}'}
    response = parse(answer(None, finish, function_call=old))
    assert [(c.name, c.arguments) for c in response.tool_calls] == [("add", {"a": 1})]
    assert response.finish_reason == "tool_calls"
    assert len(parse(answer(None, tool_calls=[call()], function_call=old)).tool_calls) == 1


@pytest.mark.parametrize("finish", ["content_filter: PROHIBITED_CONTENT", "error"])
def test_a_choice_may_say_nothing_but_that_it_was_blocked(finish: str) -> None:
    """So Gemini's compatible server does."""
    blocked = {**answer(), "choices": [{"index": 0, "finish_reason": finish}]}
    response = parse(blocked)
    assert response.text == ""
    assert response.finish_reason == finish.partition(":")[0]
    assert response.input_tokens == 9


def test_arguments_may_come_as_an_object() -> None:
    (made,) = parse(answer(None, "stop", tool_calls=[call({"a": 1})])).tool_calls
    assert made.arguments == {"a": 1}


@pytest.mark.parametrize("id", ["", None])
def test_a_call_without_an_id_gets_one(id: object) -> None:
    (made,) = parse(answer(None, "tool_calls", tool_calls=[call(id=id)])).tool_calls
    assert made.id


def test_calls_that_share_an_id_are_told_apart() -> None:
    first, second = parse(answer(None, "tool_calls", tool_calls=[call(), call()])).tool_calls
    assert first.id == "call_1"
    assert second.id != first.id


def test_the_signature_of_a_call_is_kept() -> None:
    signed = {**call(), "extra_content": {"google": {"thought_signature": "abc"}}}
    (made,) = parse(answer(None, "tool_calls", tool_calls=[signed])).tool_calls
    assert made.provider_state == {
        "openai": {"extra_content": {"google": {"thought_signature": "abc"}}}
    }


def test_a_refusal_is_a_content_filter_without_text() -> None:
    response = parse(answer(None, "stop", refusal="I cannot."))
    assert response.finish_reason == "content_filter"
    assert response.text == ""
    assert response.message.provider_state == {"openai": {"refusal": "I cannot."}}


@pytest.mark.row("S24")
@pytest.mark.parametrize("vendor", [OPENAI, VENDORS["mistral"]])
def test_a_refusal_that_is_a_part_of_the_content_is_one(vendor: Vendor) -> None:
    said = [{"type": "text", "text": "Well."}, {"type": "refusal", "refusal": "I cannot."}]
    for content, text in (said[1:], ""), (said, "Well."):
        response = parse(answer(content), vendor=vendor)
        assert response.text == text
        assert response.finish_reason == "content_filter"
        assert "I cannot." in str(response.message.provider_state)


@pytest.mark.row("S24")
def test_an_answer_in_parts_that_nobody_reads_is_no_empty_one() -> None:
    part = {"type": "of_tomorrow", "of_tomorrow": "?"}
    response = parse(answer([part]), vendor=VENDORS["mistral"])
    assert (response.text, response.finish_reason) == ("", "other")
    assert "of_tomorrow" in str(response.message.provider_state)
    assert parse(answer([part, {"type": "text", "text": "4"}])).finish_reason == "stop"
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    assert parse(answer([thought])).finish_reason == "stop"


@pytest.mark.row("S13")
def test_a_text_of_the_wrong_type_is_not_left_out() -> None:
    with pytest.raises(ProtocolError, match="text of a content part"):
        parse(answer([{"type": "text", "text": {"value": "Hello"}}]))


@pytest.mark.row("S17", "T13")
@pytest.mark.parametrize("kind", ["tool_use", "tool_call", "function_call"])
def test_a_call_among_the_parts_of_the_content_is_not_lost(kind: str) -> None:
    parts = [{"type": "text", "text": "Let me look."}, {"type": kind, "name": "add"}]
    with pytest.raises(ProtocolError, match="tool call as a part"):
        parse(answer(parts, "tool_calls"))
    assert len(parse(answer(parts, "tool_calls", tool_calls=[call()])).tool_calls) == 1


@pytest.mark.row("S17", "T13")
@pytest.mark.parametrize("index", [{"index": 0}, {}])
def test_calls_in_a_choice_of_their_own_are_not_lost(index: dict[str, int]) -> None:
    """As GitHub Copilot's server tells what Anthropic's models answer."""
    made = answer("Let me look.", "tool_calls")
    made["choices"] = [
        {**index, "message": {"content": "Let me look."}, "finish_reason": "tool_calls"},
        {**index, "message": {"tool_calls": [call()]}, "finish_reason": "tool_calls"},
    ]
    with pytest.raises(ProtocolError, match="in a choice of their own"):
        parse(made)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_read_and_kept_under_its_name(field: str) -> None:
    response = parse(answer("4", **{field: "2 + 2"}), vendor=VENDORS["vllm"])
    assert response.text == "4"
    assert response.reasoning == "2 + 2"
    assert response.message.provider_state == {"vllm": {field: "2 + 2"}}


def test_reasoning_that_comes_under_both_names_is_read_once() -> None:
    both = answer("4", reasoning_content="", reasoning="2 + 2")
    response = parse(both, vendor=VENDORS["vllm"])
    assert response.reasoning == "2 + 2"
    assert response.message.provider_state == {"vllm": {"reasoning": "2 + 2"}}


def test_reasoning_details_are_kept_word_for_word() -> None:
    details = [{"type": "reasoning.encrypted", "data": "x", "index": 0}]
    made = answer("4", reasoning="so", reasoning_details=details)
    response = parse(made, vendor=VENDORS["openrouter"])
    assert response.message.provider_state["openrouter"] == {
        "reasoning": "so",
        "reasoning_details": details,
    }


def test_content_may_be_a_list_with_thinking_in_it() -> None:
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "4"},
        {"type": "reference", "reference_ids": [1]},
    ]
    response = parse(answer(content), vendor=VENDORS["mistral"])
    assert (response.text, response.reasoning) == ("4", "hm")


def test_content_may_be_a_list_with_a_summary_of_reasoning_in_it() -> None:
    """So Databricks' is."""
    said = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "because"}]},
        {"type": "text", "text": "Hello"},
    ]
    response = parse(answer(said), vendor=VENDORS["vllm"])
    assert (response.text, response.reasoning) == ("Hello", "because")
    assert response.message.provider_state == {"vllm": {"content": said}}


def test_think_tags_are_reasoning_where_the_server_is_known_for_them_and_text_elsewhere() -> None:
    tagged = "<think>\nhm</think>\n\n4"
    known = parse(answer(tagged), vendor=VENDORS["ollama"])
    assert (known.text, known.reasoning) == ("4", "\nhm")
    other = parse(answer(tagged))
    assert (other.text, other.reasoning) == (tagged, None)
    stray = parse(answer("x <think>y</think></think>"), vendor=VENDORS["ollama"])
    assert stray.text == "x <think>y</think></think>"


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 3}, (9, 3, None, None, None)),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
            (9, 3, 4, 2, 1),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 3, "cached_tokens": 5}, (9, 3, 5, None, None)),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 6}, (9, None, 6, None, None)),
        (
            {"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109},
            (35, 74, None, None, None),
        ),
        (
            {
                "prompt_tokens": 11,
                "completion_tokens": 15,
                "total_tokens": 401,
                "prompt_tokens_details": {"audio_tokens": 375},
            },
            (386, 15, None, None, None),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 5},
            (9, 3, None, None, None),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 30, "reasoning_tokens": 7},
            (9, 30, None, None, 7),
        ),
        (  # Perplexity's, where it is no part of the output
            {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "reasoning_tokens": 7},
            (9, 10, None, None, 7),
        ),
        ({"prompt_tokens": -1, "completion_tokens": "3"}, (None,) * 5),
        ({"prompt_tokens": True, "completion_tokens": 1.5}, (None,) * 5),
        ({"prompt_tokens": 9, "prompt_tokens_details": []}, (9, None, None, None, None)),
        ([], (None,) * 5),
        ("many", (None,) * 5),
        (None, (None,) * 5),
    ],
)
def test_usage_is_read_whatever_its_nesting_and_unknown_is_none(
    usage: object, counts: tuple[int | None, ...]
) -> None:
    response = parse({**answer(), "usage": usage})
    assert counts == (
        response.input_tokens,
        response.output_tokens,
        response.cache_read_tokens,
        response.cache_write_tokens,
        response.reasoning_tokens,
    )


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost_in_usd_ticks": 37_756_000}, 0.0037756),
        ({"cost": 0.95, "cost_details": {"upstream_inference_cost": 0.9}, "is_byok": False}, 0.95),
        ({"cost": 0.25, "cost_details": {"upstream_inference_cost": 0.5}, "is_byok": True}, 0.75),
        ({"cost": 0, "cost_details": {}, "is_byok": True}, None),
        ({"cost": {"total_cost": 0.006, "request_cost": 0.005}}, 0.006),
        ({"cost_in_usd_ticks": 10**400}, None),
        ({"cost": {"total_cost": 10**400}}, None),
        ({"cost": 0.95}, None),
        ({"cost": -1, "cost_details": {}}, None),
        ({"cost": "0.95", "cost_details": {}}, None),
        ({"cost": True, "cost_details": {}}, None),
        ({"cost": {"diem": 0}}, None),
        ({"prompt_tokens": 9}, None),
    ],
)
def test_what_a_server_says_that_it_cost_is_read(usage: object, cost: float | None) -> None:
    assert parse({**answer(), "usage": usage}).cost_usd == cost


def test_usage_of_groqs_older_place_is_read() -> None:
    old = {**answer(), "usage": None, "x_groq": {"usage": {"prompt_tokens": 1}}}
    assert parse(old).input_tokens == 1


def test_only_the_first_choice_counts() -> None:
    made = answer("first")
    second = {"index": 1, "message": {"content": "second"}, "finish_reason": "stop"}
    made["choices"].insert(0, second)
    assert parse(made).text == "first"


def test_an_answer_may_be_empty_if_it_says_why() -> None:
    assert parse(answer(None, "length")).text == ""
    assert parse(answer("", "content_filter")).finish_reason == "content_filter"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Bad gateway</body></html>",
        b'{"choices": [',
        b"\xff\xfe",
        b"null",
        b"7",
        b'"text"',
        b"[]",
        b"{}",
        b'{"choices": null}',
        b'{"choices": []}',
        b'{"choices": {}}',
        b'{"choices": [7]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": 7}]}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": {"content": "x", "tool_calls": {}}}]}',
        b'{"choices": [{"message": {"content": "x", "tool_calls": [null]}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"id": 7, "function": {"name": "a"}}]}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"function": {"name": ""}}]}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"type": "custom"}]}}]}',
        b'{"choices": [{"message": {"content": null}, "finish_reason": null}]}',
        b'{"choices": [{"message": {"content": ""}, "finish_reason": "tool_calls"}]}',
        b'{"choices": [{"message": {"function_call": {}}, "finish_reason": "function_call"}]}',
        b'{"choices": [{"message": {"content": "x"}, "finish_reason": 7}]}',
    ],
)
def test_what_is_no_answer_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(body)
    assert caught.value.provider == "openai"
    assert caught.value.model == "asked-model"
    assert not caught.value.retryable


def test_the_beginning_of_what_came_is_quoted_without_the_key() -> None:
    with pytest.raises(ProtocolError, match=r"<html>\[key\]") as caught:
        parse(b"<html>sk-key" + b"x" * 10_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        ({"error": {"message": "m", "code": 429}}, RateLimitError, True),
        ({"error": {"message": "m", "type": "overloaded_error"}}, OverloadedError, True),
        ({"error": {"message": "m", "type": "server_error"}}, ServerError, True),
        ({"error": {"message": "m", "type": "invalid_request_error"}}, BadRequestError, False),
        ({"error": {"message": "m", "code": "content_filter"}}, ContentFilterError, False),
        ({"error": {"message": "m"}}, ServerError, False),
        ({"error": "out of order"}, ServerError, False),
        ({"object": "error", "message": "m", "code": 400}, BadRequestError, False),
        ([{"error": {"message": "m", "code": 503}}], OverloadedError, True),
        ({**answer(), "error": {"message": "m", "code": 400}}, BadRequestError, False),
        (
            {"choices": [{"message": {"content": ""}, "error": {"code": 502, "message": "m"}}]},
            ServerError,
            True,
        ),
    ],
)
def test_an_error_inside_an_answer_is_raised_as_what_it_is(
    error: object, kind: type[AetherError], retryable: bool
) -> None:
    with pytest.raises(kind) as caught:
        parse(error)
    assert type(caught.value) is kind
    assert getattr(caught.value, "retryable", None) is retryable


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(1e999),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
_RICH = answer(
    [{"type": "text", "text": "x"}, {"type": "thinking", "thinking": [{"text": "y"}]}],
    "tool_calls",
    tool_calls=[{**call('{"a": 1}'), "extra_content": {"google": {}}}],
    reasoning="r",
    reasoning_details=[{"type": "reasoning.text", "text": "r", "index": 0}],
    refusal="no",
) | {"error": None, "x_groq": {"usage": {}}}
_RICH["usage"] |= {"prompt_tokens_details": {"cached_tokens": 1}}


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in the value that can be changed, as its container and its key."""
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
    found = [(value, key) for key, _ in pairs]
    for _, inner in pairs:
        if isinstance(inner, dict | list):
            found += _places(inner)
    return found


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_wrong_shape_is_an_answer_or_an_error_of_ours(data: st.DataObject) -> None:
    value = copy.deepcopy(_RICH)
    for _ in range(data.draw(st.integers(1, 3))):
        places = _places(value)
        container, key = places[data.draw(st.integers(0, len(places) - 1))]
        container[key] = data.draw(_JSON)
        if not _places(value):
            break
    vendor = VENDORS[data.draw(st.sampled_from(["openrouter", "ollama"]))]
    try:
        response = parse(value, vendor=vendor)
    except AetherError as error:
        assert len(str(error)) <= 500
    else:
        fits = LLMResponse.model_validate(response.model_dump(), strict=True)
        assert repr(fits) == repr(response)  # NaN may be in it, which equals nothing
