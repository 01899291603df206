"""From a request to the body of a call, refused here if no model could take it.

It must not know an answer. What is left unsaid is left out of the body, but for `max_tokens`,
which the API demands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aether.errors import InputError
from aether.extensions.llm._wire.anthropic.messages import render_messages
from aether.extensions.llm._wire.anthropic.reasoning import Reasoning, reasoning_of
from aether.extensions.llm._wire.extra import laid_over
from aether.extensions.llm._wire.json_schema import anthropic_schema, input_schema
from aether.llm.messages import LLMRequest, ToolSpec
from aether.llm.profiles import ModelProfile, profile_for

__all__ = ["render_request", "supports_schema", "version"]

_VERSION = "2026-10-21"
_VERSION_WITH_SAMPLING = "2023-06-01"
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")

# Thinking counts towards the limit, so that a small one may end before the first word. An answer
# that is not streamed must come within ten minutes, for which the vendor's SDKs allow 21,333.
_MAX_TOKENS = 20_000
_MAX_TOKENS_STREAMED = 64_000
_MAX_TOKENS_UNKNOWN = 8_192  # another server's model


def version(body: Mapping[str, Any]) -> str:
    """The value of the header `anthropic-version`.

    The latest one, as the vendor recommends; it has removed the sampling parameters, which older
    models still take under the version before it.
    """
    return _VERSION if _SAMPLING.isdisjoint(body) else _VERSION_WITH_SAMPLING


def supports_schema(request: LLMRequest) -> bool:
    """Whether the schema for the answer is one that the API can enforce."""
    return anthropic_schema(request.output_schema) is not None


def render_request(
    request: LLMRequest, *, model: str, stream: bool, native_output: bool
) -> dict[str, Any]:
    """The body as a dict. Raises `InputError` for what is known to be refused."""
    profile = profile_for(model)
    max_tokens = request.max_tokens or _default_max_tokens(profile, stream=stream)
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        **render_messages(request.messages, profile, model),
    }
    if stream:
        body["stream"] = True
    forced = request.tool_choice not in (None, "auto", "none")
    if request.tools:
        if forced and profile.forced_tools is False:
            raise InputError(
                f"{model} cannot be told to call a tool: tool_choice is {request.tool_choice!r}. "
                "Leave it out and say in the messages when to call it, or choose another model, "
                "such as claude-haiku-5-5."
            )
        _add_tools(body, request)
    elif forced:
        raise InputError(f"tool_choice is {request.tool_choice!r}, but no tools are offered.")
    reasoning = reasoning_of(request.reasoning, profile, max_tokens=max_tokens, forced_tool=forced)
    _add_options(body, request, reasoning, profile)
    if native_output and request.output_schema is not None:
        schema = anthropic_schema(request.output_schema)
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}
    return laid_over(body, request.extra_body, stream=stream)


def _default_max_tokens(profile: ModelProfile, *, stream: bool) -> int:
    if profile.max_output_tokens is None:
        return _MAX_TOKENS_UNKNOWN
    return min(profile.max_output_tokens, _MAX_TOKENS_STREAMED if stream else _MAX_TOKENS)


def _add_options(
    body: dict[str, Any], request: LLMRequest, reasoning: Reasoning, profile: ModelProfile
) -> None:
    if reasoning.thinking is not None:
        body["thinking"] = reasoning.thinking
    if reasoning.effort is not None:
        body["output_config"] = {"effort": reasoning.effort}
    # A default is left out also where it would be refused: beside thinking, beside top_p.
    takes_default = profile.accepts_temperature and not reasoning.is_on and request.top_p is None
    chosen = not request.temperature_is_default
    if request.temperature is not None and (chosen or takes_default):
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop_sequences"] = list(request.stop)


def _add_tools(body: dict[str, Any], request: LLMRequest) -> None:
    body["tools"] = [_tool(tool) for tool in request.tools]
    choice = _tool_choice(request)
    if request.parallel_tool_calls is False and (choice is None or choice["type"] != "none"):
        choice = {"type": "auto", **(choice or {}), "disable_parallel_tool_use": True}
    if choice is not None:
        body["tool_choice"] = choice


def _tool(tool: ToolSpec) -> dict[str, Any]:
    if not _TOOL_NAME.fullmatch(tool.name):
        raise InputError(
            f"The tool name {tool.name!r} is not one that Anthropic takes: it may have up to 64 "
            "letters, digits, underscores and hyphens."
        )
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "input_schema": input_schema(tool.parameters)}


def _tool_choice(request: LLMRequest) -> dict[str, Any] | None:
    choice = request.tool_choice
    if choice is None:
        return None
    if choice in ("auto", "none"):
        return {"type": choice}
    if choice == "required":
        return {"type": "any"}
    if all(tool.name != choice for tool in request.tools):
        offered = ", ".join(tool.name for tool in request.tools)
        raise InputError(f"tool_choice is {choice!r}, which is not offered. Offered: {offered}.")
    return {"type": "tool", "name": choice}
