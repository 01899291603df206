"""Servers that speak OpenAI's Chat Completions: where each is, and how it differs.

It must not import anything of Aether's: the table of provider names is made of it. The facts are
of 2026-11, from the vendors' documentation and from recorded answers of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal

__all__ = ["ELSEWHERE", "OPENAI", "VENDORS", "ReasoningControl", "Vendor", "is_among"]

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningControl:
    """How some of a server's models are told how much to reason."""

    models: tuple[str, ...] = ("*",)
    """Patterns of their names, a router's prefix left aside."""
    efforts: Mapping[str, Fields]
    """The fields of the body for each effort that they take. The nearest one counts."""


def _efforts(*names: str) -> dict[str, Fields]:
    """Efforts as OpenAI is told them."""
    return {name: {"reasoning_effort": name} for name in names}


@lru_cache(maxsize=256)
def is_among(model: str, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern matches the model's name, as it is or with a router's prefix left aside."""
    names = {model, model.rpartition("/")[2]}
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


_EVERY_EFFORT = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_THINKING_OFF: Fields = {"chat_template_kwargs": {"enable_thinking": False}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One server. The defaults are what most of them do."""

    name: str
    base_url: str | None
    """`None`: everybody has an address of their own."""
    state_host: str | None = None
    """What opaque state is bound to, if the name stands for more than one server."""
    path: str = "/chat/completions"
    """Below the base URL; `{model}` is the model's name."""
    query: str = ""
    """Without a question mark; a query of the base URL takes its place."""
    key_header: str = "authorization"
    """`authorization` carries the key as a bearer token, any other header as it is."""
    key_required: bool = True
    default_model: str | None = None
    max_tokens_field: str = "max_tokens"
    openai_models: bool = False
    """It serves OpenAI's own models, to which the rules of their profiles apply."""
    usage_option: bool = True
    """It takes `stream_options`. Others report usage in a stream without being asked."""
    seed_field: str | None = "seed"
    required_choice: str = "required"
    """What `tool_choice` is called that demands some tool."""
    named_choice: bool = True
    """A certain tool can be demanded. Otherwise it is demanded by being the only one."""
    short_call_ids: bool = False
    """Tool call ids must be exactly nine letters and digits."""
    longest_call_id: int | None = None
    """So many characters a tool call id may have."""
    parallel_option: bool = False
    """It takes `parallel_tool_calls`."""
    forced_choice_reasons: bool = True
    """A tool can be demanded of a model that reasons."""
    reasoning: tuple[ReasoningControl, ...] = ()
    """The first whose models match counts; other models are not told how much to reason. What is
    known of OpenAI's models goes before, where it serves them."""
    schema_models: tuple[str, ...] = ("*",)
    """Patterns of the models that can be given a schema for their answer. Others can only be told
    to answer in JSON."""
    strict_models: tuple[str, ...] = ()
    """Patterns of those that hold to it where `strict` is set, and OpenAI's rules are kept."""
    output_beside_tools: Literal["native", "tool", "prompt"] = "native"
    """How a schema for the answer is said where tools are offered: not all take both."""
    cache_control_models: tuple[str, ...] = ()
    """Patterns of the models, with their router's prefix, that are told by `cache_control` what to
    cache."""
    refused_parts: frozenset[str] = frozenset()
    """Types of content parts that it refuses."""
    media_types: tuple[str, ...] | None = None
    """Types of images and sound that it takes as bytes, where that is known."""
    bare_media: bool = False
    """It takes sound as bare base64, and a document by a URL, which may be a `data:` URL."""
    shown_images: bool = False
    """It takes back the images that a model has made."""
    bridge: str = ""
    """What the assistant is to have said between a tool's result and a user's message."""
    think_tags: bool = False
    """It may put reasoning inside `<think>` tags at the beginning of the text."""
    echoes_reasoning: bool = True
    """It shows reasoning in fields of the message, and wants them back as they were."""
    required_reasoning: str | None = None
    """A field that an assistant message with tool calls must have, even if it is empty."""
    lenient_finish: bool = False
    """It may end a whole stream without giving a finish reason."""


OPENAI = Vendor(
    name="openai",
    base_url="https://api.openai.com/v1",
    default_model="gpt-6-luna",  # see its profile for why
    max_tokens_field="max_completion_tokens",
    openai_models=True,
    longest_call_id=40,  # a longer one is a 400, with the code `string_above_max_length`
    parallel_option=True,
    reasoning=(ReasoningControl(efforts=_efforts(*_EVERY_EFFORT)),),
    strict_models=("*",),
    # "Image input requirements" and the formats of `input_audio` in its reference.
    media_types=("image/png", "image/jpeg", "image/webp", "image/gif", "audio/wav", "audio/mpeg"),
    echoes_reasoning=False,  # it never shows reasoning here, and refuses unknown message fields
)

ELSEWHERE = replace(
    OPENAI,
    key_required=False,
    max_tokens_field="max_tokens",
    longest_call_id=None,
    parallel_option=False,
    reasoning=(),
    media_types=None,
    echoes_reasoning=True,
)
"""A server of which no more is known than that it speaks the protocol. Its `state_host` is still to
be said."""

_ROWS = (
    Vendor(
        name="ollama",
        base_url="http://localhost:11434/v1",
        key_required=False,
        # Others answer 400 to an effort ("does not support thinking").
        reasoning=(
            ReasoningControl(models=("gpt-oss*",), efforts=_efforts("low", "medium", "high")),
            ReasoningControl(
                models=("qwen3", "qwen3:*b", "deepseek-r1*"),
                efforts=_efforts("none", "low", "medium", "high"),
            ),
        ),
        output_beside_tools="prompt",  # held to a schema, it can call nothing
        think_tags=True,
        lenient_finish=True,
    ),
    Vendor(
        name="vllm",
        base_url="http://localhost:8000/v1",
        key_required=False,
        parallel_option=True,
        # Templates leave aside what they do not know.
        reasoning=(
            ReasoningControl(efforts={"none": _THINKING_OFF, **_efforts("low", "medium", "high")}),
        ),
    ),
    Vendor(
        name="llamacpp",
        base_url="http://localhost:8080/v1",
        key_required=False,
        default_model="default",  # the server has one model, and ignores the name
        named_choice=False,  # it takes an object there for "auto"
        parallel_option=True,
        reasoning=(
            ReasoningControl(
                efforts={
                    "none": _THINKING_OFF,
                    **{
                        effort: {"chat_template_kwargs": {"reasoning_effort": effort}}
                        for effort in ("low", "medium", "high")
                    },
                }
            ),
        ),
        think_tags=True,
    ),
    Vendor(
        name="lmstudio",
        base_url="http://localhost:1234/v1",
        key_required=False,
        named_choice=False,  # as llama.cpp, on which it stands
    ),
    Vendor(
        name="groq",
        base_url="https://api.groq.com/openai/v1",
        max_tokens_field="max_completion_tokens",
        parallel_option=True,
        reasoning=(
            ReasoningControl(models=("gpt-oss-*",), efforts=_efforts("low", "medium", "high")),
            ReasoningControl(
                models=("qwen3.8-*",), efforts=_efforts("none", "low", "medium", "high")
            ),
            ReasoningControl(
                models=("qwen3*",),
                efforts={**_efforts("none"), "medium": {"reasoning_effort": "default"}},
            ),
        ),
        schema_models=("gpt-oss-*", "llama-4-*", "kimi-k2-*", "qwen3.8-*"),
        strict_models=("gpt-oss-*",),
        output_beside_tools="tool",  # a response format beside tools is a 400
        refused_parts=frozenset({"audio", "file"}),
        think_tags=True,  # the default of its `reasoning_format` is `raw`
    ),
    Vendor(
        name="openrouter",
        base_url="https://openrouter.ai/api/v1",
        usage_option=False,
        parallel_option=True,
        reasoning=(
            ReasoningControl(
                efforts={
                    effort: {"reasoning": {"effort": effort}}
                    for effort in _EVERY_EFFORT
                    if effort != "max"
                }
            ),
        ),
        strict_models=("gpt-*",),
        cache_control_models=("anthropic/*", "google/gemini-*"),
        shown_images=True,
    ),
    Vendor(
        name="deepseek",
        base_url="https://api.deepseek.com",
        default_model="deepseek-v4-flash",
        seed_field=None,
        forced_choice_reasons=False,
        reasoning=(
            ReasoningControl(
                efforts={
                    **_efforts(*_EVERY_EFFORT),  # it maps them itself
                    "none": {"thinking": {"type": "disabled"}},
                }
            ),
        ),
        schema_models=(),
        refused_parts=frozenset({"image", "audio", "file"}),
        required_reasoning="reasoning_content",
    ),
    Vendor(
        name="mistral",
        base_url="https://api.mistral.ai/v1",
        default_model="mistral-large-4",
        usage_option=False,  # unknown fields are a 422
        seed_field="random_seed",
        required_choice="any",
        short_call_ids=True,
        parallel_option=True,
        reasoning=(
            ReasoningControl(
                models=("mistral-small-latest", "mistral-small-26*", "mistral-medium-3-5*"),
                efforts=_efforts("none", "high"),
            ),
        ),
        strict_models=("*",),
        bare_media=True,
        bridge="OK.",  # a user's message straight after a result is a 400, code 3230
    ),
    Vendor(
        name="xai",
        base_url="https://api.x.ai/v1",
        parallel_option=True,
        # Its other models refuse the field, whatever it says.
        reasoning=(
            ReasoningControl(models=("grok-3-mini*",), efforts=_efforts("low", "high")),
            ReasoningControl(
                models=("grok-4.3*",), efforts=_efforts("none", "low", "medium", "high")
            ),
            ReasoningControl(
                models=("grok-4.5*", "grok-4.7*"), efforts=_efforts("low", "medium", "high")
            ),
        ),
    ),
    Vendor(
        name="together",
        base_url="https://api.together.xyz/v1",
        usage_option=False,
        reasoning=(
            ReasoningControl(models=("gpt-oss-*",), efforts=_efforts("low", "medium", "high")),
        ),
        think_tags=True,
    ),
    Vendor(
        name="cerebras",
        base_url="https://api.cerebras.ai/v1",
        reasoning=(
            ReasoningControl(models=("gpt-oss-*",), efforts=_efforts("low", "medium", "high")),
        ),
        strict_models=("*",),
        output_beside_tools="tool",  # it takes a response format or tools, not both
        think_tags=True,
    ),
    Vendor(
        name="perplexity",
        base_url="https://api.perplexity.ai",
        usage_option=False,
        seed_field=None,
        reasoning=(
            ReasoningControl(
                models=("sonar-deep-research",), efforts=_efforts("low", "medium", "high")
            ),
        ),
        think_tags=True,
    ),
    Vendor(
        name="azure",
        base_url=None,
        path="/openai/deployments/{model}/chat/completions",
        query="api-version=2024-10-21",  # the newest that is no preview
        key_header="api-key",
        max_tokens_field="max_completion_tokens",
        openai_models=True,
        longest_call_id=OPENAI.longest_call_id,
        parallel_option=True,
        reasoning=(ReasoningControl(efforts=_efforts(*_EVERY_EFFORT)),),
        strict_models=("*",),
        media_types=OPENAI.media_types,
        echoes_reasoning=False,
    ),
)

VENDORS = {vendor.name: vendor for vendor in _ROWS}
