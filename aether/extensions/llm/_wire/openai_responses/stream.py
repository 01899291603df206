"""From the events of a streamed answer to chunks, and at its end to the response.

It must not know how events come. The last event repeats the whole answer: nothing of it is handed
out twice, but it is checked against what was, and what is missing is completed from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic_core import from_json

from aether.errors import ProtocolError, StreamInterruptedError
from aether.extensions.llm._wire.errors import Source, reported_error
from aether.extensions.llm._wire.large_json import ReadDocument
from aether.extensions.llm._wire.openai_responses.items import (
    CALL_ARGUMENTS,
    Item,
    Piece,
    begun,
    checked,
    pieces,
)
from aether.extensions.llm._wire.openai_responses.response import (
    Answer,
    failure,
    finish_of,
    model_of,
)
from aether.extensions.llm._wire.openai_responses.slots import Slot, Slots
from aether.extensions.llm._wire.reading import check_number, expect, listed
from aether.llm.messages import LLMResponse, StreamChunk, ToolCallDelta, is_too_large

__all__ = ["ResponsesAssembly"]

END_MARK = b"[DONE]"

_DELTAS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": "summary",
    "response.reasoning_text.delta": "reasoning",
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "arguments",
}
_WHOLES = {
    "response.output_text.done": ("text", "text"),
    "response.refusal.done": ("refusal", "refusal"),
    "response.reasoning_summary_text.done": ("summary", "text"),
    "response.reasoning_text.done": ("reasoning", "text"),
    "response.function_call_arguments.done": ("arguments", "arguments"),
    "response.custom_tool_call_input.done": ("arguments", "input"),
}
"""The kind of text that each event tells, and the field that holds it."""
_ENDS = ("completed", "incomplete", "failed", "cancelled")
"""Where an event and the answer in it say different things, the later of these counts."""
_TERMINAL = {f"response.{status}": status for status in _ENDS}
_ERRORS = ("error", "response.error")


class ResponsesAssembly:
    """Puts one streamed answer together: `feed` it the events, then `finish`.

    What the protocol does not allow raises `ProtocolError`; an error that the server reports in
    the stream is raised as what it is.
    """

    def __init__(self, *, source: Source) -> None:
        self.ended = False
        """Whether the last event has come: nothing after it counts."""
        self._source = source
        self._slots = Slots()
        self._begun = False
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._said: tuple[tuple[Any, Any, Any], list[str]] | None = None
        """Which text the latest event was a piece of, and its pieces."""
        self._thinking: tuple[Slot, str, int] | None = None
        self._calls = 0
        self._written = 0
        self._usage: Any = None
        self._model: str | None = None
        self._finish: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the server has said how the answer ended."""
        return self._finish is not None

    @property
    def has_content(self) -> bool:
        """Whether the caller was given anything: text, reasoning or a piece of a call."""
        return bool(self._text or self._reasoning or self._calls)

    @property
    def characters(self) -> int:
        """How much was written, calls included."""
        return self._written

    def feed(self, data: bytes, name: str = "") -> Iterable[StreamChunk]:
        """The chunks that an event holds: text, reasoning, pieces of calls; often none.

        Lazy, so that what comes before a part that is wrong is handed out before the error.
        """
        if self.ended or not data:
            return ()
        if data == END_MARK:
            self.ended = True
            return ()
        source = self._source
        try:
            event = data.value if type(data) is ReadDocument else from_json(data)
        except ValueError as error:
            raise source.error(
                ProtocolError, f"An event in the stream of {source.provider} is not JSON."
            ) from error
        if self._said is not None:
            place, said = self._said
            text = _more_text(event, place)
            if text:
                said.append(text)
                self._text.append(text)
                self._written += len(text)
                return (StreamChunk(text),)
            self._said = None
        return self._add(expect(event, dict, "event", source), name)

    def finish(self) -> LLMResponse:
        """The whole. `StreamInterruptedError` if the server never said how it ended."""
        if self._finish is None:
            raise self._source.error(
                StreamInterruptedError,
                f"The stream of {self._source.provider} ended before the answer did.",
                kind="truncated",
                partial=self.partial(),
            )
        return self.partial()

    def partial(self) -> LLMResponse:
        """What has come so far; a call that has no name yet is left out."""
        answer = Answer(
            items=[item for item in (slot.whole() for slot in self._slots) if item is not None],
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            finish=self._finish,
            usage=self._usage,
            model=self._model,
        )
        return answer.to_response(self._source)

    def _add(self, event: Item, name: str) -> Iterable[StreamChunk]:
        source = self._source
        kind = event.get("type")
        if not isinstance(kind, str):
            kind = name
        if kind in _DELTAS:
            return self._add_delta(event, _DELTAS[kind])
        if kind in _WHOLES:
            return self._add_whole(event, *_WHOLES[kind])
        if kind in ("response.output_item.added", "response.output_item.done"):
            check_number(self._slots, "output", source)
        if kind == "response.output_item.added":
            return self._announce(self._slots.begin(begun(event.get("item"), source), event))
        if kind == "response.output_item.done":
            item = checked(event.get("item"), source)
            return self._close(self._slots.of_item(item, event), item)
        if kind in _TERMINAL:
            response = expect(event.get("response"), dict, "response", source)
            ends = [_TERMINAL[kind]]
            if response.get("status") in _ENDS:
                ends.append(response["status"])
            return self._end({**response, "status": max(ends, key=_ENDS.index)})
        if kind in _ERRORS or event.get("error"):
            raise reported_error(event, source=source)
        if kind == "response.created":
            if self._begun and self.has_content:
                raise source.error(
                    ProtocolError, f"{source.provider} began a second answer in the same stream."
                )
            self._begun = True
        if self._model is None and isinstance(event.get("response"), dict):
            self._model = model_of(event["response"])
        return ()

    def _add_delta(self, event: Item, said: str) -> Iterable[StreamChunk]:
        delta = expect(event.get("delta"), str, "delta", self._source)
        slot, place = self._slot_of(event, said), _place(event)
        if said == "text" and delta and not slot.commentary and event.get("content_index") == place:
            where = event.get("item_id"), event.get("output_index"), place
            self._said = where, slot.said.setdefault((said, place), [])
        return self._say(slot, said, place, delta)

    def _add_whole(self, event: Item, said: str, field: str) -> Iterable[StreamChunk]:
        whole = expect(event.get(field), str, field, self._source)
        slot, place = self._slot_of(event, said), _place(event)
        slot.written = slot.written or said == "arguments"
        return self._complete(slot, said, place, whole, slot.text(said, place))

    def _end(self, response: Item) -> Iterator[StreamChunk]:
        source = self._source
        self._usage = response.get("usage") or self._usage
        self._model = model_of(response) or self._model
        failed = failure(response, source)
        if failed is not None:
            if self._usage:  # it is told, and so what it used is
                self._finish = finish_of(response)
            raise failed
        items = [checked(item, source) for item in listed(response, "output", source)]
        for slot, item in self._slots.of_answer(items):
            yield from self._close(slot, item)
        finish = finish_of(response)
        if finish == "completed" and not self._text and not self._calls:
            said = "".join(slot.text("text") for slot in self._slots if slot.commentary)
            if said:  # nothing else was said: it is the answer
                self._text.append(said)
                yield StreamChunk(said)
        self._finish = finish
        self.ended = True

    def _slot_of(self, event: Item, kind: str) -> Slot:
        slot = self._slots.of_text(kind, event)
        if slot is None:
            raise self._source.error(
                ProtocolError,
                f"{self._source.provider} gave arguments of a tool call that it had not begun.",
            )
        return slot

    def _close(self, slot: Slot, item: Item) -> Iterator[StreamChunk]:
        """Take the whole item, and hand out what of it was not."""
        field = CALL_ARGUMENTS.get(str(item.get("type")), "")
        written = slot.text("arguments")
        if field:
            item = {**item, field: item[field] or written}
            if slot.call is not None:
                item["call_id"] = slot.item["call_id"]  # one without an id was given one
        slot.item, slot.done = item, True
        yield from self._announce(slot)
        if field:
            yield from self._complete(slot, "arguments", 0, item[field], written)
        wholes: list[Piece] = list(pieces(item))
        for kind in dict.fromkeys(piece.kind for piece in wholes):
            texts = [piece for piece in wholes if piece.kind == kind]
            said = slot.text(kind)
            if said:
                whole = "".join(piece.text for piece in texts)
                yield from self._complete(slot, kind, slot.last_place(kind), whole, said)
            else:
                for piece in texts:
                    yield from self._say(slot, kind, piece.place, piece.text)

    def _announce(self, slot: Slot) -> Iterator[StreamChunk]:
        name, call_id = slot.item.get("name"), slot.item.get("call_id")
        if slot.call is not None or slot.type not in CALL_ARGUMENTS or not (name and call_id):
            return
        slot.call = self._calls
        self._calls += 1
        self._written += len(name)
        written = slot.text("arguments")
        yield StreamChunk(tool_call=ToolCallDelta(slot.call, call_id, name, written))

    def _complete(
        self, slot: Slot, kind: str, place: int, whole: str, said: str
    ) -> Iterator[StreamChunk]:
        """Hand out the rest of a text that is told as a whole."""
        if whole.startswith(said):
            yield from self._say(slot, kind, place, whole[len(said) :])
        elif whole and (
            (kind == "text" and not slot.commentary and whole.strip() != said.strip())
            or (kind == "arguments" and not _says_the_same(whole, said))
        ):
            what = "text" if kind == "text" else "arguments"
            raise self._source.error(
                ProtocolError,
                f"The pieces of {what} in the stream of {self._source.provider} are not those of "
                f"the {what} that it gives at the end.",
            )

    def _say(self, slot: Slot, kind: str, place: int, delta: str) -> Iterator[StreamChunk]:
        """Hand out a piece of a text: as text, as reasoning, or as arguments of a call."""
        if not delta:
            return
        if kind in ("summary", "reasoning"):
            slot.thought = slot.thought or kind
            if slot.thought != kind:
                return
        slot.said.setdefault((kind, place), []).append(delta)
        self._written += len(delta)
        if kind == "arguments":
            if slot.call is not None:
                yield StreamChunk(tool_call=ToolCallDelta(slot.call, arguments=delta))
        elif kind == "text" and not slot.commentary:
            self._text.append(delta)
            yield StreamChunk(delta)
        elif kind != "refusal":
            if self._reasoning and self._thinking != (slot, kind, place):
                delta = f"\n\n{delta}"
            self._thinking = (slot, kind, place)
            self._reasoning.append(delta)
            yield StreamChunk(reasoning=delta)


def _more_text(event: Any, place: tuple[Any, Any, Any]) -> str | None:
    """The text of an event like most: more of the text in that place; `None` for all others."""
    try:
        text = event["delta"]
        more = (
            event["type"] == "response.output_text.delta"
            and (event["item_id"], event["output_index"], event["content_index"]) == place
        )
    except (KeyError, TypeError):
        return None
    return text if more and type(text) is str else None


def _says_the_same(arguments: str, others: str) -> bool:
    """Whether two texts of arguments differ in how they are written, at most."""
    if is_too_large(arguments) or is_too_large(others):
        return arguments.strip() == others.strip()
    try:
        same: bool = from_json(arguments) == from_json(others)
    except ValueError:  # free text
        return arguments.strip() == others.strip()
    return same


def _place(event: Item) -> int:
    """Which of the texts of an item it is."""
    for name in ("content_index", "summary_index"):
        if type(event.get(name)) is int:
            return int(event[name])
    return 0
