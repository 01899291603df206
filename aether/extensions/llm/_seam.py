"""The seam of an answer that one provider has begun and another goes on with.

It must not know why the first one stopped, nor a protocol. No text is left out or repeated at it.
"""

from __future__ import annotations

import dataclasses

from aether.llm.content import ReasoningPart, TextPart
from aether.llm.messages import LLMRequest, LLMResponse, Message, StreamChunk

__all__ = ["Beginning"]


class Beginning:
    """What a stream's reader has got of an answer; true if there is something."""

    __slots__ = ("_called", "_given", "_reasoning", "_space", "_texts")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._called = False
        self._given = (0, 0)
        """So many pieces of text and reasoning of it are what another goes on with."""
        self._space = ""
        """White space at the end of it, which the other may say again: it was not told of it."""

    def __bool__(self) -> bool:
        return bool(self._texts or self._reasoning or self._called)

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def add(self, chunk: StreamChunk) -> None:
        """The reader gets this chunk."""
        if chunk.text:
            self._texts.append(chunk.text)
        if chunk.reasoning:
            self._reasoning.append(chunk.reasoning)
        if chunk.tool_call is not None:
            self._called = True

    def can_be_continued(self, request: LLMRequest) -> bool:
        """Whether a model can be given it as the beginning of its answer to the request."""
        return (
            bool(self.text.strip())
            and not self._called
            and request.output_schema is None
            and request.tool_choice in (None, "auto", "none")
            and bool(request.messages)
            and request.messages[-1].role != "assistant"
        )

    def as_part_of(self, request: LLMRequest) -> LLMRequest:
        """The request whose conversation ends with it. It asks for no reasoning, which would have
        to stand before the text.
        """
        text = self.text
        begun = text.rstrip()  # a beginning that ends with white space is refused, by Anthropic
        self._space = text[len(begun) :]
        self._given = (len(self._texts), len(self._reasoning))
        message = Message("assistant", begun)
        return request.replace(messages=(*request.messages, message), reasoning=None)

    def joined(self, chunk: StreamChunk) -> StreamChunk:
        """A chunk of what comes behind it, as the reader gets it: a final one with all of it."""
        text = self._behind_space(chunk.text) if chunk.text else ""
        response = chunk.response
        if isinstance(response, LLMResponse):
            response = self._whole(response, more=text)
        if text != chunk.text or response is not chunk.response:
            chunk = dataclasses.replace(chunk, text=text, response=response)
        self.add(chunk)
        return chunk

    def begin_anew(self) -> StreamChunk:
        """Whoever goes on with it says that his part is void: only what he was given is left of it.
        Gives that, for a reader who drops all.
        """
        texts, reasoning = self._given
        del self._texts[texts:], self._reasoning[reasoning:]
        self._called = False
        text = self.text
        self._space = text[len(text.rstrip()) :]
        return StreamChunk(text=text, reasoning="".join(self._reasoning) or None)

    def as_response(self, known: LLMResponse | None, *, model: str) -> LLMResponse:
        """It as an answer that is not whole; `known` is what its provider has told of it."""
        if known is None:
            known = LLMResponse(text="", model=model)
        return self._whole(known).model_copy(update={"finish_reason": None})

    def _whole(self, response: LLMResponse, *, more: str = "") -> LLMResponse:
        """The response with the text and reasoning of all, without opaque state of a part."""
        text = self.text + more
        content = response.message.content
        parts = [] if isinstance(content, str) else content
        others = [part for part in parts if not isinstance(part, TextPart | ReasoningPart)]
        content = [TextPart(text=text), *others] if others else text
        message = response.message.model_copy(update={"content": content, "provider_state": {}})
        reasoning = "".join(self._reasoning) or response.reasoning
        return response.model_copy(
            update={"text": text, "reasoning": reasoning, "message": message}
        )

    def _behind_space(self, text: str) -> str:
        """A delta without what it repeats of the white space before it."""
        space, self._space = self._space, ""
        while space and text and text[0] == space[0]:
            space, text = space[1:], text[1:]
        if not text:
            self._space = space
        return text
