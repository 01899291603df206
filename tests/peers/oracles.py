"""The types that the vendors' SDKs give to requests, as validators.

The SDKs do not check what they send: their types are there for type checkers. Here pydantic checks
them, strictly: no field that they do not name, at any depth.
"""

from __future__ import annotations

import functools
from typing import Any

from anthropic.types import message_create_params as anthropic_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as responses_params
from pydantic import TypeAdapter
from pydantic_core import SchemaValidator

from tests.peers.gemini_body import GeminiBody

__all__ = ["check_body"]

TYPES: dict[tuple[str, bool], Any] = {
    ("chat", False): chat_params.CompletionCreateParamsNonStreaming,
    ("chat", True): chat_params.CompletionCreateParamsStreaming,
    ("responses", False): responses_params.ResponseCreateParamsNonStreaming,
    ("responses", True): responses_params.ResponseCreateParamsStreaming,
    ("anthropic", False): anthropic_params.MessageCreateParamsNonStreaming,
    ("anthropic", True): anthropic_params.MessageCreateParamsStreaming,
    ("gemini", False): GeminiBody,
    ("gemini", True): GeminiBody,
}


def check_body(protocol: str, body: Any, *, streamed: bool = False) -> None:
    """Raise pydantic's `ValidationError` if the body is not of the SDK's type."""
    _validator(protocol, streamed).validate_python(body)


@functools.cache
def _validator(protocol: str, streamed: bool) -> SchemaValidator:
    return SchemaValidator(_closed(TypeAdapter(TYPES[protocol, streamed]).core_schema))


def _closed(schema: Any) -> Any:
    """The schema without its leniencies: unknown fields, and iterables that are never read."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _closed(item) for name, item in schema.items()}
    match made.get("type"):
        case "generator":  # of an `Iterable`: read lazily, so not checked at all
            made["type"] = "list"
        case "typed-dict" | "model-fields" if "extras_schema" not in made:
            made["extra_behavior"] = "forbid"
    return made
