"""From the events of a streamed answer to chunks, and at its end to the response.

It must not know where the events come from. Servers deviate in how calls are cut and where usage
stands; what is read here was seen in recorded streams of fourteen of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json, to_json

from aether.errors import ProtocolError, StreamInterruptedError
from aether.extensions.llm._vendors import Vendor
from aether.extensions.llm._wire.errors import Source, reported_error
from aether.extensions.llm._wire.large_json import ReadDocument
from aether.extensions.llm._wire.openai_chat.fragments import (
    is_more_than_text,
    join_details,
    join_parts,
)
from aether.extensions.llm._wire.openai_chat.messages import CALL_STATE, CONTENT
from aether.extensions.llm._wire.openai_chat.output_media import Sound, read_images
from aether.extensions.llm._wire.openai_chat.response import (
    OLD_CALL,
    REASONING_FIELDS,
    Answer,
    WireCall,
    first_choice,
    read_content,
    read_model,
    read_reasoning,
    refusal_in,
)
from aether.extensions.llm._wire.openai_chat.usage import find_usage
from aether.extensions.llm._wire.reading import check_number, expect, expect_list, listed
from aether.extensions.llm._wire.repetition import Repetition
from aether.extensions.llm._wire.thinking import ThinkingSplitter
from aether.llm.content import ImagePart
from aether.llm.messages import LLMResponse, StreamChunk, ToolCallDelta

__all__ = ["ChatAssembly"]

END_MARK = b"[DONE]"

_log = logging.getLogger("aether.llm")


def _only_text(chunk: Any) -> str | None:
    """The text of a chunk like most, in which there is nothing else; `None` for all others."""
    try:
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        text = delta["content"]
    except (KeyError, TypeError, ValueError):
        return None
    if (
        type(text) is not str
        or len(delta) > 1
        or choice.get("finish_reason")
        or choice.get("index")
        or choice.get("error")
        or chunk.get("usage")
        or chunk.get("error")
        or chunk.get("object") == "error"
        or "x_groq" in chunk
    ):
        return None
    return text


class _Call:
    """A tool call that is still being written."""

    __slots__ = ("arguments", "extra", "id", "name", "position")

    def __init__(self, position: int) -> None:
        self.position = position
        self.id: str | None = None
        self.name = ""
        self.arguments: list[str] = []
        self.extra: Any = None

    def is_followed_by(self, call_id: str, arguments: str) -> bool:
        """Whether a piece with a name is of another call: by its id, else as this one is whole."""
        if call_id and self.id:
            return call_id != self.id
        return bool(arguments.strip()) and self.is_whole

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are an object: nothing can follow it."""
        if not self.arguments or self.arguments[-1].rstrip()[-1:] != "}":
            return False
        try:
            return isinstance(from_json("".join(self.arguments)), dict)
        except ValueError:
            return False


def _with_more(name: str, more: str) -> str:
    """A call's name and a further piece of it: some repeat it whole in every piece, some cut it up,
    and some begin it anew, longer each time.
    """
    if not more or more == name:
        return name
    return more if more.startswith(name) else name + more


