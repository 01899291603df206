"""Transports that note what was sent: one sends it, and one answers by itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aether.extensions.http.aiohttp import AiohttpTransport
from aether.http.contracts import HTTPResponse, HTTPStream

__all__ = ["REFUSAL", "Recorder", "Refuser", "Sent"]

REFUSAL = json.dumps({"error": {"message": "Noted.", "type": "noted", "status": "NOTED"}}).encode()
"""To be sent with 400, which no client tries again, in the words of every protocol."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request as it went out; header names in lower case."""

    url: str
    headers: Mapping[str, str]
    body: Any


class Recorder:
    """Notes each request in `sent`, and hands it to a transport of its own."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._inner = AiohttpTransport()

    async def request(self, method: str, url: str, **options: Any) -> HTTPResponse:
        self._note(url, options)
        return await self._inner.request(method, url, **options)

    def stream(
        self, method: str, url: str, **options: Any
    ) -> AbstractAsyncContextManager[HTTPStream]:
        self._note(url, options)
        return self._inner.stream(method, url, **options)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _note(self, url: str, options: Mapping[str, Any]) -> None:
        self.sent.append(_noted(url, options))


class Refuser:
    """Notes each request and refuses it, so that the vendors' own addresses can be asked."""

    status = 400
    headers: Mapping[str, str] = {"content-type": "application/json"}

    def __init__(self) -> None:
        self._sent: list[Sent] = []

    def take(self) -> Sent:
        """The one request that was sent."""
        (sent,) = self._sent
        self._sent.clear()
        return sent

    async def request(self, method: str, url: str, **options: Any) -> HTTPResponse:
        self._sent.append(_noted(url, options))
        return HTTPResponse(self.status, self.headers, REFUSAL)

    @asynccontextmanager
    async def stream(self, method: str, url: str, **options: Any) -> AsyncIterator[HTTPStream]:
        self._sent.append(_noted(url, options))
        yield self

    async def chunks(self) -> AsyncIterator[bytes]:
        yield REFUSAL

    async def aclose(self) -> None:
        pass


def _noted(url: str, options: Mapping[str, Any]) -> Sent:
    headers = {name.lower(): value for name, value in options["headers"].items()}
    return Sent(url, headers, json.loads(options["body"]))
