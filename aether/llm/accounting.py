"""Settling the ledger entry of an attempt: what it has used, or may have used.

It must not know a price, nor who calls the provider.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterable
from datetime import timedelta
from operator import attrgetter

from aether.errors import (
    AetherError,
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    InputError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from aether.llm.call import CallContext
from aether.llm.failures import translate
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.sizing import (
    estimate_input_tokens,
    estimate_tokens,
    input_token_bound,
    output_token_bound,
    written_bytes,
)
from aether.llm.usage import LedgerEntry

__all__ = ["account_for", "bound", "record_attempt", "settle_answer", "settle_failure"]

_REFUSALS = (
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
)
_BREAKS = (ProviderConnectionError, StreamInterruptedError, ProtocolError)
_NEVER_CONNECTED = frozenset({"connect", "dns", "tls"})
_BAD_CALLS = frozenset({"tool_use_failed", "json_validate_failed"})
"""What Groq refuses is what its model has written."""
_JUDGES_FIRST = "azure"
"""It says that it may bill what is refused for its content or its length."""


def settle_answer(
    entry: LedgerEntry,
    answer: LLMResponse | StreamChunk,
    request: LLMRequest,
    *,
    counts: Iterable[int | None] | None = None,
    characters: int = 0,
) -> None:
    """Settle an attempt that came back with `answer`: a response, or a stream's final chunk where
    that has none. `counts` are given where those of the answer cannot be believed.

    `exact` if the provider reported input and output. Else what is missing is estimated, the
    output of a chunk from the `characters` that were streamed.
    """
    details = answer.token_details if isinstance(answer, LLMResponse) else {}
    _take_counts(entry, counts or _counts_of(answer), details)
    if isinstance(answer, LLMResponse):
        entry.model = answer.model or entry.model
        entry.provider = answer.provider or entry.provider
        entry.request_id = answer.request_id
        cost = answer.cost_usd
        entry.cost_usd = cost if cost is not None and 0 <= cost < math.inf else None
    entry.state = "exact"
    if entry.input_tokens is None or entry.output_tokens is None:
        if isinstance(answer, LLMResponse):
            characters = written_bytes(answer)
        _estimate(entry, request, characters)


def settle_failure(
    entry: LedgerEntry,
    error: BaseException | None,
    request: LLMRequest,
    *,
    characters: int = 0,
    partial: LLMResponse | None = None,
    accepted: bool = False,
) -> None:
    """Settle an attempt that ended with `error`, or just ended.

    Until then so many `characters` had come, or `partial`, with the counts that the provider had
    told; `accepted`: it had begun to answer, with a status of success. What has come, or was told
    to be used, was billed: `estimated`, or `exact` if the answer was whole. Where nothing has come
    it is `not_billed` if the provider refused it or was never reached, and `unknown` otherwise.
    """
    entry.error = None if error is None else type(error).__name__
    reported = _is_reported(error)
    if partial is not None:
        told = partial.input_tokens is not None and partial.output_tokens is not None
        if partial.finish_reason is not None and (told or written_bytes(partial)):
            settle_answer(entry, partial, request)
            return
        entry.model = partial.model or entry.model
        entry.request_id = partial.request_id or entry.request_id
        _take_counts(entry, _counts_of(partial), partial.token_details)
        characters = max(characters, written_bytes(partial))
    # A server that reports an error may bill the input that it has told, or may not.
    counted = entry.output_tokens or (entry.input_tokens and not reported)
    if characters or counted:
        _estimate(entry, request, characters, whole=False)
    elif not accepted and _was_refused(error, entry.provider):
        entry.state = "not_billed"
    else:
        entry.state = "unknown"
        bound(entry, request)


def bound(entry: LedgerEntry, request: LLMRequest) -> None:
    """See to it that an entry whose counts are not all known says how many there may have been.

    A `pending` entry is `unknown` by then, and an `exact` one without both counts `estimated`. Of
    an `estimated` one that says nothing of it, neither count is known.
    """
    if entry.state == "exact":
        if entry.input_tokens is not None and entry.output_tokens is not None:
            return
        entry.state = "estimated"
        known = True
    else:
        if entry.state == "pending":
            entry.state = "unknown"
        known = entry.state == "unknown"
    if entry.state not in ("estimated", "unknown"):
        return
    if entry.most_input_tokens is not None or entry.most_output_tokens is not None:
        return
    if entry.input_tokens is None or not known:
        entry.most_input_tokens = max(input_token_bound(request), entry.input_tokens or 0)
    if entry.output_tokens is None or not known:
        entry.most_output_tokens = max(output_token_bound(request), entry.output_tokens or 0)


def account_for(
    context: CallContext,
    request: LLMRequest,
    *,
    first: int,
    provider: str | None,
    model: str | None,
    seconds: float,
    answer: LLMResponse | StreamChunk | None,
    error: BaseException | None,
    characters: int = 0,
) -> list[LedgerEntry]:
    """The entries of a call that has ended, from the `first` on: if none is of its `answer` or its
    `error`, because no inner layer keeps a ledger, it is written now. None is left `pending`.

    The arguments are those of `record_attempt`. An answer from a cache is of no attempt.
    """
    entries = context.entries[first:]
    missing = (not entries and not context.accounted) or (
        answer is not None and all(map(_brought_nothing, entries))
    )
    if missing and not _is_cached(answer):
        record_attempt(
            context,
            request,
            provider=provider,
            model=model,
            seconds=seconds,
            answer=answer,
            error=error,
            characters=characters,
        )
        entries = context.entries[first:]
    for entry in entries:
        bound(entry, request)
    return entries


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

    An error that says that nothing was sent leaves no entry, nor does the end of a wait for the
    attempt. An `answer` of another type is none: a
    third party may return anything.
    """
    if isinstance(error, InputError):
        error = translate(error)  # it may be the answer that does not fit
    if answer is None and context.queued:
        return
    if answer is None and isinstance(error, AetherError) and not isinstance(error, ProviderError):
        return
    entry = context.open_entry(provider=provider, model=model)
    entry.started_at -= timedelta(seconds=seconds)
    if isinstance(answer, StreamChunk) and isinstance(answer.response, LLMResponse):
        answer = answer.response
    if isinstance(answer, LLMResponse | StreamChunk):
        counts = map(_count, _counts_of(answer))
        settle_answer(entry, answer, request, counts=counts, characters=characters)
    else:
        settle_failure(entry, error, request, characters=characters)


