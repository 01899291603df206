"""What each of several callers gets of one answer: something of his own, which costs nothing.

It must not know a cache, nor how the callers wait for it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

from aether.errors import (
    AetherError,
    BudgetExceededError,
    ConfigurationError,
    DeadlineExceededError,
    InputError,
    StreamInterruptedError,
)
from aether.llm.failures import check_response, translate
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.streaming import final_chunk

__all__ = ["Result", "concerns_all", "delta_of", "error_of", "final_of", "response_of"]

_FIRST_CALLERS_OWN = (BudgetExceededError, ConfigurationError, DeadlineExceededError, InputError)


@dataclass(slots=True)
class Result:
    """What came of a call that several may wait for."""

    raw: object
    """What the provider gave: a response, or a stream's final chunk. The first caller's."""
    response: LLMResponse | None
    """To be copied for each of the others."""
    found: bool = False
    """Whether it comes from a cache: then nobody is the first."""


def response_of(
    result: Result | None, request: LLMRequest, *, first: bool, alone: bool
) -> LLMResponse | None:
    """The caller's response; `None` if he must ask himself. `alone`: nobody else gets another."""
    if result is None:
        return None  # it was a stream without an end
    if first and not result.found:
        return cast(LLMResponse, result.raw)
    if result.response is None and isinstance(result.raw, StreamChunk):
        return None
    return _copy_of(result, request, alone=alone)


def final_of(
    result: Result | None, request: LLMRequest, *, first: bool, alone: bool
) -> StreamChunk | None:
    """The caller's final chunk; `None` if the stream had none."""
    if result is None:
        return None
    if isinstance(result.raw, StreamChunk) and (first or result.response is None):
        return result.raw if first else copy.copy(result.raw)
    return final_chunk(_copy_of(result, request, alone=alone))


def delta_of(chunk: StreamChunk) -> StreamChunk:
    """The caller's copy of a delta."""
    call = None if chunk.tool_call is None else copy.copy(chunk.tool_call)
    return StreamChunk(chunk.text, chunk.reasoning, call, restart=chunk.restart)


def concerns_all(error: BaseException) -> bool:
    """Whether a call's error is that of all who wait, not of its first caller alone."""
    return isinstance(error, Exception) and not isinstance(translate(error), _FIRST_CALLERS_OWN)


def error_of(error: BaseException) -> AetherError:
    """The caller's copy of an error: one that many tasks raise would hold the frames of all."""
    if not isinstance(error, Exception):
        return StreamInterruptedError("The call that brought this stream was cancelled.")
    translated = translate(error)
    if translated is not error:
        return translated
    try:
        copied = copy.copy(translated)
    except Exception:  # noqa: BLE001 - a third party's class may not be made for it
        return translated
    copied.__cause__ = error.__cause__
    if hasattr(error, "__notes__"):
        copied.__notes__ = list(error.__notes__)
    return copied


def _copy_of(result: Result, request: LLMRequest, *, alone: bool) -> LLMResponse:
    response = result.raw if result.response is None else result.response
    check_response(response, request)
    update = {"cached": True, "attempts": 0}
    return cast(LLMResponse, response).model_copy(update=update, deep=not alone)
