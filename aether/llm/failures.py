"""Understanding exceptions that are not Aether's: a third party's provider may raise anything.

It must not know a provider.
"""

from __future__ import annotations

from aether.errors import (
    AetherError,
    ProviderConnectionError,
    ProviderError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from aether.llm.messages import LLMResponse

__all__ = ["broken_stream", "translate"]


def translate(
    error: Exception, *, provider: str | None = None, model: str | None = None
) -> AetherError:
    """The error as an `AetherError`, with the original as its `__cause__`.

    One that is an `AetherError` already comes back as it is. A timeout or a failing connection may
    be retried, anything else may not; nor may a `ValueError`, which a refused certificate is too.
    """
    if isinstance(error, AetherError):
        return error
    kind: type[ProviderError] = ProviderError
    if isinstance(error, TimeoutError):
        kind = RequestTimeoutError
    elif isinstance(error, OSError):
        kind = ProviderConnectionError
    translated = kind(
        f"The provider raised {type(error).__name__}: {error}"[:500],
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
