"""Answers that follow a schema, from models that have no mode of their own for it.

It must not know a protocol: it changes requests before, and answers after, a codec sees them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import to_json

from aether.llm.content import TextPart
from aether.llm.messages import LLMRequest, LLMResponse, Message, StreamChunk, ToolSpec
from aether.llm.streaming import final_chunk

__all__ = ["AnswerTool", "OutputMode", "told_the_schema"]

OutputMode = Literal["native", "tool", "prompt"]
"""The provider enforces the schema; or the answer is the call of a tool; or the model is told."""

_NAME = "answer"
_DESCRIPTION = "Gives the final answer. Call it once, when you know the answer, instead of writing."
_INSTRUCTION = (
    "Your final answer is one JSON object, with no text or code fence around it, that follows "
    "this JSON Schema:\n"
)


@dataclass(frozen=True, slots=True)
class _Tool:
    name: str
    description: str
    parameters: Mapping[str, Any]


class AnswerTool:
    """An answer that the model gives by calling a tool: the call's arguments become the text.

    `request` is what is sent instead. What the model wrote beside the call is left out. Calls of
    other tools in the same turn stay calls. A turn in which one of those is forced gives no answer.
    """

    def __init__(self, request: LLMRequest) -> None:
        taken = {tool.name for tool in request.tools}
        name = _NAME
        while name in taken:
            name += "_"
        self._name = name
        tool = _Tool(name, _DESCRIPTION, request.output_schema or {})
        tools: Sequence[ToolSpec] = (*request.tools, tool)
        choice: str | None = "required"
        if request.tool_choice not in (None, "auto", "none") and request.tools:
            tools, choice = request.tools, request.tool_choice
        elif request.tool_choice == "none" or not request.tools:
            tools, choice = (tool,), name
        self.request = request.replace(tools=tools, tool_choice=choice, output_schema=None)
        self._answers: list[int] = []
        self._written: list[str] = []

    def chunk(self, chunk: StreamChunk) -> StreamChunk:
        """What the reader gets to see: of the answer's call the arguments, as text.

        Other text is held back until it is known that there is no such call.
        """
        call = chunk.tool_call
        if call is not None and call.name == self._name and call.index not in self._answers:
            self._answers.append(call.index)
        if call is None or call.index not in self._answers:
            return StreamChunk(reasoning=chunk.reasoning, tool_call=call)
        if call.index != self._answers[0]:  # the first answer counts
            return StreamChunk(reasoning=chunk.reasoning)
        self._written.append(call.arguments)
        return StreamChunk(call.arguments, reasoning=chunk.reasoning)

    def response(self, response: LLMResponse) -> LLMResponse:
        """The answer as text, if it was given by the tool; else the response as it is.

        Of a call that was cut, and so is none, the text is what had been streamed of it.
        """
        text = "".join(self._written)
        answers = [call for call in response.tool_calls if call.name == self._name]
        if not answers and not text:
            return response
        if not text:
            text = answers[0].invalid_arguments or to_json(answers[0].arguments).decode()
        others = [call for call in response.tool_calls if call.name != self._name]
        finish = response.finish_reason
        if finish == "tool_calls" and not others:
            finish = "stop"
        return response.model_copy(
            update={
                "text": text,
                "tool_calls": others,
                "finish_reason": finish,
                "message": Message("assistant", text, tool_calls=others),
            }
        )

    def final_chunk(self, whole: LLMResponse) -> StreamChunk:
        """The chunk that closes the stream, with the text that was held back if it counts."""
        response = self.response(whole)
        shown = "".join(self._written)
        return final_chunk(response, text=response.text.removeprefix(shown))


def told_the_schema(request: LLMRequest) -> LLMRequest:
    """The request with its schema in its first system message."""
    said = _INSTRUCTION + to_json(request.output_schema).decode()
    first, *rest = request.messages
    if first.role != "system":
        messages = (Message("system", said), first, *rest)
    elif isinstance(first.content, str):
        text = f"{first.content}\n\n{said}" if first.content else said
        messages = (first.model_copy(update={"content": text}), *rest)
    else:
        content = [*first.content, TextPart(text=f"\n\n{said}")]
        messages = (first.model_copy(update={"content": content}), *rest)
    return request.replace(messages=messages)
