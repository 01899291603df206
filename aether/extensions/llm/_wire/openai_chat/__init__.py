"""OpenAI's Chat Completions, as data: requests to JSON, JSON and its chunks to responses.

It must not send anything. How a server differs from the protocol is told by its `Vendor`.
"""

from __future__ import annotations

from urllib.parse import quote

from aether.extensions.llm._vendors import Vendor
from aether.extensions.llm._wire.codec import Rendered
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.openai_chat.request import render_request
from aether.extensions.llm._wire.openai_chat.response import parse_response
from aether.extensions.llm._wire.openai_chat.stream import ChatAssembly
from aether.extensions.llm._wire.structured import OutputMode
from aether.llm.messages import LLMRequest, LLMResponse

__all__ = ["ChatAssembly", "ChatCodec", "parse_response", "render_request"]


class ChatCodec:
    """Chat Completions as one server speaks it."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor

    def render(self, request: LLMRequest, *, model: str, stream: bool) -> Rendered:
        path = self._vendor.path.replace("{model}", quote(model, safe=""))
        body = render_request(request, model=model, vendor=self._vendor, stream=stream)
        return Rendered(path, body)

    def parse(self, body: bytes, *, source: Source) -> LLMResponse:
        return parse_response(body, source=source, vendor=self._vendor)

    def assemble(self, *, source: Source) -> ChatAssembly:
        return ChatAssembly(source=source, vendor=self._vendor)

    def output_mode(self, request: LLMRequest, model: str) -> OutputMode:  # noqa: ARG002 - all alike
        return "native" if self._vendor.json_schema else "prompt"

    def follow_up(self, request: LLMRequest, response: LLMResponse) -> LLMRequest | None:  # noqa: ARG002
        """`None`: an answer never comes in parts here."""
        return None
