"""Adapters without a network: a body in any pieces, and what an adapter makes of it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from aether import ProviderConfig
from aether.errors import AetherError
from aether.extensions.llm.factory import build_provider
from aether.http.contracts import AddressCheck, HTTPResponse, Timeout
from aether.llm.contracts import LLMProvider, LLMRequest, LLMResponse, Message, StreamChunk
from aether.registry import default_registry
from tests.faults.aftermath import KEY
from tests.faults.exchanges import MODEL, PROTOCOLS

T = TypeVar("T")


class Feed:
    """A `Transport` without a network: each request gets the next of the bodies, in its pieces."""

    def __init__(self, *bodies: Sequence[bytes]) -> None:
        self.bodies = list(bodies)
        self.then: AetherError | None = None
        """What is raised where a body would end."""

    def hold(self, pieces: Sequence[bytes], then: AetherError | None = None) -> None:
        """Have this body, and no other, to give."""
        self.bodies = [pieces]
        self.then = then

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: Timeout,
        max_bytes: int,
        check_address: AddressCheck | None = None,
    ) -> HTTPResponse:
        pieces = self.bodies.pop(0)
        if self.then is not None:
            raise self.then
        return HTTPResponse(200, {}, b"".join(pieces))

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: Timeout,
        check_address: AddressCheck | None = None,
    ) -> AsyncIterator[_Fed]:
        yield _Fed(self.bodies.pop(0), self.then)

    async def aclose(self) -> None:
        """Nothing is open."""


class _Fed:
    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, pieces: Sequence[bytes], then: AetherError | None) -> None:
        self._pieces = pieces
        self._then = then

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if piece:
                yield piece
        if self._then is not None:
            raise self._then


def adapter_of(protocol: str, feed: Feed) -> LLMProvider:
    """The adapter of a protocol over a feed."""
    name, _, _ = protocol.partition(".")
    api = {"openai": "chat", "openai.responses": "responses"}.get(protocol)
    config = ProviderConfig(
        name,
        model=MODEL,
        api_key=KEY,
        base_url="http://127.0.0.1:9",
        transport=feed,
        options={} if api is None else {"api": api},
    )
    return build_provider(config, default_registry)[1]


@dataclasses.dataclass
class Read:
    """What an adapter made of a body: the chunks that were handed out, and how it ended."""

    chunks: list[StreamChunk]
    response: LLMResponse | None = None
    error: AetherError | None = None

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def said(self) -> list[tuple[str, str | None, Any]]:
        """What was handed out, piece by piece, made-up ids aside."""
        return [
            (chunk.text, chunk.reasoning, chunk.tool_call and chunk.tool_call.arguments)
            for chunk in self.chunks
        ]

    @property
    def ending(self) -> object:
        """What two readings that are equal have in common, made-up ids aside."""
        if self.error is not None:
            return type(self.error), str(self.error)
        assert self.response is not None
        response = self.response
        calls = [
            (made.name, made.arguments, made.invalid_arguments) for made in response.tool_calls
        ]
        return (
            response.text,
            response.reasoning,
            calls,
            response.finish_reason,
            response.input_tokens,
            response.output_tokens,
        )


class Reader:
    """`with Reader() as reader:` reads bodies with the adapter of each protocol, without waiting.

    What is raised and is no `AetherError` goes on: an answer never is another's fault, either.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._feeds = {protocol: Feed() for protocol in PROTOCOLS}
        self._providers: dict[str, Any] = {
            protocol: adapter_of(protocol, feed) for protocol, feed in self._feeds.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in the reader's own loop."""
        return self._loop.run_until_complete(work)

    def stream(self, protocol: str, *pieces: bytes, then: AetherError | None = None) -> Read:
        """A streamed answer in these pieces, read to its end."""
        return self.run(self.read_stream(protocol, pieces, then=then))

    def whole(self, protocol: str, body: bytes) -> Read:
        """An answer that is no stream."""
        return self.run(self.read_whole(protocol, body))

    async def read_stream(
        self, protocol: str, pieces: Sequence[bytes], *, then: AetherError | None = None
    ) -> Read:
        """The same where the loop is running."""
        self._feeds[protocol].hold(pieces, then)
        read = Read([])
        stream = self._providers[protocol].stream(_REQUEST)
        try:
            async for chunk in stream:
                read.chunks.append(chunk)
                if chunk.response is not None:
                    read.response = chunk.response
        except AetherError as error:
            read.error = error
        finally:
            await stream.aclose()
        return read

    async def read_whole(self, protocol: str, body: bytes) -> Read:
        """The same where the loop is running."""
        self._feeds[protocol].hold([body])
        read = Read([])
        try:
            read.response = await self._providers[protocol].complete(_REQUEST)
        except AetherError as error:
            read.error = error
        return read


_REQUEST = LLMRequest([Message("user", "Hi")])
