"""The protocols that a server of faults speaks: where each is asked, and how it answers rightly.

They must not know a fault, nor how bytes are sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from aether.errors import ConfigurationError
from aether.testing.faults.answers import Answer
from aether.testing.wires import (
    AnthropicWire,
    GeminiWire,
    OpenAIChatWire,
    OpenAIResponsesWire,
    Reply,
    Wire,
    WireRequest,
)

__all__ = ["PROTOCOLS", "REQUEST_ID", "Protocol", "parsed", "protocol_named", "wire_of", "written"]

REQUEST_ID = "req-test-1"
"""The name of every request that is answered as a reply, where a wire has a header for it."""

_HEAD = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.1\r\n")


@dataclass(frozen=True, slots=True)
class Protocol:
    wire: Wire
    path_end: str
    """How the paths of its requests end."""
    base_path: str
    """The path of a base URL."""
    options: Mapping[str, str]
    """What the adapter must be told."""


PROTOCOLS = {
    "openai": Protocol(OpenAIChatWire(), "/chat/completions", "/v1", {"api": "chat"}),
    "openai.responses": Protocol(OpenAIResponsesWire(), "/responses", "/v1", {"api": "responses"}),
    "anthropic": Protocol(AnthropicWire(), "/messages", "", {}),
    "gemini": Protocol(GeminiWire(), "enerateContent", "", {}),
}


def protocol_named(name: str) -> Protocol:
    """`ConfigurationError` for one that is not spoken here."""
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise ConfigurationError(
            f"A FaultServer speaks {', '.join(map(repr, PROTOCOLS))}, not {name!r}."
        ) from None


def wire_of(path: str) -> Wire | None:
    """The wire whose requests go to this path; its query does not count."""
    place = path.partition("?")[0]
    for protocol in PROTOCOLS.values():
        if place.endswith(protocol.path_end):
            return protocol.wire
    return None


def parsed(data: bytes) -> WireRequest:
    """A request of whole bytes, head and body."""
    head, _, body = data.partition(b"\r\n\r\n")
    start = _HEAD.match(data)
    method, path = start.groups() if start else (b"", b"")
    fields = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    headers = {name.lower(): value.strip() for name, _, value in fields}
    return WireRequest(method.decode(), path.decode("latin-1"), headers, body)


def written(wire: Wire, reply: Reply, request: WireRequest) -> tuple[Answer, int]:
    """The reply as the request wants it, in pieces or whole; and after how many it is settled."""
    headers = {wire.request_id_header: REQUEST_ID} if wire.request_id_header else {}
    if wire.wants_stream(request):
        stream = wire.stream(reply, request)
        typed = {**headers, "content-type": wire.stream_type}
        return Answer(stream.events, headers=typed), stream.settled
    typed = {**headers, "content-type": "application/json"}
    return Answer([wire.body(reply, request)], headers=typed), 1
