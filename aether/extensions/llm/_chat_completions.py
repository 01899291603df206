"""Chat Completions over an endpoint: what the adapters of OpenAI and of its like share.

It must not know how a provider is configured.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote

from aether.errors import (
    ConfigurationError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from aether.extensions.llm._http import Endpoint, render_json
from aether.extensions.llm._ledger import Attempt
from aether.extensions.llm._vendors import Vendor
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.openai_chat import ChatAssembly, parse_response, render_request
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.streaming import final_chunk

__all__ = ["ChatCompletions"]


class ChatCompletions:
    """One server's Chat Completions, spoken as its `vendor` row says."""

    def __init__(self, endpoint: Endpoint, vendor: Vendor, default_model: str | None) -> None:
        self._endpoint = endpoint
        self._vendor = vendor
        self._default_model = default_model

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """One request, one answer. Cancelling it closes the connection at once."""
        path, body, source = self._prepare(request, stream=False)
        with Attempt(request, source) as attempt:
            answer = await self._endpoint.post(
                path, body, headers=request.extra_headers, source=source
            )
            response = parse_response(answer, source=source, vendor=self._vendor)
            attempt.answered(response)
        return response

    async def stream(self, request: LLMRequest) -> AsyncGenerator[StreamChunk, None]:
        """One request, its answer in pieces; the last chunk, alone, is final.

        What goes wrong before the first content is raised as what it is, and may be tried again.
        After it, it is a `StreamInterruptedError` with what had come (or a `ProtocolError`, which
        carries that too). Closing the iterator closes the connection at once.
        """
        path, body, source = self._prepare(request, stream=True)
        with Attempt(request, source) as attempt:
            async with self._endpoint.stream(
                path, body, headers=request.extra_headers, source=source
            ) as events:
                assembly = ChatAssembly(source=source, vendor=self._vendor)
                attempt.watch(lambda: (assembly.partial(), assembly.characters))
                text = ""
                try:
                    async with aclosing(events.batches()) as batches:
                        async for batch in batches:
                            for chunk in assembly.feed(batch):
                                yield chunk
                            if assembly.ended:
                                break
                    if events.document is None:
                        response = assembly.finish()
                    else:
                        response = parse_response(
                            events.document, source=source, vendor=self._vendor
                        )
                        text = response.text
                except ProviderError as error:
                    if not (
                        _is_broken(error) and assembly.finished and events.ended_between_events
                    ):
                        raise _explained(error, assembly, source)  # noqa: B904 - it sets its cause
                    response = assembly.finish()  # the answer was whole, only its end mark lacks
                attempt.answered(response)
                yield final_chunk(response, text=text)
                await events.drain()

    async def aclose(self) -> None:
        """Close what was opened here. Twice is fine."""
        await self._endpoint.aclose()

    def _prepare(self, request: LLMRequest, *, stream: bool) -> tuple[str, bytes, Source]:
        vendor = self._vendor
        model = request.model or self._default_model
        if not model:
            raise ConfigurationError(
                f"No model was named for {vendor.name}. Set {vendor.name.upper()}_MODEL, or pass "
                "model= with the call."
            )
        body = render_request(request, model=model, vendor=vendor, stream=stream)
        path = vendor.path.replace("{model}", quote(model, safe=""))
        return path, render_json(body), self._endpoint.source(model)


def _is_broken(error: ProviderError) -> bool:
    """Whether the connection failed, and not the server or its protocol."""
    return isinstance(error, ProviderConnectionError | RequestTimeoutError) and error.status is None


def _explained(error: ProviderError, assembly: ChatAssembly, source: Source) -> ProviderError:
    """The error that the reader of a stream gets: what had come before it decides."""
    if not assembly.has_content or isinstance(error, StreamInterruptedError):
        return error
    partial = assembly.partial()
    if isinstance(error, ProtocolError):
        error.partial = error.partial or partial
        return error
    interrupted = source.error(
        StreamInterruptedError,
        f"The stream of {source.provider} broke off: {error}",
        status=error.status,
        retryable=error.retryable,
        retry_after=error.retry_after,
        kind=error.kind,
        partial=partial,
    )
    interrupted.__cause__ = error
    return interrupted
