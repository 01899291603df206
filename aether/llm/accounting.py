"""Settling the ledger entry of an attempt: what it has used, or may have used.

It must not know a price, nor who calls the provider.
"""

from __future__ import annotations

import json
import socket
from datetime import timedelta

from aether.errors import (
    AetherError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderConnectionError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
)
from aether.llm.call import CallContext
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.usage import LedgerEntry

__all__ = [
    "estimate_input_tokens",
    "estimate_tokens",
    "input_token_bound",
    "output_token_bound",
    "record_attempt",
    "settle_answer",
    "settle_failure",
]

CHARACTERS_PER_TOKEN = 4
LARGEST_OUTPUT = 131_072
"""No model of the time answers with more tokens than this where the request sets no limit."""

_REFUSALS = (
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
)
_NEVER_CONNECTED = frozenset({"connect", "dns", "tls"})


def estimate_tokens(characters: int) -> int:
    """About how many tokens a text of so many characters has: one to four characters."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def estimate_input_tokens(request: LLMRequest) -> int:
    """About how many tokens the request's text has."""
    return sum(estimate_tokens(len(message.text)) for message in request.messages)


def input_token_bound(request: LLMRequest) -> int:
    """More tokens than the request has: one to each byte of its messages and tools as JSON."""
    size = sum(len(message.model_dump_json().encode()) for message in request.messages)
    for tool in request.tools:
        described = [tool.name, tool.description, dict(tool.parameters)]
        size += len(json.dumps(described, default=str))
    return size


def output_token_bound(request: LLMRequest) -> int:
    """No answer to the request has more tokens: its `max_tokens`, else `LARGEST_OUTPUT`."""
    return LARGEST_OUTPUT if request.max_tokens is None else request.max_tokens


def settle_answer(
    entry: LedgerEntry,
    answer: LLMResponse | StreamChunk,
    request: LLMRequest,
    *,
    characters: int = 0,
) -> None:
    """Settle an attempt that came back with `answer`: a response, or a stream's final chunk.

    `exact` if the provider reported input and output. Else what is missing is estimated, the
    output of a chunk without a response from the `characters` that were streamed.
    """
    source: LLMResponse | StreamChunk = answer
    if isinstance(answer, StreamChunk) and answer.response is not None:
        source = answer.response
    if isinstance(source, LLMResponse):
        entry.model = source.model or entry.model
        entry.provider = source.provider or entry.provider
        entry.request_id = source.request_id
    entry.input_tokens = source.input_tokens
    entry.output_tokens = source.output_tokens
    entry.cache_read_tokens = source.cache_read_tokens
    entry.cache_write_tokens = source.cache_write_tokens
    entry.reasoning_tokens = source.reasoning_tokens
    if isinstance(source, LLMResponse):
        entry.cost_usd = source.cost_usd
    entry.state = "exact"
    if entry.input_tokens is None:
        entry.input_tokens = estimate_input_tokens(request)
        entry.state = "estimated"
    if entry.output_tokens is None:
        written = _written(source) if isinstance(source, LLMResponse) else characters
        entry.output_tokens = estimate_tokens(written)
        entry.state = "estimated"


def settle_failure(
    entry: LedgerEntry, error: BaseException | None, request: LLMRequest, *, characters: int = 0
) -> None:
    """Settle an attempt that ended with `error`, or just ended, after `characters` of text.

    With text it was billed, and is `estimated`. Without, it is `not_billed` if the provider
    refused it or was never reached, and `unknown` otherwise.
    """
    entry.error = None if error is None else type(error).__name__
    if characters:
        entry.state = "estimated"
        entry.input_tokens = estimate_input_tokens(request)
        entry.output_tokens = estimate_tokens(characters)
    else:
        entry.state = "not_billed" if _was_refused(error) else "unknown"


def record_attempt(
    context: CallContext,
    request: LLMRequest,
    *,
    provider: str | None,
    model: str | None,
    seconds: float,
    answer: LLMResponse | StreamChunk | None = None,
    error: BaseException | None = None,
    characters: int = 0,
) -> None:
    """Write the entry of an attempt whose provider opened none, which took `seconds` until now.

    An error that says that nothing was sent leaves no entry. An `answer` of another type is none: a
    third party may return anything.
    """
    if answer is None and isinstance(error, AetherError) and not isinstance(error, ProviderError):
        return
    entry = context.open_entry(provider=provider, model=model)
    entry.started_at -= timedelta(seconds=seconds)
    if isinstance(answer, LLMResponse | StreamChunk):
        settle_answer(entry, answer, request, characters=characters)
    else:
        settle_failure(entry, error, request, characters=characters)


def _written(response: LLMResponse) -> int:
    """The characters that the model wrote, reasoning and calls included."""
    calls = sum(len(call.name) + len(str(call.arguments)) for call in response.tool_calls)
    return len(response.text) + len(response.reasoning or "") + calls


def _was_refused(error: BaseException | None) -> bool:
    if isinstance(error, _REFUSALS):
        return True
    if isinstance(error, ProviderConnectionError | RequestTimeoutError) and error.status is None:
        return error.kind in _NEVER_CONNECTED
    if isinstance(error, ProviderError):
        status = error.status
        return status is not None and 400 <= status < 500 and status != 408
    return isinstance(error, ConnectionRefusedError | socket.gaierror)
