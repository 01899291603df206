"""From the events of a streamed answer to chunks, and at its end to the response.

It must not know how events are cut out of bytes. Events are told apart by the type in their data,
as some gateways name them otherwise or not at all; those that are not known are passed over, as
the vendor asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json, to_json

from aether.errors import ProtocolError, StreamInterruptedError
from aether.extensions.llm._wire.anthropic.response import Answer, checked_block, container_id
from aether.extensions.llm._wire.errors import Source, reported_error
from aether.extensions.llm._wire.large_json import ReadDocument
from aether.extensions.llm._wire.reading import check_number, expect, listed
from aether.extensions.llm._wire.repetition import Repetition
from aether.llm.messages import LLMResponse, StreamChunk, ToolCallDelta

__all__ = ["MessagesAssembly"]

FOREIGN_END_MARK = b"[DONE]"
"""What some gateways append, in the manner of another protocol."""

_TEXT_DELTAS = {"text_delta": "text", "thinking_delta": "thinking"}
_WRITTEN = ("text", "thinking", "tool_use")


class _Block:
    """A block that is still being written."""

    __slots__ = ("arguments", "call", "closed", "fields", "number", "pieces")

    def __init__(self, number: int, fields: dict[str, Any], call: int | None) -> None:
        self.number = number  # its place among the blocks
        self.fields = fields
        self.call = call  # its number among the tool calls
        self.pieces: list[str] = []  # of its text or its thinking
        self.arguments: list[str] = []
        self.closed = False  # some gateways never say so

    @property
    def kind(self) -> str:
        kind: str = self.fields["type"]
        return kind

    @property
    def is_bare(self) -> bool:
        """Whether it was begun, and nothing else: as a call, it is not one without arguments."""
        return not (self.closed or self.arguments or self.fields.get("input"))

    def whole(self) -> dict[str, Any]:
        """The block as a response that is not streamed has it, but for a call's input."""
        made = dict(self.fields)
        if self.kind in ("text", "thinking"):
            made[self.kind] = "".join(self.pieces)
        elif self.arguments and self.call is None:
            try:
                made["input"] = from_json("".join(self.arguments) or "{}")
            except ValueError:  # cut off: it goes back to nobody
                made["input"] = {}
        return made

    def written(self) -> str | None:
        """The text of a call's input; `None` if it came whole."""
        return None if self.fields.get("input") and not self.arguments else "".join(self.arguments)


def _more_text(event: Any, index: int) -> str | None:
    """The text of an event like most: more of the block with that index; `None` for all others."""
    try:
        delta = event["delta"]
        text = delta["text"]
        more = (
            event["index"] == index
            and delta["type"] == "text_delta"
            and event["type"] == "content_block_delta"
        )
    except (KeyError, TypeError):
        return None
    return text if more and type(text) is str else None


def _says_something(block: Any) -> bool:
    return isinstance(block, dict) and bool(block.get("text") or block.get("type") == "tool_use")


