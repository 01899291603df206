"""What is sent to Anthropic beside the messages: limits, sampling, thinking, tools, schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aether.errors import InputError
from aether.extensions.llm._wire.anthropic import MessagesCodec
from aether.llm.contracts import LLMRequest, Message
from aether.llm.messages import ReasoningEffort
from aether.llm.profiles import profile_for
from aether.tools.contracts import Tool

if TYPE_CHECKING:
    from aether.extensions.llm._wire.codec import Rendered

HAIKU = "claude-haiku-5-5"
SONNET = "claude-sonnet-5-5"
OPUS = "claude-opus-5-5"
OLD = "claude-sonnet-4-5"
ANOTHER = "llama3:8b"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FREE_SCHEMA = {"type": "object", "additionalProperties": {"type": "integer"}}


def tool(name: str = "weather", **fields: Any) -> Tool:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    made = {"description": "Tells the weather.", "parameters": parameters, **fields}
    return Tool(name=name, handler=lambda city: city, **made)


def rendered(model: str = HAIKU, *, stream: bool = False, **fields: Any) -> Rendered:
    request = LLMRequest(fields.pop("messages", [Message("user", "hi")]), **fields)
    return MessagesCodec().render(request, model=model, stream=stream)


def body(model: str = HAIKU, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    return dict(rendered(model, stream=stream, **fields).body)


def test_the_least_that_is_sent() -> None:
    sent = rendered()
    assert sent.path == "/v1/messages"
    assert sent.headers == {"anthropic-version": "2026-10-21"}
    assert sent.body == {
        "model": HAIKU,
        "max_tokens": 20_000,
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_a_stream_is_asked_for_and_may_be_longer() -> None:
    sent = body(stream=True)
    assert sent["stream"] is True
    assert sent["max_tokens"] == 64_000


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("claude-opus-4-1", 32_000),
        ("claude-3-5-haiku-20241022", 8_192),
        ("claude-3-haiku-20240307", 4_096),
        (ANOTHER, 8_192),
    ],
)
def test_the_limit_of_the_answer_is_no_more_than_the_model_has(model: str, limit: int) -> None:
    assert body(model, stream=True)["max_tokens"] == limit


def test_a_chosen_limit_is_sent_as_it_is() -> None:
    assert body(max_tokens=7)["max_tokens"] == 7


# Sampling


def test_a_default_temperature_is_left_out_of_what_todays_models_get() -> None:
    sent = rendered(temperature=0.7, temperature_is_default=True)
    assert "temperature" not in sent.body
    assert sent.headers["anthropic-version"] == "2026-10-21"


@pytest.mark.parametrize("fields", [{"temperature": 0.2}, {"top_p": 0.9}])
@pytest.mark.parametrize("model", [HAIKU, OLD, ANOTHER])
def test_chosen_sampling_is_sent_under_the_version_that_has_it(
    model: str, fields: dict[str, Any]
) -> None:
    sent = rendered(model, **fields)
    assert fields.items() <= sent.body.items()
    assert sent.headers["anthropic-version"] == "2023-06-01"


def test_sampling_of_the_extra_body_counts_as_well() -> None:
    sent = rendered(OLD, extra_body={"top_k": 5})
    assert sent.body["top_k"] == 5
    assert sent.headers["anthropic-version"] == "2023-06-01"


def test_a_default_temperature_goes_to_models_that_take_it() -> None:
    default: dict[str, Any] = {"temperature": 0.7, "temperature_is_default": True}
    assert body(OLD, **default)["temperature"] == 0.7
    assert "temperature" not in body(ANOTHER, **default)
    assert "temperature" not in body(OLD, top_p=0.9, **default)
    assert "temperature" not in body(OLD, reasoning="high", **default)
    assert body(OLD, reasoning="none", **default)["temperature"] == 0.7


def test_stop_sequences_are_sent_and_a_seed_is_not() -> None:
    sent = body(stop="END", seed=1)
    assert sent["stop_sequences"] == ["END"]
    assert "seed" not in sent


def test_the_extra_body_comes_last() -> None:
    sent = body(extra_body={"metadata": {"user_id": "u"}, "max_tokens": 5})
    assert sent["metadata"] == {"user_id": "u"}
    assert sent["max_tokens"] == 5


# Thinking


def told(model: str, effort: ReasoningEffort | None, **fields: Any) -> tuple[Any, Any]:
    sent = body(model, reasoning=effort, **fields)
    return sent.get("thinking"), sent.get("output_config", {}).get("effort")


ADAPTIVE = {"type": "adaptive"}
SHOWN = {"type": "adaptive", "display": "summarized"}


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        (HAIKU, None, (None, None)),
        (HAIKU, "low", (SHOWN, "low")),
        (HAIKU, "minimal", (SHOWN, "low")),
        (HAIKU, "max", (SHOWN, "max")),
        (HAIKU, "none", ({"type": "disabled"}, None)),
        (SONNET, "none", ({"type": "between_tools"}, None)),
        (OPUS, "none", (SHOWN, "low")),
        ("claude-fable-5-2", "none", (SHOWN, "low")),
        ("claude-opus-5", "none", ({"type": "disabled"}, None)),
        ("claude-opus-4-6", "xhigh", (ADAPTIVE, "max")),
        ("claude-opus-4-6-20260205", "high", (ADAPTIVE, "high")),
        ("anthropic.claude-opus-4-8-v1:0", "xhigh", (SHOWN, "xhigh")),
        ("claude-opus-9", "none", (SHOWN, "low")),
        ("claude-3-5-haiku-latest", "high", (None, None)),
        (ANOTHER, "minimal", (ADAPTIVE, "low")),
        (ANOTHER, "none", ({"type": "disabled"}, None)),
    ],
)
def test_an_effort_is_told_in_the_models_words(
    model: str, effort: ReasoningEffort | None, expected: tuple[Any, Any]
) -> None:
    assert told(model, effort) == expected


@pytest.mark.parametrize(
    ("effort", "limit", "budget"),
    [
        ("minimal", 20_000, 1_024),
        ("medium", 20_000, 8_192),
        ("max", 100_000, 32_000),
        ("max", 8_000, 6_000),
        ("high", 1_400, 1_050),
    ],
)
def test_older_models_get_a_budget_below_the_limit(
    effort: ReasoningEffort, limit: int, budget: int
) -> None:
    expected = {"type": "enabled", "budget_tokens": budget}
    assert told(OLD, effort, max_tokens=limit) == (expected, None)


def test_a_limit_without_room_for_the_least_budget_leaves_thinking_out() -> None:
    assert told(OLD, "high", max_tokens=1_300) == (None, None)
    assert told(OLD, "none") == (None, None)


def test_the_one_model_with_both_gets_a_budget_and_an_effort() -> None:
    assert told("claude-opus-4-5", "max", max_tokens=64_000) == (
        {"type": "enabled", "budget_tokens": 32_000},
        "high",
    )


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [(HAIKU, "max", "high"), (HAIKU, "low", "low"), (OLD, "high", None)],
)
def test_a_model_that_must_call_a_tool_is_not_told_to_think(
    model: str, effort: ReasoningEffort, expected: str | None
) -> None:
    forced: dict[str, Any] = {"tools": [tool()], "tool_choice": "required"}
    assert told(model, effort, **forced) == (None, expected)


# Tools


def test_a_tool_is_described() -> None:
    sent = body(tools=[tool(), tool("bare", description="")])
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert sent["tools"] == [
        {"name": "weather", "description": "Tells the weather.", "input_schema": schema},
        {"name": "bare", "input_schema": schema},
    ]
    assert "tool_choice" not in sent


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        ("auto", None, {"type": "auto"}),
        ("auto", False, {"type": "auto", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", True, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("weather", None, {"type": "tool", "name": "weather"}),
        ("none", False, {"type": "none"}),
    ],
)
def test_the_choice_of_tools(choice: str | None, parallel: bool | None, expected: Any) -> None:
    sent = body(tools=[tool()], tool_choice=choice, parallel_tool_calls=parallel)
    assert sent["tool_choice"] == expected


@pytest.mark.parametrize("name", ["", "a.b", "a b", "x" * 65, "naïve"])
def test_a_tools_name_that_is_refused_is_said_beforehand(name: str) -> None:
    made = tool()
    object.__setattr__(made, "name", name)
    with pytest.raises(InputError, match="tool name"):
        body(tools=[made])


def test_a_choice_needs_its_tool() -> None:
    with pytest.raises(InputError, match=r"not offered\. Offered: weather"):
        body(tools=[tool()], tool_choice="wether")
    with pytest.raises(InputError, match="no tools are offered"):
        body(tool_choice="required")
    assert "tool_choice" not in body(tool_choice="none")


@pytest.mark.parametrize("model", [SONNET, OPUS, "claude-fable-5-2", "claude-mythos-5-1"])
@pytest.mark.parametrize("choice", ["required", "weather"])
def test_models_that_cannot_be_told_to_call_a_tool(model: str, choice: str) -> None:
    with pytest.raises(InputError, match=f"{model} cannot be told to call a tool"):
        body(model, tools=[tool()], tool_choice=choice)


# Schemas for the answer


def mode(model: str, schema: dict[str, Any]) -> str:
    request = LLMRequest([Message("user", "hi")], output_schema=schema)
    return MessagesCodec().output_mode(request, model)


@pytest.mark.parametrize(
    ("model", "schema", "expected"),
    [
        (HAIKU, SCHEMA, "native"),
        (OLD, SCHEMA, "native"),
        (HAIKU, FREE_SCHEMA, "tool"),
        (OPUS, FREE_SCHEMA, "prompt"),
        ("claude-sonnet-4", SCHEMA, "tool"),
        (ANOTHER, SCHEMA, "tool"),
    ],
)
def test_how_a_schema_is_held_to(model: str, schema: dict[str, Any], expected: str) -> None:
    assert mode(model, schema) == expected


def test_a_schema_stands_beside_the_effort() -> None:
    config = body(output_schema=SCHEMA, reasoning="low")["output_config"]
    assert config["effort"] == "low"
    assert config["format"]["type"] == "json_schema"
    assert config["format"]["schema"]["additionalProperties"] is False


def test_a_schema_that_cannot_be_enforced_is_left_to_the_message() -> None:
    assert "output_config" not in body(OPUS, output_schema=FREE_SCHEMA)


# What is known of models


@pytest.mark.parametrize(
    ("model", "like"),
    [
        ("claude-opus-5-20260724", "claude-opus-5"),
        ("claude-fable-5", "claude-mythos-5"),
        ("claude-sonnet-4-20250514", "claude-3-7-sonnet-latest"),
        ("claude-haiku-4-5-20251001", "claude-sonnet-4-5"),
        ("openrouter/anthropic/claude-opus-4.7", "claude-opus-4-7"),
        ("us.anthropic.claude-opus-4-6-v1", "claude-sonnet-4-6"),
        ("claude-opus-4@20250514", "claude-opus-4-1"),
    ],
)
def test_dates_and_prefixes_change_nothing(model: str, like: str) -> None:
    assert profile_for(model) == profile_for(like)


def test_every_listed_fact_has_its_source() -> None:
    for model in (HAIKU, SONNET, OPUS, OLD, "claude-opus-9", "claude-2.1"):
        profile = profile_for(model)
        assert profile.source
        assert profile.checked is not None
