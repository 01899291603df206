"""What a wire is, and the neutral data that it writes.

It must not know a protocol.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from aether.errors import (
    AuthenticationError,
    BadRequestError,
    ContextLengthError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from aether.http.contracts import HTTPResponse
from aether.llm.contracts import FinishReason, TokenUsage, ToolCall

__all__ = [
    "FAILURES",
    "Failure",
    "Feature",
    "Reply",
    "Wire",
    "WireRequest",
    "WireStream",
    "arguments_text",
    "known",
    "pieces",
    "server_sent_event",
]

Failure = Literal[
    "bad_request",
    "authentication",
    "permission",
    "not_found",
    "context_length",
    "rate_limit",
    "quota",
    "overloaded",
    "server",
]
"""Why a server refuses or fails."""

FAILURES: Mapping[Failure, type[ProviderError]] = {
    "bad_request": BadRequestError,
    "authentication": AuthenticationError,
    "permission": PermissionDeniedError,
    "not_found": NotFoundError,
    "context_length": ContextLengthError,
    "rate_limit": RateLimitError,
    "quota": QuotaExceededError,
    "overloaded": OverloadedError,
    "server": ServerError,
}
"""What an adapter makes of each."""

Feature = Literal[
    "call_ids",
    "cut_arguments",
    "whole_cut_arguments",
    "reasoning",
    "signature",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "calls_under_stop",
    "tool_calls_without_a_call",
    "unknown_finish",
    "content_filter",
    "permission",
    "quota",
    "overloaded",
    "error_event",
]
"""What not every protocol can say.

`call_ids`: a call's id. `cut_arguments`: arguments that the output limit cut off, in a stream;
`whole_cut_arguments`: the same in an answer that is no stream. `reasoning`: the model's thoughts,
as text. `signature`: opaque state that must come back. `calls_under_stop`: calls under the finish
reason `stop`. `tool_calls_without_a_call`: the finish reason `tool_calls` with no call.
`unknown_finish`: a finish reason that nobody knows yet. `error_event`: an error in a stream. The
rest: that count, that finish reason, that `Failure`.
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of a model, in no protocol's words.

    The arguments of a call are its `invalid_arguments`, word for word, where it has some: so they
    may be cut off, or empty. `usage` is inclusive, as everywhere: input has the cache's tokens in
    it, output those of reasoning. A count that is `None` is not said.
    """

    text: str = ""
    reasoning: str = ""
    calls: Sequence[ToolCall] = ()
    finish: FinishReason | None = None
    """`None`: `tool_calls` if there are calls, else `stop`."""
    finish_raw: str | None = None
    """A finish reason in the protocol's own word, in place of `finish`."""
    usage: TokenUsage | None = None
    model: str = "test-model-1"
    signature: str = ""
    """Opaque state, which must come back with the next turn."""

    @property
    def reason(self) -> FinishReason:
        """Why it ended."""
        return self.finish or ("tool_calls" if self.calls else "stop")


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A request as it reached the server. Header names are lower case."""

    method: str
    path: str
    """With its query."""
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body; an empty object where it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class WireStream:
    """A streamed answer: the bytes of its events, one by one."""

    events: Sequence[bytes]
    settled: int
    """After so many events the answer is whole, and why it ended is said. What follows may be
    missing: usage, an end mark."""
    texts: Sequence[int] = ()
    """After so many events each piece of the text is out, in their order."""


class Wire(ABC):
    """One protocol, as its servers write it."""

    cannot: frozenset[Feature] = frozenset()
    """What it has no way to say. What is asked of it all the same, it leaves out."""
    stream_type: ClassVar[str] = "text/event-stream"
    """The content type of a stream."""
    request_id_header: ClassVar[str | None] = None
    """In which header the server names a request, if it does."""

    @abstractmethod
    def wants_stream(self, request: WireRequest) -> bool:
        """Whether the request asks for its answer in pieces."""

    @abstractmethod
    def body(self, reply: Reply, request: WireRequest) -> bytes:
        """The whole answer."""

    @abstractmethod
    def stream(self, reply: Reply, request: WireRequest) -> WireStream:
        """The answer in pieces."""

    @abstractmethod
    def error(
        self, failure: Failure, message: str, *, retry_after: int | None = None
    ) -> HTTPResponse:
        """The answer of a server that fails; `retry_after` is in seconds, from 1."""

    @abstractmethod
    def error_event(self, failure: Failure, message: str) -> bytes:
        """The event that ends a stream in which the server fails."""

    def error_in_body(self, failure: Failure, message: str) -> bytes:
        """The body of an answer of status 200 that is an error all the same."""
        return self.error(failure, message).body

    def offered(self, request: WireRequest) -> Mapping[str, Any]:
        """The tools that the request offers, each as it is described there, by their names.

        They are read from the field `tools`: each object below it that has a `name`. Override it
        for a protocol that writes them otherwise.
        """
        return dict(_named(request.json.get("tools")))

    def can(self, feature: Feature) -> bool:
        """Whether it has a way to say that."""
        return feature not in self.cannot


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("name"), str):
            yield value["name"], value
            return
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _named(each)


def server_sent_event(
    data: Mapping[str, Any] | str, *, name: str | None = None, line_end: str = "\n"
) -> bytes:
    """One event of `text/event-stream`, its data as JSON or word for word."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    lines = [f"data: {text}", "", ""]
    if name is not None:
        lines.insert(0, f"event: {name}")
    return line_end.join(lines).encode()


def pieces(text: str, count: int = 3) -> Iterator[str]:
    """The text in about so many pieces, none of them empty."""
    size = max(1, -(-len(text) // count))
    for start in range(0, len(text), size):
        yield text[start : start + size]


def arguments_text(call: ToolCall) -> str:
    """The arguments of a call as the model wrote them."""
    if call.invalid_arguments is not None:
        return call.invalid_arguments
    return json.dumps(call.arguments, ensure_ascii=False)


def known(**fields: Any) -> dict[str, Any]:
    """The fields that are not `None`."""
    return {name: value for name, value in fields.items() if value is not None}
