"""From a request to the body of a Chat Completions call, refused here if no server could take it.

It must not know an answer. What is left unsaid is left out of the body: servers differ in which
fields they know, and some refuse a call for an unknown one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from aether.errors import InputError
from aether.extensions.llm._vendors import Vendor, is_among
from aether.extensions.llm._wire.extra import laid_over
from aether.extensions.llm._wire.json_schema import strict_schema
from aether.extensions.llm._wire.openai_chat.messages import render_messages
from aether.extensions.llm._wire.openai_chat.reasoning import reasoning_fields
from aether.llm.messages import LLMRequest, ToolSpec
from aether.llm.profiles import ModelProfile, profile_for

__all__ = ["render_request"]

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SCHEMA_NAME = "answer"


def render_request(
    request: LLMRequest, *, model: str, vendor: Vendor, stream: bool, now: float
) -> dict[str, Any]:
    """The body as a dict. Raises `InputError` for what the server is known to refuse.

    `now` is the time in seconds since the epoch.
    """
    profile = profile_for(model)
    body: dict[str, Any] = {
        "model": model,
        "messages": render_messages(request.messages, vendor, model, now=now),
    }
    if stream:
        body["stream"] = True
        if vendor.usage_option:
            body["stream_options"] = {"include_usage": True}
    tools = request.tools
    if tools:
        _add_tools(body, request, vendor, profile, model)
    elif request.tool_choice not in (None, "auto", "none"):
        raise InputError(f"tool_choice is {request.tool_choice!r}, but no tools are offered.")
    if request.reasoning is not None or (
        tools and (request.tool_choice is not None or profile.chat_tools == "without_reasoning")
    ):
        body.update(reasoning_fields(request, vendor=vendor, profile=profile, model=model))
    _add_options(body, request, vendor, profile, model)
    return laid_over(body, request.extra_body, stream=stream)


def _add_options(
    body: dict[str, Any],
    request: LLMRequest,
    vendor: Vendor,
    profile: ModelProfile,
    model: str,
) -> None:
    chosen = not request.temperature_is_default or profile.accepts_temperature
    if request.temperature is not None and chosen:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        field = vendor.max_tokens_field
        if vendor.openai_models and profile.max_tokens_field is not None:
            field = profile.max_tokens_field
        body[field] = request.max_tokens
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.seed is not None and vendor.seed_field is not None:
        body[vendor.seed_field] = request.seed
    if request.stop:
        if vendor.openai_models and profile.accepts_stop is False:
            raise InputError(f"{model} takes no stop sequences. Cut the text where it is read.")
        body["stop"] = list(request.stop)
    schema = request.output_schema
    if schema is not None and not (request.tools and vendor.output_beside_tools == "prompt"):
        body["response_format"] = _response_format(schema, vendor, model)


def _add_tools(
    body: dict[str, Any],
    request: LLMRequest,
    vendor: Vendor,
    profile: ModelProfile,
    model: str,
) -> None:
    if vendor.openai_models and profile.chat_tools == "refused":
        raise InputError(
            f"{model} takes tools over the Responses API alone: OPENAI_API=responses, or "
            "api='responses' where the provider is made. Or choose another model, such as "
            "gpt-6-luna."
        )
    body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = choice = _tool_choice(request.tool_choice, request.tools, vendor)
        if isinstance(choice, dict) and not vendor.named_choice:
            named = choice["function"]["name"]
            body["tools"] = [tool for tool in body["tools"] if tool["function"]["name"] == named]
            body["tool_choice"] = vendor.required_choice
    if request.parallel_tool_calls is False and vendor.parallel_option:
        body["parallel_tool_calls"] = False


def _tool(tool: ToolSpec) -> dict[str, Any]:
    if not _TOOL_NAME.fullmatch(tool.name):
        raise InputError(
            f"The tool name {tool.name!r} is not one that the provider takes: it may have up to "
            "64 letters, digits, underscores and hyphens."
        )
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = dict(tool.parameters)
    return {"type": "function", "function": function}


def _tool_choice(choice: str, tools: Sequence[ToolSpec], vendor: Vendor) -> str | dict[str, Any]:
    if choice in ("auto", "none"):
        return choice
    if choice == "required":
        return vendor.required_choice
    if all(tool.name != choice for tool in tools):
        offered = ", ".join(tool.name for tool in tools)
        raise InputError(f"tool_choice is {choice!r}, which is not offered. Offered: {offered}.")
    return {"type": "function", "function": {"name": choice}}


def _response_format(schema: dict[str, Any], vendor: Vendor, model: str) -> dict[str, Any]:
    if not is_among(model, vendor.schema_models):
        return {"type": "json_object"}  # the messages say which
    described: dict[str, Any] = {"name": _SCHEMA_NAME, "schema": schema}
    if is_among(model, vendor.strict_models):
        strict = strict_schema(schema)
        if strict is not None:  # other schemas would be refused with it
            described.update(schema=strict, strict=True)
    return {"type": "json_schema", "json_schema": described}
