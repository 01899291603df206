"""Wires: how providers' servers write what they answer, for tests of what reads it.

They must not know a provider's adapter, a test, or how bytes are sent.
"""

from aether.testing.wires.anthropic import AnthropicWire
from aether.testing.wires.contracts import (
    FAILURES,
    Failure,
    Feature,
    Reply,
    Wire,
    WireRequest,
    WireStream,
    server_sent_event,
)
from aether.testing.wires.gemini import GeminiWire
from aether.testing.wires.openai_chat import OpenAIChatWire
from aether.testing.wires.openai_responses import OpenAIResponsesWire

__all__ = [
    "FAILURES",
    "AnthropicWire",
    "Failure",
    "Feature",
    "GeminiWire",
    "OpenAIChatWire",
    "OpenAIResponsesWire",
    "Reply",
    "Wire",
    "WireRequest",
    "WireStream",
    "server_sent_event",
]
