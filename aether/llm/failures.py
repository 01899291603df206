"""Understanding exceptions that are not Aether's: a third party's provider may raise anything.

It must not know a provider.
"""

from __future__ import annotations

from aether.errors import (
    AetherError,
    ProviderConnectionError,
    ProviderError,
    RequestTimeoutError,
)

__all__ = ["translate"]


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