class ChatAssembly:
    """Puts one streamed answer together: `feed` it the events, then `finish`.

    What the protocol does not allow raises `ProtocolError`; an error that the server reports in
    the stream is raised as what it is.
    """

    def __init__(self, *, source: Source, vendor: Vendor) -> None:
        self.ended = False
        """Whether the end mark has come: nothing after it counts."""
        self._source = source
        self._vendor = vendor
        self._splitter = ThinkingSplitter() if vendor.think_tags else None
        self._text: list[str] = []
        self._spoken: list[str] = []
        self._reasoning: list[str] = []
        self._reasoning_field = ""
        self._details: list[Any] = []
        self._parts: list[Any] = []  # of content that came as lists, all of it
        self._sound = Sound()
        self._images: list[ImagePart] = []
        self._refusal: list[str] = []
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._usage: dict[str, Any] | None = None
        self._model: str | None = None
        self._finish: str | None = None  # "" where the server leaves it out
        self._warned = False
        self._is_plain = False
        """Whether a text that comes alone has only to be handed out."""
        self._repetition = Repetition(b'"content"')

    @property
    def finished(self) -> bool:
        """Whether the server has said why it stopped."""
        return self._finish is not None

    @property
    def has_content(self) -> bool:
        """Whether the caller was given anything: text, reasoning or a piece of a call."""
        return bool(self._text or self._reasoning or self._calls or self._sound or self._images)

    @property
    def characters(self) -> int:
        """How much was written, calls included."""
        pieces = [*self._text, *self._spoken, *self._reasoning]
        for call in self._calls:
            pieces += [call.name, *call.arguments]
        return sum(map(len, pieces))

    def feed(self, data: bytes, name: str = "") -> Sequence[StreamChunk]:
        """The chunks that an event holds: text, reasoning, pieces of calls; often none."""
        if self.ended or not data:
            return ()
        is_plain = self._is_plain and name != "error"
        repetition = self._repetition
        if is_plain and repetition.is_known and (text := repetition.read(data)):
            self._text.append(text)
            return (StreamChunk(text),)
        source = self._source
        try:
            chunk = data.value if type(data) is ReadDocument else from_json(data)
        except ValueError as error:
            if data.strip() == END_MARK:
                self.ended = True
                return self._end()
            raise source.error(
                ProtocolError, f"An event in the stream of {source.provider} is not JSON."
            ) from error
        if is_plain and (text := _only_text(chunk)):
            if repetition.is_sought:
                repetition.show(data, text)
            self._text.append(text)
            return (StreamChunk(text),)
        chunks = self._add(expect(chunk, dict, "chunk", source), name)
        self._is_plain = (
            self._model is not None
            and self._finish is None
            and self._splitter is None
            and not self._parts
            and not self._spoken
        )
        return chunks

    def finish(self) -> LLMResponse:
        """The whole. `StreamInterruptedError` if the server never said why it stopped."""
        source = self._source
        if self._finish is None:
            raise source.error(
                StreamInterruptedError,
                f"The stream of {source.provider} ended before the answer did.",
                kind="truncated",
                partial=self.partial(),
            )
        try:
            answer = self._answer(whole=True)
            if any(not call.name for call in answer.calls):
                raise source.error(
                    ProtocolError, f"{source.provider} gave a tool call without a name."
                )
            answer.check(source)
        except ProtocolError as error:
            error.partial = self.partial()
            raise
        return answer.to_response(source)

    def partial(self) -> LLMResponse:
        """What has come so far; a call that has no name yet is left out."""
        answer = self._answer()
        named = [call for call in answer.calls if call.name]
        return answer._replace(calls=named).to_response(self._source, whole=self.finished)

    def _end(self) -> Sequence[StreamChunk]:
        if self._finish is None and self._vendor.lenient_finish and self.has_content:
            self._finish = ""
            return self._release()
        return ()

    def _add(self, chunk: dict[str, Any], name: str) -> Sequence[StreamChunk]:
        source = self._source
        if name == "error" or chunk.get("error") or chunk.get("object") == "error":
            raise reported_error(chunk, source=source)
        groq = chunk.get("x_groq")
        if type(groq) is dict and groq.get("error"):  # why it stopped early
            raise reported_error(groq, source=source)
        if self._model is None:
            self._model = read_model(chunk)
        if chunk.get("usage") or "x_groq" in chunk:
            self._usage = find_usage(chunk) or self._usage  # totals so far: the latest counts
        choices = chunk.get("choices")
        if not choices:
            return ()
        given = [
            expect(choice, dict, "choice", source)
            for choice in expect_list(choices, "choices", source)
        ]
        choice = first_choice(given, source)
        return () if choice is None else self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> Sequence[StreamChunk]:
        if choice.get("error"):
            raise reported_error(choice, source=self._source)
        delta = choice.get("delta")
        reason = choice.get("finish_reason")
        if reason:
            expect(reason, str, "finish_reason", self._source)
        chunks: Sequence[StreamChunk] = ()
        if delta:
            chunks = self._add_delta(expect(delta, dict, "delta", self._source))
        if "message" in choice or "text" in choice:
            self._check_beside(choice, ends=bool(reason) or not delta)
        if reason and self._finish is None:
            self._finish = reason
            chunks = [*chunks, *self._release()]
        return chunks

    def _check_beside(self, choice: dict[str, Any], *, ends: bool) -> None:
        """Some tell the whole so far beside each delta. It must not have what the deltas lack."""
        whole = choice.get("message")
        calls = isinstance(whole, dict) and whole.get("tool_calls") and not self._calls
        if ends and (calls or (not self.has_content and (whole or choice.get("text")))):
            raise self._source.error(
                ProtocolError,
                f"{self._source.provider} gave a whole message in a stream, where the protocol has "
                "deltas. Use complete() or ask() with it.",
            )

    def _add_delta(self, delta: dict[str, Any]) -> Sequence[StreamChunk]:
        if self._finish is not None:
            self._drop(delta)
            return self._speak(delta)
        content = delta.get("content")
        if isinstance(content, list) or self._parts:
            self._note(content)
        text, reasoning = read_content(content, self._source)
        field, shown = read_reasoning(delta)
        if shown or not self._reasoning_field:
            self._reasoning_field = field
        reasoning += shown
        details = delta.get("reasoning_details")
        if type(details) is list:
            check_number(details, "reasoning_details", self._source)
            self._details += details
        refusal = delta.get("refusal")
        if refusal and type(refusal) is str:
            self._refusal.append(refusal)
        if delta.get("images"):
            images = read_images(delta, self._source)
            self._images += (image for image in images if image not in self._images)
        if self._splitter is not None and text:
            thought, text = self._splitter.feed(text)
            reasoning += thought
        calls = [self._add_call(piece) for piece in self._pieces(delta)]
        if text and self._spoken:  # what is spoken stands behind what is written
            raise self._source.error(
                ProtocolError,
                f"{self._source.provider} went on to write after it had begun to speak.",
            )
        spoken = self._speak(delta)
        return [*self._deltas(text, reasoning), *spoken, *calls]

    def _speak(self, delta: dict[str, Any]) -> list[StreamChunk]:
        """What is said aloud. Its last piece, with its expiry alone, comes after the finish."""
        if not delta.get("audio"):
            return []
        said = self._sound.add(delta["audio"], self._source)
        if not said:
            return []
        self._spoken.append(said)
        return [StreamChunk(said)]

    def _note(self, content: Any) -> None:
        """Keep content as it came, once it has come as a list."""
        if not self._parts and self._text:
            self._parts.append({"type": "text", "text": "".join(self._text)})
        if isinstance(content, list):
            self._parts += content
        elif content:
            self._parts.append({"type": "text", "text": content})

    def _pieces(self, delta: dict[str, Any]) -> list[dict[str, Any]]:
        """The pieces of calls that a delta holds."""
        pieces = listed(delta, "tool_calls", self._source)
        if not pieces and delta.get(OLD_CALL):
            pieces = [{"index": 0, "function": delta[OLD_CALL]}]
        return [expect(piece, dict, "tool call", self._source) for piece in pieces]

    def _add_call(self, fields: dict[str, Any]) -> StreamChunk:
        function = expect(fields.get("function"), dict, "function", self._source)
        call_id = expect(fields.get("id"), str, "tool call id", self._source)
        name = expect(function.get("name"), str, "function name", self._source)
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = to_json(arguments).decode()
        arguments = expect(arguments, str, "function arguments", self._source)
        if not (call_id or name or arguments or fields.get(CALL_STATE)):
            return StreamChunk()  # there are servers that put such a piece beside every text
        call = self._find_call(fields.get("index"), call_id, name, arguments)
        call.id = call.id or call_id or None
        if not call.arguments:
            call.name = _with_more(call.name, name)
        call.extra = call.extra or fields.get(CALL_STATE)
        if arguments:
            call.arguments.append(arguments)
        return StreamChunk(
            tool_call=ToolCallDelta(call.position, call_id or None, name or None, arguments)
        )

    def _find_call(self, index: Any, call_id: str, name: str, arguments: str) -> _Call:
        """The call that a piece belongs to: by its index, else by its id, else the latest.

        A name with a new id under a known index is a new call (older servers of vLLM make up an id
        for each piece); so is a name where there is no index, and one with arguments where those
        of the known call are whole: Gemini's compatible server may give all calls the index 0, and
        no ids.
        """
        if type(index) is int:
            known = self._by_index.get(index)
            if known is not None and not (name and known.is_followed_by(call_id, arguments)):
                return known
            call = self._by_index[index] = self._new_call()
            return call
        if call_id:
            same = (call for call in self._calls if call.id == call_id)
            return next(same, None) or self._new_call()
        return self._new_call() if name or not self._calls else self._calls[-1]

    def _new_call(self) -> _Call:
        check_number(self._calls, "tool calls", self._source)
        call = _Call(len(self._calls))
        self._calls.append(call)
        return call

    def _deltas(self, text: str, reasoning: str) -> list[StreamChunk]:
        if text:
            self._text.append(text)
        if reasoning:
            self._reasoning.append(reasoning)
        return [StreamChunk(text, reasoning or None)] if text or reasoning else []

    def _release(self) -> list[StreamChunk]:
        if self._splitter is None:
            return []
        reasoning, text = self._splitter.close()
        return self._deltas(text, reasoning)

    def _drop(self, delta: dict[str, Any]) -> None:
        """Leave out what follows the finish reason, but no call, and nothing that one lacks."""
        for piece in self._pieces(delta):
            function = expect(piece.get("function"), dict, "function", self._source)
            same = (call for call in self._calls if call.id and call.id == piece.get("id"))
            index = piece.get("index")
            call = next(same, None) or (self._by_index.get(index) if type(index) is int else None)
            more = function.get("name") or function.get("arguments")
            if more and not (call is not None and call.is_whole):
                raise self._source.error(
                    ProtocolError,
                    f"{self._source.provider} went on with a tool call after it had given its "
                    "finish reason.",
                )
        said = any(delta.get(name) for name in ("content", "tool_calls", *REASONING_FIELDS))
        if said and not self._warned:
            self._warned = True
            _log.warning(
                "%s went on after it had given its finish reason; that is left out",
                self._source.provider,
            )

    def _answer(self, *, whole: bool = False) -> Answer:
        reasoning = "".join(self._reasoning)
        state: dict[str, Any] = {}
        if self._vendor.echoes_reasoning:
            if self._reasoning_field:
                state[self._reasoning_field] = reasoning
            if self._details:
                state["reasoning_details"] = join_details(self._details)
            if is_more_than_text(self._parts):
                state[CONTENT] = join_parts(self._parts)
        refusal = "".join(self._refusal) or (CONTENT not in state and refusal_in(self._parts))
        if refusal:
            state["refusal"] = refusal
        return Answer(
            text="".join(self._text),
            reasoning=reasoning,
            calls=[
                WireCall(call.id, call.name, "".join(call.arguments), call.extra)
                for call in self._calls
            ],
            finish_reason=self._finish,
            usage=self._usage,
            model=self._model,
            state=state,
            refused=bool(refusal),
            media=[*self._sound.parts(self._source, whole=whole), *self._images],
            parts=self._parts,
        )
