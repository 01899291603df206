"""A provider without a model, for tests and for trying things out.

It must not know a network, a clock or chance: the same script gives the same answers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from aether.errors import ConfigurationError, ProviderError
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.sizing import estimate_input_tokens, estimate_tokens
from aether.llm.streaming import final_chunk

__all__ = ["FakeProvider"]

MODEL = "fake-model"
_PIECE = 4


class FakeProvider:
    """Answers always the same, or plays a script.

    An item of `responses` is an `LLMResponse` (tool calls too), a string, or an exception to
    raise; they are played in order, streaming or not, and one more call than there are items
    raises a `ProviderError` that says so. The requests it got are in `requests`.

    A token is four characters, rounded up; an `LLMResponse` of the script keeps its own counts.
    A text streams in pieces of four characters, a shorter one in two, an empty one as the final
    chunk alone.
    """

    def __init__(
        self,
        canned_response: str = "hello",
        *,
        responses: Sequence[LLMResponse | str | BaseException] | None = None,
        default_model: str = MODEL,
    ) -> None:
        if isinstance(responses, str):
            raise ConfigurationError("responses is a list: FakeProvider(responses=['...'])")
        if not isinstance(canned_response, str):
            raise ConfigurationError(
                "canned_response is a string; a script is FakeProvider(responses=[...])"
            )
        self.canned_response = canned_response
        self.default_model = default_model
        self.requests: list[LLMRequest] = []
        self._script = None if responses is None else list(responses)
        self._played = 0

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        return self._next(request)

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        response = self._next(request)
        if response.reasoning:
            yield StreamChunk(reasoning=response.reasoning)
        text = response.text
        piece = _PIECE if len(text) > _PIECE else max(1, -(-len(text) // 2))
        for start in range(0, len(text), piece):
            yield StreamChunk(text=text[start : start + piece])
        yield final_chunk(response)

    def _next(self, request: LLMRequest) -> LLMResponse:
        self.requests.append(request)
        model = request.model or self.default_model
        if self._script is None:
            return self._answer(self.canned_response, model, request)
        if self._played >= len(self._script):
            raise ProviderError(
                f"The fake's script is exhausted: it has {len(self._script)} responses and was "
                "called once more. Add a response, or find out why there was another call.",
                provider="fake",
                model=model,
            )
        item = self._script[self._played]
        self._played += 1
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, str):
            return self._answer(item, model, request)
        return item

    @staticmethod
    def _answer(text: str, model: str, request: LLMRequest) -> LLMResponse:
        return LLMResponse(
            text=text,
            model=model,
            input_tokens=estimate_input_tokens(request),
            output_tokens=estimate_tokens(len(text)),
            finish_reason="stop",
            finish_reason_raw="stop",
            provider="fake",
        )

    def __repr__(self) -> str:
        return "FakeProvider()"
