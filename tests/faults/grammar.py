"""Streams as providers write them, made up by chance: what a model says, in each protocol's events.

Each is written from the protocol's description alone, and knows nothing of the code that reads it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

__all__ = ["Said", "body", "events", "in_pieces", "joined", "say"]

Kind = Literal["text", "reasoning", "call"]

_LETTERS = [
    "a",
    "Z",
    " ",
    "\n",
    '"',
    "\\",
    "é",
    "ß",
    "€",
    "語",
    "😀",
    "\u2028",
    "\x85",
    "{",
    "}",
    ":",
]
_SIZES = (1, 10, 40, 40, 200, 200, 1000, 10_000)
_NOISE = (b": ping\n\n", b"\n", b"retry: 5\n\n", b"id: 7\n\n", b"unknown: x\n\n", b": a\n: b\n\n")


@dataclass
class Said:
    """What a model says: pieces in the order in which they come, and why it stops."""

    steps: list[tuple[Kind, Any]] = field(default_factory=list)
    """A text; or for a call its name, its arguments and the pieces of their text."""
    reason: Literal["stop", "length"] = "stop"
    usage: tuple[int, int] = (0, 0)

    @property
    def text(self) -> str:
        return "".join(value for kind, value in self.steps if kind == "text")

    @property
    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        return [(value[0], value[1]) for kind, value in self.steps if kind == "call"]

    @property
    def finish(self) -> str:
        return "tool_calls" if self.calls and self.reason == "stop" else self.reason


def say(chance: random.Random, most: int = 8) -> Said:
    """Anything that a model may say. It says something, and calls tools only where it stops."""
    said = Said(usage=(chance.randint(1, 10**6), chance.randint(1, 10**5)))
    for _ in range(chance.randint(1, most)):
        kind: Kind = chance.choice(("text", "text", "text", "reasoning", "call"))
        said.steps.append((kind, _call(chance) if kind == "call" else _text(chance)))
    if not said.calls and chance.random() < 0.2:
        said.reason = "length"
    return said


def events(protocol: str, said: Said) -> list[bytes]:
    """The events of the stream in which it is said, without noise."""
    return [
        (f"event: {name}\n" if name else "").encode() + b"data: " + data + b"\n\n"
        for name, data in _WRITERS[protocol](said)
    ]


def body(protocol: str, said: Said) -> bytes:
    """The same as an answer that is no stream."""
    return json.dumps(_BODIES[protocol](said), ensure_ascii=False).encode()


def joined(chance: random.Random, pieces: list[bytes], *, last: int | None = None) -> bytes:
    """The events with noise in between, and with line ends of one kind or of several."""
    written: list[bytes] = []
    for piece in pieces:
        if chance.random() < 0.2:
            written.append(chance.choice(_NOISE))
        written.append(piece)
    data = b"".join(written[:last])
    ends = chance.choice([b"\n", b"\n", b"\r\n", b"\r", b"mixed"])
    if ends == b"mixed":
        lines = data.split(b"\n")
        data = lines[0] + b"".join(chance.choice((b"\n", b"\r\n")) + line for line in lines[1:])
    elif ends != b"\n":
        data = data.replace(b"\n", ends)
    return b"\xef\xbb\xbf" + data if chance.random() < 0.1 else data


def in_pieces(chance: random.Random, data: bytes) -> list[bytes]:
    """The bytes, cut anywhere, and seldom into single ones."""
    size = chance.choice(_SIZES)
    pieces: list[bytes] = []
    start = 0
    while start < len(data):
        end = start + chance.randint(1, size)
        pieces.append(data[start:end])
        start = end
    return pieces


def _text(chance: random.Random) -> str:
    return "".join(chance.choice(_LETTERS) for _ in range(chance.randint(1, 12)))


def _call(chance: random.Random) -> tuple[str, dict[str, Any], list[str]]:
    arguments: dict[str, Any] = {
        chance.choice("abcdé"): chance.choice([None, True, 1, -2.5, "", _text(chance), [1, {}], {}])
        for _ in range(chance.randint(0, 3))
    }
    text = json.dumps(arguments, ensure_ascii=chance.random() < 0.5)
    places = sorted(chance.randint(0, len(text)) for _ in range(chance.randint(0, 4)))
    cuts = [0, *places, len(text)]
    pieces = [text[start:end] for start, end in pairwise(cuts)]
    return chance.choice(["add", "find_it", "x" * 64]), arguments, pieces


Written = Iterator[tuple[str, bytes]]


def _data(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _chat(said: Said) -> Written:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> tuple[str, bytes]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return "", _data({"id": "c", "model": "m", "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    calls = 0
    for kind, value in said.steps:
        if kind == "text":
            yield chunk({"content": value})
        elif kind == "reasoning":
            yield chunk({"reasoning_content": value})
        else:
            name, _, pieces = value
            function = {"name": name, "arguments": ""}
            first = {"index": calls, "id": f"call-{calls}", "type": "function"}
            yield chunk({"tool_calls": [{**first, "function": function}]})
            for piece in pieces:
                yield chunk({"tool_calls": [{"index": calls, "function": {"arguments": piece}}]})
            calls += 1
    yield chunk({}, said.finish)
    yield "", _data({"id": "c", "model": "m", "choices": [], "usage": _chat_usage(said)})
    yield "", b"[DONE]"


def _chat_usage(said: Said) -> dict[str, int]:
    return {"prompt_tokens": said.usage[0], "completion_tokens": said.usage[1]}


def _chat_body(said: Said) -> Any:
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None}
    thought = "".join(value for kind, value in said.steps if kind == "reasoning")
    if thought:
        message["reasoning_content"] = thought
    if said.calls:
        message["tool_calls"] = [
            {"id": f"call-{n}", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for n, (name, arguments) in enumerate(said.calls)
        ]
    choice = {"index": 0, "message": message, "finish_reason": said.finish}
    return {"model": "m", "choices": [choice], "usage": _chat_usage(said)}


_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def _messages(said: Said) -> Written:
    def event(kind: str, **fields: Any) -> tuple[str, bytes]:
        return kind, _data({"type": kind, **fields})

    usage = {"input_tokens": said.usage[0], "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
    yield event("message_start", message={**message, "usage": usage})
    yield event("ping")
    for index, (kind, value) in enumerate(said.steps):
        if kind == "call":
            block: dict[str, Any] = {"type": "tool_use", "id": f"call-{index}", "name": value[0]}
            yield event("content_block_start", index=index, content_block={**block, "input": {}})
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in value[2]]
        else:
            name = "text" if kind == "text" else "thinking"
            yield event("content_block_start", index=index, content_block={"type": name, name: ""})
            half = len(value) // 2
            deltas = [
                {"type": f"{name}_delta", name: part} for part in (value[:half], value[half:])
            ]
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    ended = {"stop_reason": _STOPS[said.finish], "stop_sequence": None}
    yield event("message_delta", delta=ended, usage={"output_tokens": said.usage[1]})
    yield event("message_stop")


def _messages_body(said: Said) -> Any:
    content: list[Any] = []
    for index, (kind, value) in enumerate(said.steps):
        if kind == "call":
            call = {"id": f"call-{index}", "name": value[0], "input": value[1]}
            content.append({"type": "tool_use", **call})
        else:
            name = "text" if kind == "text" else "thinking"
            content.append({"type": name, name: value})
    return {
        "type": "message",
        "model": "m",
        "content": content,
        "stop_reason": _STOPS[said.finish],
        "usage": {"input_tokens": said.usage[0], "output_tokens": said.usage[1]},
    }


def _gemini(said: Said) -> Written:
    for step in said.steps:
        yield "", _data(_gemini_answer(said, [_gemini_part(step)], None))
    yield "", _data(_gemini_answer(said, [], "MAX_TOKENS" if said.reason == "length" else "STOP"))


def _gemini_body(said: Said) -> Any:
    parts = [_gemini_part(step) for step in said.steps]
    return _gemini_answer(said, parts, "MAX_TOKENS" if said.reason == "length" else "STOP")


def _gemini_part(step: tuple[Kind, Any]) -> dict[str, Any]:
    kind, value = step
    if kind == "call":
        return {"functionCall": {"name": value[0], "args": value[1]}}
    return {"text": value} if kind == "text" else {"text": value, "thought": True}


def _gemini_answer(said: Said, parts: list[Any], finish: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": parts}}
    if finish is not None:
        candidate["finishReason"] = finish
    counts = {"promptTokenCount": said.usage[0], "candidatesTokenCount": said.usage[1]}
    return {"candidates": [candidate], "usageMetadata": counts, "modelVersion": "m"}


def _responses(said: Said) -> Written:
    def event(kind: str, **fields: Any) -> tuple[str, bytes]:
        return kind, _data({"type": kind, **fields})

    begun = {"id": "r", "object": "response", "model": "m", "status": "in_progress", "output": []}
    yield event("response.created", response=begun)
    for index, (step, item) in enumerate(zip(said.steps, _items(said), strict=True)):
        kind, value = step
        place = {"output_index": index, "item_id": item["id"]}
        empty: dict[str, Any] = {"message": {"content": []}, "reasoning": {"summary": []}}
        first = {**item, **empty.get(item["type"], {"arguments": ""}), "status": "in_progress"}
        yield event("response.output_item.added", output_index=index, item=first)
        if kind == "call":
            for piece in value[2]:
                yield event("response.function_call_arguments.delta", **place, delta=piece)
        else:
            name = "output_text" if kind == "text" else "reasoning_summary_text"
            where = {"content_index": 0} if kind == "text" else {"summary_index": 0}
            half = len(value) // 2
            for part in (value[:half], value[half:]):
                yield event(f"response.{name}.delta", **place, **where, delta=part)
        yield event("response.output_item.done", output_index=index, item=item)
    ended = _responses_body(said)
    yield event(f"response.{ended['status']}", response=ended)


def _responses_body(said: Said) -> Any:
    cut = said.reason == "length"
    return {
        "id": "r",
        "object": "response",
        "model": "m",
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": _items(said),
        "usage": {"input_tokens": said.usage[0], "output_tokens": said.usage[1]},
    }


def _items(said: Said) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for index, (kind, value) in enumerate(said.steps):
        name = f"item-{index}"
        if kind == "call":
            facts = {"call_id": f"call-{index}", "name": value[0], "arguments": "".join(value[2])}
            items.append({"type": "function_call", "id": name, "status": "completed", **facts})
        elif kind == "text":
            part = {"type": "output_text", "text": value, "annotations": []}
            items.append({"type": "message", "id": name, "role": "assistant", "content": [part]})
        else:
            summary = {"type": "summary_text", "text": value}
            items.append({"type": "reasoning", "id": name, "summary": [summary]})
    return items


_WRITERS = {
    "openai": _chat,
    "openai.responses": _responses,
    "anthropic": _messages,
    "gemini": _gemini,
}
_BODIES = {
    "openai": _chat_body,
    "openai.responses": _responses_body,
    "anthropic": _messages_body,
    "gemini": _gemini_body,
}