class MessagesAssembly:
    """Puts one streamed answer together: `feed` it the events, then `finish`.

    What the protocol does not allow raises `ProtocolError`; an error that the server reports in
    the stream is raised as what it is.
    """

    def __init__(self, *, source: Source) -> None:
        self.ended = False
        """Whether `message_stop` has come: nothing after it counts."""
        self._source = source
        self._blocks: list[_Block] = []
        self._open: dict[int, _Block] = {}
        self._latest = 0  # the index of the block that was begun last
        self._written: dict[str, int] = {}  # which block of each kind was written to last
        self._text_block: tuple[int, _Block, Repetition] | None = None
        """The block whose text came last, with its index, until another one is begun; and what
        reads the events that bring more of it."""
        self._calls = 0
        self._usage: dict[str, Any] = {}
        self._model: str | None = None
        self._stop: str | None = None
        self._container: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the answer is whole: no more is certain before `message_stop`."""
        return self.ended

    @property
    def has_content(self) -> bool:
        """Whether the caller was given anything: text, reasoning or a piece of a call."""
        return bool(self._written or self._calls)

    @property
    def characters(self) -> int:
        """How much was written, calls included."""
        return sum(
            len(piece) for block in self._blocks for piece in (*block.pieces, *block.arguments)
        )

    def feed(self, data: bytes, name: str = "") -> Sequence[StreamChunk]:
        """The chunks that an event holds: text, reasoning, pieces of calls; often none."""
        if self.ended or not data or data == FOREIGN_END_MARK:
            return ()
        if self._text_block is not None:
            _, block, repetition = self._text_block
            if repetition.is_known and (text := repetition.read(data)):
                block.pieces.append(text)
                return (StreamChunk(text),)
        source = self._source
        try:
            event = data.value if type(data) is ReadDocument else from_json(data)
        except ValueError as error:
            if name == "error":
                raise reported_error(data.decode("utf-8", "replace"), source=source) from None
            raise source.error(
                ProtocolError, f"An event in the stream of {source.provider} is not JSON."
            ) from error
        if self._text_block is not None:
            index, block, repetition = self._text_block
            if text := _more_text(event, index):
                if repetition.is_sought:
                    repetition.show(data, text)
                block.pieces.append(text)
                return (StreamChunk(text),)
        return self._add(expect(event, dict, "event", source), name)

    def finish(self) -> LLMResponse:
        """The whole. `StreamInterruptedError` if the server never said that it is, or why."""
        source = self._source
        if not self.ended or self._stop is None:
            raise source.error(
                StreamInterruptedError,
                f"The stream of {source.provider} ended before the answer did.",
                kind="truncated",
                partial=self.partial(),
            )
        answer = self._answer()
        try:
            answer.check(source)
            if any(block.call is not None and block.is_bare for block in self._blocks):
                raise source.error(
                    ProtocolError, f"{source.provider} began a tool call and never ended it."
                )
        except ProtocolError as error:
            error.partial = self.partial()
            raise
        return answer.to_response(source)

    def partial(self) -> LLMResponse:
        """What has come so far. What was written is counted only when the server says why it
        stopped; before that, its count is where it began.
        """
        response = self._answer().to_response(self._source, whole=self._stop is not None)
        if self._stop is not None:
            return response
        unknown = {"finish_reason": None, "output_tokens": None, "reasoning_tokens": None}
        return response.model_copy(update=unknown)

    def _add(self, event: dict[str, Any], name: str) -> Sequence[StreamChunk]:
        source = self._source
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._add_delta(event)
        if kind == "content_block_start":
            return self._start_block(event)
        if kind == "error" or name == "error" or (event.get("error") and not kind):
            raise reported_error(event, source=source)
        if kind == "message_start":
            self._start(expect(event.get("message"), dict, "message", source))
        elif kind == "message_delta":
            self._add_end(event)
        elif kind == "content_block_stop":
            block = self._open.get(self._index(event, self._latest))
            if block is not None:
                block.closed = True
        elif kind == "message_stop":
            self.ended = True
        return ()

    def _start(self, message: dict[str, Any]) -> None:
        if self._blocks or self._stop is not None:
            raise self._source.error(
                ProtocolError, f"{self._source.provider} began a second answer in the same stream."
            )
        if any(map(_says_something, listed(message, "content", self._source))):
            raise self._source.error(
                ProtocolError,
                f"{self._source.provider} gave a whole message in a stream, where the protocol has "
                "events. Use complete() or ask() with it.",
            )
        self._model = expect(message.get("model"), str, "model", self._source) or None
        self._container = container_id(message)
        self._count(message)
        self._usage.pop("output_tokens", None)  # where it begins: the end alone tells the total

    def _add_end(self, event: dict[str, Any]) -> None:
        source = self._source
        delta = expect(event.get("delta"), dict, "delta", source)
        reason = expect(delta.get("stop_reason"), str, "stop_reason", source)
        self._stop = self._stop or reason or None
        self._container = container_id(delta) or self._container
        self._count(event)

    def _count(self, fields: dict[str, Any]) -> None:
        """Totals so far: the latest of each counts, and what is left out stands."""
        usage = expect(fields.get("usage"), dict, "usage", self._source)
        self._usage.update({name: value for name, value in usage.items() if value is not None})

    def _start_block(self, event: dict[str, Any]) -> Sequence[StreamChunk]:
        fields = checked_block(event.get("content_block"), self._source)
        is_call = fields["type"] == "tool_use"
        check_number(self._blocks, "content", self._source)
        number = len(self._blocks)
        block = _Block(number, dict(fields), self._calls if is_call else None)
        self._calls += is_call
        self._blocks.append(block)
        self._latest = self._index(event, number)
        self._open[self._latest] = block
        self._text_block = None
        if is_call:
            given = fields.get("input")
            arguments = to_json(given).decode() if given else ""
            call = ToolCallDelta(
                block.call or 0, fields.get("id") or None, fields.get("name") or None, arguments
            )
            return (StreamChunk(tool_call=call),)
        if block.kind in ("text", "thinking"):
            return self._write(block, fields.get(block.kind) or "")
        return ()

    def _add_delta(self, event: dict[str, Any]) -> Sequence[StreamChunk]:
        source = self._source
        delta = expect(event.get("delta"), dict, "delta", source)
        kind = expect(delta.get("type"), str, "delta's type", source)
        index = self._index(event, self._latest)
        block = self._open.get(index)
        if block is None:
            raise source.error(
                ProtocolError, f"{source.provider} gave a piece of a content block without it."
            )
        if kind in _TEXT_DELTAS:
            name = _TEXT_DELTAS[kind]
            piece = expect(delta.get(name), str, name, source)
            if block.kind == name:
                chunks = self._write(block, piece)
                if chunks and name == "text":
                    self._text_block = index, block, Repetition(b'"text"')
                return chunks
            if block.kind in _WRITTEN:
                raise source.error(
                    ProtocolError, f"{source.provider} gave {name} in a block of {block.kind}."
                )
            # Of a block that is not known it is kept, as the rest of the block is.
            block.fields[name] = expect(block.fields.get(name), str, name, source) + piece
            return ()
        if kind == "input_json_delta":
            return self._write_arguments(
                block, expect(delta.get("partial_json"), str, "partial_json", source)
            )
        if kind == "signature_delta":
            block.fields["signature"] = expect(delta.get("signature"), str, "signature", source)
        elif kind == "citations_delta":
            citations = block.fields.get("citations") or []
            block.fields["citations"] = [*citations, delta.get("citation")]
        elif kind == "compaction_delta":
            block.fields.update({name: delta[name] for name in delta if name != "type"})
        return ()

    def _index(self, event: dict[str, Any], missing: int) -> int:
        index = event.get("index")
        return missing if index is None else expect(index, int, "block's index", self._source)

    def _write(self, block: _Block, piece: str) -> Sequence[StreamChunk]:
        if not piece:
            return ()
        if block.number < self._written.get(block.kind, 0):  # shown is shown: there is no way back
            raise self._source.error(
                ProtocolError,
                f"{self._source.provider} went on with a block of {block.kind} after the next one "
                "had begun.",
            )
        self._written[block.kind] = block.number
        block.pieces.append(piece)
        return (StreamChunk(piece) if block.kind == "text" else StreamChunk(reasoning=piece),)

    def _write_arguments(self, block: _Block, piece: str) -> Sequence[StreamChunk]:
        if not piece:
            return ()
        if block.kind in ("text", "thinking"):  # which call's they are, nobody can tell
            raise self._source.error(
                ProtocolError,
                f"{self._source.provider} gave arguments of a call in a block of {block.kind}.",
            )
        block.arguments.append(piece)
        if block.call is None:
            return ()
        return (StreamChunk(tool_call=ToolCallDelta(block.call, arguments=piece)),)

    def _answer(self) -> Answer:
        return Answer(
            content=[block.whole() for block in self._blocks],
            finish_reason=self._stop,
            usage=self._usage,
            model=self._model,
            arguments=[
                block.written() if block.kind == "tool_use" else None for block in self._blocks
            ],
            container=self._container,
        )
