"""OpenAI's Chat Completions, as data: requests to JSON, JSON and its chunks to responses.

It must not send anything. How a server differs from the protocol is told by its `Vendor`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from urllib.parse import quote

from aether.extensions.llm._vendors import Vendor, is_among
from aether.extensions.llm._wire.codec import Rendered
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.openai_chat.request import render_request
from aether.extensions.llm._wire.openai_chat.response import parse_response
from aether.extensions.llm._wire.openai_chat.stream import ChatAssembly
from aether.extensions.llm._wire.structured import OutputMode
from aether.llm.messages import LLMRequest, LLMResponse
from aether.llm.profiles import profile_for

__all__ = ["ChatAssembly", "ChatCodec", "parse_response", "render_request"]


class ChatCodec:
    """Chat Completions as one server speaks it. `clock` gives seconds since the epoch."""

    def __init__(self, vendor: Vendor, *, clock: Callable[[], float] = time) -> None:
        self._vendor = vendor
        self._clock = clock

    def render(self, request: LLMRequest, *, model: str, stream: bool) -> Rendered:
        path = self._vendor.path
        if "{model}" in path:
            path = path.replace("{model}", quote(model, safe=""))
        body = render_request(
            request, model=model, vendor=self._vendor, stream=stream, now=self._clock()
        )
        return Rendered(path, body)

    def parse(self, body: bytes, *, source: Source) -> LLMResponse:
        return parse_response(body, source=source, vendor=self._vendor)

    def assemble(self, *, source: Source) -> ChatAssembly:
        return ChatAssembly(source=source, vendor=self._vendor)

    def output_mode(self, request: LLMRequest, model: str) -> OutputMode:
        """How a schema for the answer is said: not all models, nor all beside tools, take one."""
        vendor = self._vendor
        if request.tools and vendor.output_beside_tools != "native":
            return vendor.output_beside_tools
        if vendor.openai_models and profile_for(model).native_output is False:
            return "tool"
        return "native" if is_among(model, vendor.schema_models) else "prompt"

    def follow_up(self, request: LLMRequest, response: LLMResponse) -> LLMRequest | None:  # noqa: ARG002 - as every codec
        """`None`: an answer never comes in parts here."""
        return None
