"""What a protocol is to the rest: a codec, and an assembly for each streamed answer.

It must not know a protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.structured import OutputMode
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk

__all__ = ["Assembly", "Codec", "Rendered"]


class Rendered(NamedTuple):
    """A request as it is sent: the path below the base URL, the body, and headers of its own."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = MappingProxyType({})


class Assembly(Protocol):
    """Puts one streamed answer together: `feed` it the events in order, then `finish`."""

    @property
    def ended(self) -> bool:
        """Whether the protocol's end mark has come: nothing after it counts."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the answer is whole but for the end mark."""
        ...

    @property
    def has_content(self) -> bool:
        """Whether the caller was given anything: text, reasoning or a piece of a call."""
        ...

    @property
    def characters(self) -> int:
        """How much was written, calls included."""
        ...

    def feed(self, data: bytes, name: str = "") -> Iterable[StreamChunk]:
        """The chunks that an event holds; often none. They may be lazy: what is handed out before
        an error came before it.
        """
        ...

    def finish(self) -> LLMResponse:
        """The whole answer. `StreamInterruptedError` with what had come if it is not whole;
        `ProtocolError` if it is none.
        """
        ...

    def partial(self) -> LLMResponse:
        """What has come so far, with the usage that is known."""
        ...


class Codec(Protocol):
    """One protocol, as pure functions: it sends nothing."""

    def render(self, request: LLMRequest, *, model: str, stream: bool) -> Rendered:
        """The request as it is sent; `InputError` for what is known to be refused."""
        ...

    def parse(self, body: bytes, *, source: Source) -> LLMResponse:
        """The answer in a body of status 200; an error object inside it is raised."""
        ...

    def assemble(self, *, source: Source) -> Assembly:
        """A new assembly for a streamed answer."""
        ...

    def output_mode(self, request: LLMRequest, model: str) -> OutputMode:
        """How the model is held to the request's schema for its answer."""
        ...

    def follow_up(self, request: LLMRequest, response: LLMResponse) -> LLMRequest | None:
        """The request that lets an answer go on which ended in the middle; `None`: it is whole."""
        ...
