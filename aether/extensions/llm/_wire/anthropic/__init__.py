"""Anthropic's Messages API, as data: requests to JSON, JSON and its events to responses.

It must not send anything.
"""

from __future__ import annotations

from aether.extensions.llm._wire.anthropic.request import render_request, supports_schema, version
from aether.extensions.llm._wire.anthropic.response import parse_response
from aether.extensions.llm._wire.anthropic.state import PROVIDER, is_resumable
from aether.extensions.llm._wire.anthropic.stream import MessagesAssembly
from aether.extensions.llm._wire.codec import Rendered
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.host_state import only_own
from aether.extensions.llm._wire.structured import OutputMode
from aether.llm.messages import LLMRequest, LLMResponse
from aether.llm.profiles import profile_for

__all__ = ["PROVIDER", "MessagesAssembly", "MessagesCodec", "parse_response", "render_request"]

PATH = "/v1/messages"


class MessagesCodec:
    """The Messages API, for any model.

    `state_host` is the server that opaque state is bound to, if it is not Anthropic's.
    """

    def __init__(self, *, state_host: str | None = None) -> None:
        self._state_host = state_host

    def render(self, request: LLMRequest, *, model: str, stream: bool) -> Rendered:
        request = only_own(request, PROVIDER, self._state_host)
        native = request.output_schema is not None and self.output_mode(request, model) == "native"
        body = render_request(request, model=model, stream=stream, native_output=native)
        return Rendered(PATH, body, {"anthropic-version": version(body)})

    def parse(self, body: bytes, *, source: Source) -> LLMResponse:
        return parse_response(body, source=source)

    def assemble(self, *, source: Source) -> MessagesAssembly:
        return MessagesAssembly(source=source)

    def output_mode(self, request: LLMRequest, model: str) -> OutputMode:
        """Enforced where the model can and the schema allows it; else a tool that it must call,
        unless no tool can be forced upon it.
        """
        profile = profile_for(model)
        if profile.native_output and supports_schema(request):
            return "native"
        return "prompt" if profile.forced_tools is False else "tool"

    def follow_up(self, request: LLMRequest, response: LLMResponse) -> LLMRequest | None:
        """A turn that the server paused is sent back as it is, and then goes on."""
        paused = response.finish_reason_raw == "pause_turn" and is_resumable(response.message)
        if not paused or response.tool_calls:  # calls wait for their results first
            return None
        return request.replace(messages=(*request.messages, response.message))
