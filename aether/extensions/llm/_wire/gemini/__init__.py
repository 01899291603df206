"""Gemini's generateContent, as data: requests to JSON, JSON and its chunks to responses.

It must not send anything.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

from aether.errors import InputError
from aether.extensions.llm._wire.codec import Rendered
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.gemini.echo import without_state
from aether.extensions.llm._wire.gemini.parts import PROVIDER
from aether.extensions.llm._wire.gemini.request import (
    can_follow_schema,
    continued_request,
    render_request,
)
from aether.extensions.llm._wire.gemini.response import parse_response
from aether.extensions.llm._wire.gemini.stream import GeminiAssembly
from aether.extensions.llm._wire.host_state import only_own
from aether.extensions.llm._wire.structured import OutputMode
from aether.llm.messages import LLMRequest, LLMResponse
from aether.llm.profiles import profile_for

__all__ = ["PROVIDER", "GeminiAssembly", "GeminiCodec", "without_state"]

_COLLECTIONS = ("models/", "tunedModels/", "publishers/", "projects/")


class GeminiCodec:
    """generateContent and streamGenerateContent, in one version of the API, such as `v1beta`.

    `state_host` is the server that opaque state is bound to, if it is not Google's.
    """

    def __init__(self, api_version: str, *, state_host: str | None = None) -> None:
        self._api_version = api_version
        self._state_host = state_host

    def render(self, request: LLMRequest, *, model: str, stream: bool) -> Rendered:
        # Without `alt=sse` a stream is one JSON array.
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        path = f"/{self._api_version}/{_resource(model)}:{method}"
        request = only_own(request, PROVIDER, self._state_host)
        return Rendered(path, render_request(request, profile_for(model), stream=stream))

    def parse(self, body: bytes, *, source: Source) -> LLMResponse:
        return parse_response(body, source=source)

    def assemble(self, *, source: Source) -> GeminiAssembly:
        return GeminiAssembly(source=source)

    def output_mode(self, request: LLMRequest, model: str) -> OutputMode:
        profile = profile_for(model)
        if profile.native_output is False:
            return "prompt"
        offers_tools = bool(request.tools) and request.tool_choice != "none"
        if offers_tools and not profile.output_with_tools:
            return "tool"
        return "native" if can_follow_schema(request) else "prompt"

    def follow_up(self, request: LLMRequest, response: LLMResponse) -> LLMRequest | None:
        return continued_request(request, response)


@lru_cache(maxsize=256)
def _resource(model: str) -> str:
    """The model's resource name, as a path: a bare name is one of `models/`."""
    name = model if model.startswith(_COLLECTIONS) else f"models/{model}"
    if any(segment in ("", ".", "..") for segment in name.split("/")):
        raise InputError(f"The model's name {model!r} is not one that Gemini can have.")
    return quote(name, safe="/")
