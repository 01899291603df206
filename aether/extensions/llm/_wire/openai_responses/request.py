"""From a request to the body of a Responses call, refused here if no server could take it.

It must not know an answer. What is left unsaid is left out of the body, but for two things: tools
say that they are not strict, which here is not what leaving it out means, and answers are not to
be stored.
"""

from __future__ import annotations

import re
from typing import Any

from aether.errors import InputError
from aether.extensions.llm._vendors import Vendor
from aether.extensions.llm._wire.extra import laid_over
from aether.extensions.llm._wire.json_schema import strict_schema
from aether.extensions.llm._wire.openai_responses.input import render_input
from aether.llm.messages import LLMRequest, ToolSpec
from aether.llm.profiles import ModelProfile, nearest_effort, profile_for

__all__ = ["render_request"]

LEAST_OUTPUT_TOKENS = 16
"""A lower limit is a 400 at OpenAI, with the code `integer_below_min_value`."""

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SCHEMA_NAME = "answer"
_ENCRYPTED = "reasoning.encrypted_content"


def render_request(
    request: LLMRequest, *, model: str, vendor: Vendor, at_openai: bool, stream: bool
) -> dict[str, Any]:
    """The body as a dict. Raises `InputError` for what is known to be refused."""
    profile = profile_for(model)
    body: dict[str, Any] = {
        "model": model,
        "input": render_input(
            request.messages,
            vendor=vendor,
            at_openai=at_openai,
            stored=request.extra_body.get("store") is True,
            breakpoints=profile.cache_breakpoints is True,
        ),
        "store": False,
    }
    if stream:
        body["stream"] = True
    if profile.efforts:
        body["include"] = [_ENCRYPTED]  # models that do not reason refuse it
    if request.tools:
        _add_tools(body, request)
    elif request.tool_choice not in (None, "auto", "none"):
        raise InputError(f"tool_choice is {request.tool_choice!r}, but no tools are offered.")
    _add_options(body, request, profile, at_openai=at_openai)
    return laid_over(body, request.extra_body, stream=stream)


def _add_options(
    body: dict[str, Any], request: LLMRequest, profile: ModelProfile, *, at_openai: bool
) -> None:
    if request.stop:
        raise InputError(
            "The Responses API has no stop sequences. Leave stop out, or use api='chat' with a "
            "model that takes them there."
        )
    chosen = not request.temperature_is_default or profile.accepts_temperature
    if request.temperature is not None and chosen:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.max_tokens is not None:
        if at_openai and request.max_tokens < LEAST_OUTPUT_TOKENS:
            raise InputError(
                f"max_tokens is {request.max_tokens}: over the Responses API, OpenAI takes no less "
                f"than {LEAST_OUTPUT_TOKENS}. Raise it, or use api='chat'."
            )
        body["max_output_tokens"] = request.max_tokens
    if request.reasoning is not None and profile.efforts != ():
        efforts = profile.efforts or (request.reasoning,)
        body["reasoning"] = {"effort": nearest_effort(request.reasoning, efforts)}
    if request.output_schema is not None:
        body["text"] = {"format": _format(request.output_schema, profile)}


def _add_tools(body: dict[str, Any], request: LLMRequest) -> None:
    body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request)
    if request.parallel_tool_calls is False:
        body["parallel_tool_calls"] = False


def _tool(tool: ToolSpec) -> dict[str, Any]:
    if not _TOOL_NAME.fullmatch(tool.name):
        raise InputError(
            f"The tool name {tool.name!r} is not one that the provider takes: it may have up to "
            "64 letters, digits, underscores and hyphens."
        )
    made: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description:
        made["description"] = tool.description
    return {**made, "parameters": dict(tool.parameters), "strict": False}


def _tool_choice(request: LLMRequest) -> object:
    choice = request.tool_choice
    if choice in ("auto", "none", "required"):
        return choice
    if all(tool.name != choice for tool in request.tools):
        offered = ", ".join(tool.name for tool in request.tools)
        raise InputError(f"tool_choice is {choice!r}, which is not offered. Offered: {offered}.")
    return {"type": "function", "name": choice}


def _format(schema: dict[str, Any], profile: ModelProfile) -> dict[str, Any]:
    if profile.native_output is False:
        return {"type": "json_object"}  # the messages say which
    strict = strict_schema(schema)  # other schemas are shown to the model, and hold it to nothing
    return {
        "type": "json_schema",
        "name": _SCHEMA_NAME,
        "schema": schema if strict is None else strict,
        "strict": strict is not None,
    }
