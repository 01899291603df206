"""Whose matter an error is: the provider's, or the state of its account, or the caller's own.

It must not know what is done about it.
"""

from __future__ import annotations

from aether.errors import (
    AetherError,
    AuthenticationError,
    BadRequestError,
    CircuitOpenError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)

__all__ = ["speaks_against_provider"]

_CALLERS = (AuthenticationError, BadRequestError, NotFoundError, PermissionDeniedError)
_PROVIDERS = (
    OverloadedError,
    ProtocolError,
    ProviderConnectionError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)


def speaks_against_provider(error: AetherError) -> bool:
    """Whether another provider may do better: the rule of a `FallbackProvider` without `on`."""
    if isinstance(error, StreamInterruptedError) and isinstance(error.__cause__, ProviderError):
        error = error.__cause__  # what broke it off
    if not isinstance(error, ProviderError):
        return isinstance(error, CircuitOpenError)
    if isinstance(error, _CALLERS):
        return False
    status = error.status
    refused = status is not None and 400 <= status < 500 and not error.retryable
    return isinstance(error, _PROVIDERS) or not refused
