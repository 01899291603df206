"""The port to models: what a provider is, and the data that goes through it.

It must not know any provider.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol, runtime_checkable

from aether.llm.call import Admission, CallContext
from aether.llm.content import (
    AudioPart,
    CachePoint,
    ContentPart,
    FilePart,
    ImagePart,
    ProviderState,
    ReasoningPart,
    TextPart,
)
from aether.llm.messages import (
    FinishReason,
    LLMRequest,
    LLMResponse,
    Message,
    ReasoningEffort,
    Role,
    StreamChunk,
    StructuredChunk,
    StructuredResponse,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
)
from aether.llm.usage import EntryState, LedgerEntry, TokenUsage

__all__ = [
    "KIND",
    "Admission",
    "AudioPart",
    "CachePoint",
    "CallContext",
    "ContentPart",
    "EntryState",
    "FilePart",
    "FinishReason",
    "ImagePart",
    "LLMProvider",
    "LLMRequest",
    "LLMResponse",
    "Layer",
    "LedgerEntry",
    "Message",
    "ProviderState",
    "ReasoningEffort",
    "ReasoningPart",
    "Role",
    "StreamChunk",
    "StreamingLLMProvider",
    "StructuredChunk",
    "StructuredResponse",
    "TextPart",
    "TokenUsage",
    "ToolCall",
    "ToolCallDelta",
    "ToolSpec",
]

KIND = "llm_provider"


@runtime_checkable
class LLMProvider(Protocol):
    """A model behind one method.

    It may also have `stream` (see `StreamingLLMProvider`), `default_model: str`, and
    `async aclose()`, which the client that was built around it calls once.
    """

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        """Answer, or raise an `AetherError`. Cancelling it must release what it holds."""
        ...


@runtime_checkable
class StreamingLLMProvider(LLMProvider, Protocol):
    """A provider that can hand out its answer in pieces."""

    def stream(self, request: LLMRequest, /) -> AsyncIterator[StreamChunk]:
        """An async generator of chunks whose last one, alone, is final.

        Joined, the deltas are the text of the final chunk's `response`. A stream that ends
        without its protocol's end mark raises `StreamInterruptedError`. Closing the iterator
        releases what it holds, at once.
        """
        ...


Layer = Callable[[LLMProvider], LLMProvider]
"""What makes a provider of a provider: a decorator's class with its options bound."""
