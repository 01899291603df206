"""OpenAI's Responses API, as data: requests to JSON, JSON and its events to responses.

It must not send anything. Nothing is left at the server: what it must know of earlier turns, an
assistant message carries in its `provider_state`, and every request is whole in itself.
"""

from __future__ import annotations

from aether.extensions.llm._vendors import Vendor
from aether.extensions.llm._wire.codec import Rendered
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.openai_responses.request import render_request
from aether.extensions.llm._wire.openai_responses.response import parse_response
from aether.extensions.llm._wire.openai_responses.stream import ResponsesAssembly
from aether.extensions.llm._wire.structured import OutputMode
from aether.llm.messages import LLMRequest, LLMResponse
from aether.llm.profiles import profile_for

__all__ = ["ResponsesAssembly", "ResponsesCodec", "parse_response", "render_request"]


class ResponsesCodec:
    """The Responses API as OpenAI speaks it, or another server that speaks it as well.

    `vendor` says whose state is sent back. `at_openai` holds requests to the limits of OpenAI's
    own host, which others do not have.
    """

    def __init__(self, vendor: Vendor, *, at_openai: bool) -> None:
        self._vendor = vendor
        self._at_openai = at_openai

    def render(self, request: LLMRequest, *, model: str, stream: bool) -> Rendered:
        body = render_request(
            request,
            model=model,
            vendor=self._vendor,
            at_openai=self._at_openai,
            stream=stream,
        )
        return Rendered("/responses", body)

    def parse(self, body: bytes, *, source: Source) -> LLMResponse:
        return parse_response(body, source=source)

    def assemble(self, *, source: Source) -> ResponsesAssembly:
        return ResponsesAssembly(source=source)

    def output_mode(self, request: LLMRequest, model: str) -> OutputMode:  # noqa: ARG002 - the model decides
        return "prompt" if profile_for(model).native_output is False else "native"

    def follow_up(self, request: LLMRequest, response: LLMResponse) -> LLMRequest | None:  # noqa: ARG002 - as every codec
        """`None`: an answer never comes in parts here."""
        return None
