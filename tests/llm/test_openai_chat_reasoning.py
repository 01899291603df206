"""How much a model is to reason: each server is told in its own words, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import pytest

from aether.errors import InputError
from aether.extensions.llm._vendors import ELSEWHERE, OPENAI, VENDORS, Vendor
from aether.extensions.llm._wire.openai_chat import render_request
from aether.llm.contracts import LLMRequest, Message
from aether.llm.messages import ReasoningEffort
from aether.llm.profiles import ModelProfile

EFFORTS = get_args(ReasoningEffort)


@dataclass(frozen=True)
class Spec:
    name: str = "add"
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})


def told(
    reasoning: str | None, *, vendor: Vendor | str = OPENAI, model: str = "m", **fields: Any
) -> dict[str, Any]:
    """What of the body is about reasoning."""
    effort = cast("ReasoningEffort | None", reasoning)
    request = LLMRequest([Message("user", "hi")], reasoning=effort, **fields)
    row = VENDORS[vendor] if isinstance(vendor, str) else vendor
    body = render_request(request, model=model, vendor=row, stream=False, now=0)
    names = ("reasoning_effort", "reasoning", "thinking", "chat_template_kwargs")
    return {name: body[name] for name in names if name in body}


def know(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
    """Let this be known of any model."""
    profile = ModelProfile(patterns=(), **facts)
    module = "aether.extensions.llm._wire.openai_chat.request"
    monkeypatch.setattr(f"{module}.profile_for", lambda _: profile)


@pytest.mark.parametrize("vendor", [OPENAI, ELSEWHERE, *VENDORS.values()])
def test_nothing_is_said_where_nobody_asked(vendor: Vendor) -> None:
    assert told(None, vendor=vendor) == {}


@pytest.mark.parametrize(
    ("vendor", "model", "reasoning", "fields"),
    [
        ("azure", "my-deployment", "high", {"reasoning_effort": "high"}),
        ("groq", "openai/gpt-oss-120b", "none", {"reasoning_effort": "low"}),
        ("groq", "openai/gpt-oss-120b", "max", {"reasoning_effort": "high"}),
        ("groq", "qwen/qwen3-32b", "none", {"reasoning_effort": "none"}),
        ("groq", "qwen/qwen3-32b", "high", {"reasoning_effort": "default"}),
        ("groq", "qwen/qwen3.8-27b", "low", {"reasoning_effort": "low"}),
        ("mistral", "mistral-small-latest", "low", {"reasoning_effort": "high"}),
        ("mistral", "mistral-small-latest", "none", {"reasoning_effort": "none"}),
        ("deepseek", "deepseek-v4-flash", "none", {"thinking": {"type": "disabled"}}),
        ("deepseek", "deepseek-v4-flash", "max", {"reasoning_effort": "max"}),
        ("openrouter", "z-ai/glm-4.7", "low", {"reasoning": {"effort": "low"}}),
        ("openrouter", "z-ai/glm-4.7", "max", {"reasoning": {"effort": "xhigh"}}),
        ("xai", "grok-4.3", "none", {"reasoning_effort": "none"}),
        ("xai", "grok-4.5", "none", {"reasoning_effort": "low"}),
        ("xai", "grok-3-mini", "medium", {"reasoning_effort": "high"}),
        ("vllm", "qwen3", "none", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("vllm", "gpt-oss", "high", {"reasoning_effort": "high"}),
        ("llamacpp", "default", "none", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("llamacpp", "default", "low", {"chat_template_kwargs": {"reasoning_effort": "low"}}),
        ("ollama", "gpt-oss:20b", "high", {"reasoning_effort": "high"}),
        ("ollama", "qwen3:8b", "none", {"reasoning_effort": "none"}),
        ("cerebras", "gpt-oss-120b", "minimal", {"reasoning_effort": "low"}),
        ("together", "openai/gpt-oss-20b", "medium", {"reasoning_effort": "medium"}),
        ("perplexity", "sonar-deep-research", "low", {"reasoning_effort": "low"}),
    ],
)
def test_each_server_is_told_in_its_words(
    vendor: str, model: str, reasoning: str, fields: dict[str, Any]
) -> None:
    assert told(reasoning, vendor=vendor, model=model) == fields


@pytest.mark.parametrize(
    ("vendor", "model"),
    [
        ("groq", "llama-3.3-70b-versatile"),
        ("mistral", "magistral-medium-latest"),
        ("xai", "grok-4.20-reasoning"),
        ("ollama", "llama3"),
        ("cerebras", "qwen-3-coder-480b"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("perplexity", "sonar"),
        ("lmstudio", "any"),
    ],
)
def test_it_is_left_out_for_models_not_known_to_take_it(vendor: str, model: str) -> None:
    assert [told(effort, vendor=vendor, model=model) for effort in EFFORTS] == [{}] * len(EFFORTS)


def test_it_is_left_out_for_a_model_that_does_not_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, efforts=())
    assert told("high") == {}


def test_the_nearest_effort_that_the_model_takes_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, efforts=("low", "high", "xhigh"))
    sent = [told(effort)["reasoning_effort"] for effort in EFFORTS]
    assert sent == ["low", "low", "low", "high", "high", "xhigh", "xhigh"]


def test_openais_newest_models_are_told_what_was_asked() -> None:
    sent = [told(effort, model="gpt-9-unheard-of")["reasoning_effort"] for effort in EFFORTS]
    assert sent == list(EFFORTS)


def test_models_of_the_responses_api_have_no_highest_effort_here() -> None:
    assert told("max", model="gpt-6.1-sol") == {"reasoning_effort": "xhigh"}


def test_an_unknown_server_is_told_for_models_that_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert told("low", vendor=ELSEWHERE, model="llama3") == {}
    know(monkeypatch, efforts=("low",))
    assert told("low", vendor=ELSEWHERE) == {"reasoning_effort": "low"}


def test_reasoning_with_tools_is_an_error_where_chat_completions_has_no_both() -> None:
    for effort in (None, "none"):
        assert told(effort, model="gpt-6-luna", tools=[Spec()]) == {"reasoning_effort": "none"}
    with pytest.raises(InputError, match="api='responses'"):
        told("high", model="gpt-6-luna", tools=[Spec()])
    assert told("high", vendor="openrouter", model="openai/gpt-6-luna", tools=[Spec()])


def test_deepseek_does_not_reason_where_a_tool_is_demanded() -> None:
    off = {"thinking": {"type": "disabled"}}
    for choice in ("required", "add"):
        forced: dict[str, Any] = {"tools": [Spec()], "tool_choice": choice, "vendor": "deepseek"}
        assert told(None, **forced) == off
        assert told("none", **forced) == off
        with pytest.raises(InputError, match="tool_choice"):
            told("low", **forced)
    assert told(None, vendor="deepseek", tools=[Spec()], tool_choice="auto") == {}
