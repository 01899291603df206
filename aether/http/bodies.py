"""Reading bodies within the port's limits. It must not know who sends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aether.errors import AetherError
from aether.http.contracts import ERROR_BODY_MAX_BYTES, ERROR_BODY_MAX_SECONDS

__all__ = ["read_error_body"]


async def read_error_body(pieces: AsyncIterator[bytes]) -> bytes:
    """As much of a body that explains an error status as comes within the limits.

    The status is the error: a body that breaks off or dawdles is as long as it is. The pieces are
    left open.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(ERROR_BODY_MAX_SECONDS):
            async for piece in pieces:
                body += piece
                if len(body) >= ERROR_BODY_MAX_BYTES:
                    break
    except (AetherError, TimeoutError):
        pass
    return bytes(body[:ERROR_BODY_MAX_BYTES])