def _brought_nothing(entry: LedgerEntry) -> bool:
    """Whether an answer is of another attempt: of a provider that some layer has fallen back to."""
    return entry.error is not None and entry.state != "exact"


def _is_cached(answer: LLMResponse | StreamChunk | None) -> bool:
    source = answer.response if isinstance(answer, StreamChunk) else answer
    return isinstance(source, LLMResponse) and source.cached


def _count(told: object) -> int | None:
    """What a third party's provider tells may be no count: then it has told nothing."""
    return told if isinstance(told, int) and told >= 0 else None


_counts_of = attrgetter(
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"
)


def _take_counts(entry: LedgerEntry, counts: Iterable[int | None], details: dict[str, int]) -> None:
    """Take what was told. A count of which a part is more than the whole is not known: nothing that
    is told like that has a price.
    """
    (
        entry.input_tokens,
        entry.output_tokens,
        entry.cache_read_tokens,
        entry.cache_write_tokens,
        entry.reasoning_tokens,
    ) = counts
    entry.token_details = details
    if details or entry.cache_read_tokens or entry.cache_write_tokens or entry.reasoning_tokens:
        _doubt(entry)


def _doubt(entry: LedgerEntry) -> None:
    details = {name: tokens for name, tokens in entry.token_details.items() if tokens >= 0}
    read, written = entry.cache_read_tokens or 0, entry.cache_write_tokens or 0
    kept, stored = _parts(details, "cache_", "_read_tokens"), _parts(details, "cache_write_")
    if kept > read or stored > written:
        entry.input_tokens = None
        details = {name: details[name] for name in details if name.startswith("output_")}
    if max(read + written, _parts(details, "input_")) > (entry.input_tokens or 0):
        entry.input_tokens = None
    if max(entry.reasoning_tokens or 0, _parts(details, "output_")) > (entry.output_tokens or 0):
        entry.output_tokens = None
    entry.token_details = details


def _parts(details: dict[str, int], start: str, end: str = "") -> int:
    """So many tokens the parts have whose names begin and end like this."""
    return sum(
        tokens for name, tokens in details.items() if name.startswith(start) and name.endswith(end)
    )


def _estimate(
    entry: LedgerEntry, request: LLMRequest, characters: int, *, whole: bool = True
) -> None:
    """Estimate what was not told, as no less than those of its parts that were. Of an answer that
    is not whole, there may be more than was told.

    That no more came than so many characters is no bound: a model may reason in hiding.
    """
    entry.state = "estimated"
    if entry.input_tokens is None:
        cached = (entry.cache_read_tokens or 0) + (entry.cache_write_tokens or 0)
        told = max(cached, _parts(entry.token_details, "input_"))
        entry.input_tokens = max(estimate_input_tokens(request), told)
        entry.most_input_tokens = max(input_token_bound(request), entry.input_tokens)
    if entry.output_tokens is None or not whole:
        parts = max(entry.reasoning_tokens or 0, _parts(entry.token_details, "output_"))
        told = max(entry.output_tokens or 0, parts)
        likely = min(estimate_tokens(characters), output_token_bound(request))
        entry.output_tokens = max(likely, told)
        entry.most_output_tokens = max(output_token_bound(request), entry.output_tokens)


def _is_reported(error: BaseException | None) -> bool:
    """Whether the server itself says that it failed."""
    if isinstance(error, RequestTimeoutError) and error.status is None:
        return False
    return isinstance(error, ProviderError) and not isinstance(error, _BREAKS)


def _was_refused(error: BaseException | None, provider: str | None) -> bool:
    if isinstance(error, ContentFilterError):
        return False  # who filters has read it, and may have had it answered
    if isinstance(error, ContextLengthError):
        return provider != _JUDGES_FIRST
    if isinstance(error, ProviderError) and error.kind in _BAD_CALLS:
        return False
    if isinstance(error, _REFUSALS):
        return True
    if isinstance(error, ProviderConnectionError | RequestTimeoutError) and error.status is None:
        return error.kind in _NEVER_CONNECTED
    if isinstance(error, ProviderError):
        status = error.status
        return status is not None and 400 <= status < 500 and status != 408
    return isinstance(error, ConnectionRefusedError | socket.gaierror)
