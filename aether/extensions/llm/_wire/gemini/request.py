"""From a request to the body of a generateContent call, refused here if Gemini could not take it.

It must not know an answer. What is left unsaid is left out of the body.
"""

from __future__ import annotations

import re
from typing import Any

from aether.errors import InputError
from aether.extensions.llm._wire.extra import laid_over
from aether.extensions.llm._wire.gemini.messages import render_messages
from aether.extensions.llm._wire.gemini.parts import state_of
from aether.extensions.llm._wire.gemini.thinking import thinking_config
from aether.extensions.llm._wire.json_schema import gemini_parameters, gemini_schema
from aether.llm.messages import LLMRequest, LLMResponse, ToolSpec
from aether.llm.profiles import ModelProfile

__all__ = ["can_follow_schema", "continued_request", "render_request"]

_TOOL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_MAX_STOP_SEQUENCES = 5


def render_request(request: LLMRequest, profile: ModelProfile, *, stream: bool) -> dict[str, Any]:
    """The body as a dict. Raises `InputError` for what Gemini is known to refuse."""
    conversation = render_messages(request.messages, profile)
    body: dict[str, Any] = {"contents": conversation.contents}
    if conversation.system:
        body["systemInstruction"] = {"parts": conversation.system}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in request.tools]}]
    choice = _function_calling(request)
    if choice:
        body["toolConfig"] = {"functionCallingConfig": choice}
    config = _generation_config(request, profile)
    if config:
        body["generationConfig"] = config
    return laid_over(body, request.extra_body, stream=stream)


def can_follow_schema(request: LLMRequest) -> bool:
    """Whether the schema for the answer can be said in Gemini's words."""
    return gemini_schema(request.output_schema) is not None


def continued_request(request: LLMRequest, response: LLMResponse) -> LLMRequest | None:
    """The same request with the token that lets an answer go on which reached the limit of one
    request; `None` for an answer that is whole, and where nothing has moved on.
    """
    token = state_of(response.message.provider_state).get("continuationToken")
    if response.finish_reason_raw != "CONTINUATION" or not token:
        return None
    if token == request.extra_body.get("continuationToken"):
        return None
    return request.replace(extra_body={**request.extra_body, "continuationToken": token})


def _generation_config(request: LLMRequest, profile: ModelProfile) -> dict[str, Any]:
    config: dict[str, Any] = {}
    chosen = not request.temperature_is_default or profile.accepts_temperature
    if request.temperature is not None and chosen:
        config["temperature"] = request.temperature
    if request.top_p is not None:
        config["topP"] = request.top_p
    if request.seed is not None:
        config["seed"] = request.seed
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if len(request.stop) > _MAX_STOP_SEQUENCES:
        raise InputError(
            f"There are {len(request.stop)} stop sequences; Gemini takes {_MAX_STOP_SEQUENCES}."
        )
    if request.stop:
        config["stopSequences"] = list(request.stop)
    thinking = thinking_config(request.reasoning, profile)
    if thinking:
        config["thinkingConfig"] = thinking
    if request.output_schema is not None and profile.native_output is not False:
        config["responseMimeType"] = "application/json"
        schema = gemini_schema(request.output_schema)
        if schema is not None:
            config["responseJsonSchema"] = schema
    return config


def _declaration(tool: ToolSpec) -> dict[str, Any]:
    if not _TOOL_NAME.fullmatch(tool.name):
        raise InputError(
            f"The tool name {tool.name!r} is not one that Gemini takes: it begins with a letter "
            "or an underscore, and may have up to 128 letters, digits, underscores, dots, colons "
            "and hyphens."
        )
    declared: dict[str, Any] = {"name": tool.name}
    if tool.description:
        declared["description"] = tool.description
    parameters = gemini_parameters(tool.parameters)
    if parameters is not None:
        declared["parametersJsonSchema"] = parameters
    return declared


def _function_calling(request: LLMRequest) -> dict[str, Any]:
    choice = request.tool_choice
    if choice is None:
        return {}
    if not request.tools:
        if choice in ("auto", "none"):
            return {}
        raise InputError(f"tool_choice is {choice!r}, but no tools are offered.")
    if choice in ("auto", "none"):
        return {"mode": choice.upper()}
    if choice == "required":
        return {"mode": "ANY"}
    if all(tool.name != choice for tool in request.tools):
        offered = ", ".join(tool.name for tool in request.tools)
        raise InputError(f"tool_choice is {choice!r}, which is not offered. Offered: {offered}.")
    return {"mode": "ANY", "allowedFunctionNames": [choice]}
