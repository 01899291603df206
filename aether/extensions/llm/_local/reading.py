"""Reading one reply: the engine's chunks become deltas, usage, a finish reason and an entry.

It must not know how the engine is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from aether.errors import ProtocolError, ProviderError, StreamInterruptedError
from aether.extensions.llm._local.constrained import open_reply
from aether.extensions.llm._wire.errors import Source, reported_error
from aether.llm.messages import FinishReason, LLMRequest, LLMResponse, StreamChunk, ToolCall
from aether.llm.streaming import final_chunk

__all__ = ["Reading"]


class Reading:
    """`with Reading(request, model=...) as reading:` around one call of the engine.

    Leaving it settles the ledger entry, if the request has a context: `exact` after `finish`,
    else `estimated` from the count that the engine sends with each token, and `not_billed` if it
    had not begun.
    """

    def __init__(self, request: LLMRequest, *, model: str) -> None:
        self._model = model
        self._reply = open_reply(request)
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._finish_reason_raw: str | None = None
        self._request_id: str | None = None
        self._input_tokens: int | None = None
        self._output_tokens: int | None = None
        self._cached_tokens: int | None = None
        self._is_finished = False
        context = request.context
        self._entry = None if context is None else context.open_entry(provider="local", model=model)

    @property
    def is_complete(self) -> bool:
        """Whether the reply has ended, whatever else the engine would send."""
        return self._reply.is_complete

    def take(self, chunk: Mapping[str, Any]) -> Iterator[StreamChunk]:
        """The deltas of a chunk. Raises the error that it reports."""
        if "error" in chunk:
            raise self._reported(chunk["error"])
        self._request_id = chunk.get("id") or self._request_id
        self._count(chunk.get("timings") or {}, chunk.get("usage") or {})
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if thought := delta.get("reasoning_content"):
                self._reasoning.append(thought)
                yield StreamChunk(reasoning=thought)
            if text := delta.get("content"):
                for piece in self._reply.feed(text):
                    self._text.append(piece.text)
                    yield piece
            self._finish_reason_raw = choice.get("finish_reason") or self._finish_reason_raw

    def finish(self) -> StreamChunk:
        """The final chunk. Raises if the reply is neither whole nor cut at the token limit."""
        held = self._reply.end()
        self._text.append(held)
        response = self._response()
        if response.finish_reason is None:
            raise StreamInterruptedError(
                "The local engine stopped before the end of its answer.",
                provider="local",
                model=self._model,
                partial=response,
            )
        if response.finish_reason != "length" and not self._reply.is_valid:
            raise ProtocolError(
                "The local engine's reply does not follow the schema that it was given.",
                provider="local",
                model=self._model,
                partial=response,
            )
        self._is_finished = True
        return final_chunk(response, text=held)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, ProviderError) and error.partial is None and any(self._text):
            error.partial = self._response()
        entry = self._entry
        if entry is None:
            return
        entry.request_id = self._request_id
        if error is not None and not self._is_finished:
            entry.error = type(error).__name__
        if not self._input_tokens:
            entry.state = "not_billed"
            return
        entry.state = "exact" if self._is_finished else "estimated"
        entry.input_tokens = self._input_tokens
        entry.output_tokens = self._output_tokens
        entry.cache_read_tokens = self._cached_tokens

    def _count(self, timings: Mapping[str, int], usage: Mapping[str, int]) -> None:
        if timings:
            # The prompt's tokens are either computed or still in the slot from an earlier call.
            self._cached_tokens = timings.get("cache_n", 0)
            self._input_tokens = timings.get("prompt_n", 0) + self._cached_tokens
            self._output_tokens = timings.get("predicted_n")
        if usage:
            self._input_tokens = usage.get("prompt_tokens")
            self._output_tokens = usage.get("completion_tokens")

    def _response(self) -> LLMResponse:
        call = self._reply.call
        return LLMResponse(
            text="".join(self._text),
            model=self._model,
            provider="local",
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            cache_read_tokens=self._cached_tokens,
            tool_calls=[] if call is None else [ToolCall.parse(*call)],
            finish_reason=self._finish_reason(),
            finish_reason_raw=self._finish_reason_raw,
            reasoning="".join(self._reasoning) or None,
            request_id=self._request_id,
        )

    def _finish_reason(self) -> FinishReason | None:
        if self._reply.call is not None:
            return "tool_calls"
        if self.is_complete:
            return "stop"
        match self._finish_reason_raw:
            case "stop" | "length" | None as reason:
                return reason
        return "other"

    def _reported(self, report: object) -> ProviderError:
        source = Source("local", self._model, str, self._request_id)
        error = reported_error(report, source=source)
        error.retryable = False  # the engine would do the same again
        if not any(self._text):
            return error
        interrupted = StreamInterruptedError(
            f"The local engine broke off: {error}",
            provider="local",
            model=self._model,
            retryable=False,
        )
        interrupted.__cause__ = error
        return interrupted
