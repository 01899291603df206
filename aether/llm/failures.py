"""Understanding exceptions that are not Aether's: a third party's provider may raise anything.

It must not know a provider.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from aether.errors import (
    AetherError,
    InputError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from aether.llm.messages import LLMRequest, LLMResponse, StructuredResponse, ToolCall

__all__ = ["broken_stream", "check_response", "error_of", "lost_calls", "translate"]

E = TypeVar("E", bound=ProviderError)

_ANSWERS = frozenset(made.__name__ for made in (LLMResponse, StructuredResponse, ToolCall))
"""What a provider makes of an answer alone, and never of a request."""


def translate(
    error: Exception, *, provider: str | None = None, model: str | None = None
) -> AetherError:
    """The error as an `AetherError`, with the original as its `__cause__`.

    One that is an `AetherError` already comes back as it is. A timeout or a failing connection may
    be retried, anything else may not; nor may a `ValueError`, which a refused certificate is too.

    An `InputError` of a provider that made a response of values that do not fit is a
    `ProtocolError`: it says that nothing was sent, but the answer is there and cannot be read.
    """
    kind: type[ProviderError] = ProviderError
    said = f"The provider raised {type(error).__name__}"
    if isinstance(error, InputError) and _is_of_an_answer(error):
        kind, said = ProtocolError, "The provider made an answer of values that do not fit"
    elif isinstance(error, AetherError):
        return error
    elif isinstance(error, TimeoutError):
        kind = RequestTimeoutError
    elif isinstance(error, OSError):
        kind = ProviderConnectionError
    translated = kind(
        f"{said}: {_words(error)}"[:500],
        provider=provider,
        model=model,
        retryable=False if isinstance(error, ValueError) else None,
    )
    translated.__cause__ = error
    return translated


def broken_stream(
    error: Exception, text: str, *, provider: str | None = None, model: str | None = None
) -> AetherError:
    """The error of a stream that broke after its first content; `partial` holds `text`, the deltas.

    What may be retried in itself, or is nobody's error yet, is a `StreamInterruptedError` here. A
    refusal, such as of the content, stays what it is.
    """
    broken = translate(error, provider=provider, model=model)
    if not isinstance(broken, ProviderError):
        return broken
    if not isinstance(broken, StreamInterruptedError) and (broken.retryable or broken is not error):
        cause = broken
        broken = StreamInterruptedError(
            f"The stream broke off: {cause}",
            provider=cause.provider,
            model=cause.model,
            status=cause.status,
            request_id=cause.request_id,
            retryable=cause.retryable,
            retry_after=cause.retry_after,
            partial=cause.partial,
            kind=cause.kind,
        )
        broken.__cause__ = error
    if broken.partial is None:
        broken.partial = LLMResponse(text=text, model=model or "")
    return broken


def check_response(response: object, request: LLMRequest, provider: str | None = None) -> None:
    """Refuse what a provider may not return, with a `ProtocolError`."""
    if not isinstance(response, LLMResponse):
        raise ProtocolError(
            f"The provider returned {type(response).__name__} instead of an LLMResponse.",
            provider=provider,
            model=request.model,
        )
    if not response.tool_calls and response.message.tool_calls:
        raise lost_calls(response)


def lost_calls(response: LLMResponse) -> ProtocolError:
    """The error of an answer that does not list the calls which it has begun elsewhere."""
    return error_of(
        ProtocolError,
        "The provider gave tool calls that its response does not list as `tool_calls`: they would "
        "be lost.",
        response,
    )


def error_of(kind: type[E], message: str, response: LLMResponse) -> E:
    """The error of an answer, which it holds as its `partial`."""
    return kind(
        message,
        provider=response.provider,
        model=response.model,
        request_id=response.request_id,
        partial=response,
    )


def _is_of_an_answer(error: InputError) -> bool:
    cause = error.__cause__
    return isinstance(cause, ValidationError) and cause.title in _ANSWERS


def _words(error: Exception) -> str:
    """What the exception says, on one line; anybody's `__str__` may fail."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - whatever it is, the failure is told without it
        return "(its message cannot be read)"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
