"""An event that brings only text is read by a short way: it gives what the long way gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from aether.errors import AetherError
from aether.extensions.llm._vendors import OPENAI, VENDORS
from aether.extensions.llm._wire.anthropic import MessagesAssembly
from aether.extensions.llm._wire.anthropic import stream as anthropic
from aether.extensions.llm._wire.codec import Assembly
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.gemini import GeminiAssembly
from aether.extensions.llm._wire.gemini import response as gemini
from aether.extensions.llm._wire.openai_chat import ChatAssembly
from aether.extensions.llm._wire.openai_chat import stream as chat
from aether.extensions.llm._wire.openai_responses import ResponsesAssembly
from aether.extensions.llm._wire.openai_responses import stream as responses
from aether.llm.contracts import StreamChunk

Event = Any


def outcome(assembly: Assembly, events: list[Event]) -> str:
    """All of it, but for the ids that were made up."""
    return re.sub(r"call_[0-9a-f]+", "call_", repr(_outcome(assembly, events)))


def _outcome(assembly: Assembly, events: list[Event]) -> tuple[Any, ...]:
    chunks: list[StreamChunk] = []
    try:
        for event in events:
            name = event.pop("name", "") if isinstance(event, dict) else ""
            chunks += assembly.feed(json.dumps(event).encode(), name)
        return chunks, assembly.characters, assembly.finish()
    except AetherError as error:
        return chunks, assembly.characters, type(error), str(error), assembly.partial()


def source() -> Source:
    return Source("provider", "asked-model", str)


def check(
    make: Callable[[], Assembly],
    short: tuple[Any, str],
    text: Event,
    others: list[Event],
    *,
    start: list[Event],
    end: list[Event],
    is_taken: bool = True,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = 0
    way = getattr(*short)

    def counted(*args: Any) -> Any:
        nonlocal taken
        found = way(*args)
        taken += found is not None
        return found

    for first, second in product([text, *others], repeat=2):
        events = [*start, text, text, first, text, text, second, text, text, *end]
        copies = json.dumps(events)
        monkeypatch.setattr(*short, counted)
        shown = outcome(make(), json.loads(copies))
        monkeypatch.setattr(*short, lambda *_: None)
        assert shown == outcome(make(), json.loads(copies)), (first, second)
    assert taken > len(others) ** 2 or not is_taken


def said(content: Any = "x", *, choice: Any = None, **fields: Any) -> Event:
    delta = content if isinstance(content, dict) else {"content": content}
    return {"model": "m", "choices": [{"index": 0, "delta": delta, **(choice or {})}], **fields}


CHAT: list[Event] = [
    said(""),
    said(None),
    said([{"type": "text", "text": "p"}]),
    said(5),
    said({"content": "x", "role": "assistant"}),
    said({"content": "x", "reasoning_content": "r"}),
    said({"content": "x", "refusal": "no"}),
    said({"content": "<think>t</think>x"}),
    said({"audio": {"transcript": "aloud"}}),
    said({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]}),
    said(choice={"index": 1}),
    said(choice={"finish_reason": "stop"}),
    said(choice={"error": {"message": "m", "code": 500}}),
    said(choice={"delta": ["content"]}),
    said(choice={"delta": "content"}),
    said(choices=[said()["choices"][0]] * 2),
    said(choices={"delta": 1}),
    said(error={"message": "m", "code": 500}),
    said(object="error", message="m"),
    said(name="error", message="m"),
    said(usage={"prompt_tokens": 7, "completion_tokens": 8}),
    said(x_groq={"error": "m"}),
    said(x_groq={"usage": {"prompt_tokens": 7, "completion_tokens": 8}}),
    {"choices": said()["choices"]},
    [said()],
    "x",
]


@pytest.mark.parametrize("vendor", [OPENAI, VENDORS["openrouter"], VENDORS["ollama"]])
def test_of_chat_completions(vendor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check(
        lambda: ChatAssembly(source=source(), vendor=vendor),
        (chat, "_only_text"),
        said(),
        CHAT,
        start=[said({"role": "assistant"})],
        end=[said({}, choice={"finish_reason": "stop"})],
        is_taken=not vendor.think_tags,
        monkeypatch=monkeypatch,
    )


def written(text: Any = "x", *, index: Any = 0, kind: str = "text", **fields: Any) -> Event:
    delta = {"type": f"{kind}_delta", kind: text}
    return {"type": "content_block_delta", "index": index, "delta": delta, **fields}


def begun(index: int, kind: str = "text", **fields: Any) -> Event:
    block = {"type": kind, **({kind: ""} if kind != "tool_use" else {}), **fields}
    return {"type": "content_block_start", "index": index, "content_block": block}


MESSAGES: list[Event] = [
    begun(0),
    begun(1),
    begun(2, "thinking"),
    begun(3, "tool_use", id="a", name="f", input={}),
    written(""),
    written(None),
    written(5),
    written(index=1),
    written("", index=1),
    written(index=None),
    written(index="0"),
    written(index=2, kind="thinking"),
    written(kind="thinking"),
    written(type="content_block_stop"),
    written(type="message_stop"),
    written(type="error", error={"type": "overloaded_error", "message": "m"}),
    written(name="error"),
    written(delta={"type": "text_delta"}),
    written(delta={"type": "citations_delta", "text": "x", "citation": {}}),
    written(delta="text"),
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    [written()],
]


def test_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    check(
        lambda: MessagesAssembly(source=source()),
        (anthropic, "_more_text"),
        written(),
        MESSAGES,
        start=[{"type": "message_start", "message": {"model": "m", "usage": {}}}, begun(0)],
        end=[MESSAGES[-2], {"type": "message_stop"}],
        monkeypatch=monkeypatch,
    )


def test_no_piece_of_a_message_is_taken_to_go_on_behind_a_later_text() -> None:
    start = {"type": "message_start", "message": {"model": "m", "usage": {}}}
    later = [begun(1), written(index=1), written("", index=0)]
    shown = outcome(
        MessagesAssembly(source=source()), [start, begun(0), written(), *later, written()]
    )
    assert "went on with a block of text after the next one had begun" in shown


def told(delta: Any = "x", *, kind: str = "output_text.delta", **fields: Any) -> Event:
    place = {"item_id": "one", "output_index": 0, "content_index": 0}
    return {"type": f"response.{kind}", **place, "delta": delta, **fields}


def item(number: int, **fields: Any) -> Event:
    made: Event = {
        "type": "message",
        "id": ("one", "two")[number],
        "role": "assistant",
        "content": [],
    }
    return {
        "type": "response.output_item.added",
        "output_index": number,
        "item": {**made, **fields},
    }


RESPONSES: list[Event] = [
    item(0),
    item(1),
    item(1, phase="commentary"),
    item(0, type="reasoning", summary=[]),
    told(""),
    told(None),
    told(5),
    told(item_id="two", output_index=1),
    told(item_id="two"),
    told(output_index=1),
    told(content_index=1),
    told(content_index=None),
    told(kind="refusal.delta"),
    told(kind="reasoning_text.delta"),
    told(kind="output_text.done", text="xxxx"),
    told(kind="failed", response={"status": "failed", "error": {"message": "m", "code": "c"}}),
    told(type="error", message="m", code="server_error"),
    told(type="response.new", name="response.output_text.delta"),
    [told()],
]


def test_of_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    check(
        lambda: ResponsesAssembly(source=source()),
        (responses, "_more_text"),
        told(),
        RESPONSES,
        start=[item(0)],
        end=[{"type": "response.completed", "response": {"status": "completed", "output": []}}],
        monkeypatch=monkeypatch,
    )


def given(*parts: Any, candidate: Any = None, **fields: Any) -> Event:
    content = {"parts": list(parts or [{"text": "x"}]), "role": "model"}
    return {"candidates": [{"content": content, "index": 0, **(candidate or {})}], **fields}


GEMINI: list[Event] = [
    given({"text": ""}),
    given({"text": None}),
    given({"text": 5}),
    given({"text": "t", "thought": True}),
    given({"text": "x", "thoughtSignature": "s"}),
    given({"text": "x"}, {"text": "y"}),
    given({"functionCall": {"id": "a", "name": "f", "args": {}}}),
    given({"executableCode": {"code": "1"}}),
    given("text"),
    given(candidate={"index": 1}),
    given(candidate={"finishReason": "STOP"}),
    given(candidate={"finishReason": None}),
    given(candidate={"continuationToken": "c"}),
    given(candidate={"content": {"parts": {"text": "x"}}}),
    given(candidate={"content": "parts"}),
    given(error={"code": 503, "message": "m"}),
    given(name="error", error={"code": 503, "message": "m"}),
    given(promptFeedback={"blockReason": "SAFETY"}),
    given(usageMetadata={"promptTokenCount": 5, "totalTokenCount": 9}),
    given(usage_metadata={"prompt_token_count": 5}),
    given(modelVersion="models/other", responseId="r"),
    given(candidates={"content": 1}),
    [given(), given(candidate={"finishReason": "STOP"})],
    "x",
]


def test_of_gemini(monkeypatch: pytest.MonkeyPatch) -> None:
    check(
        lambda: GeminiAssembly(source=source()),
        (gemini, "_only_text"),
        given(modelVersion="m"),
        GEMINI,
        start=[],
        end=[given({"text": ""}, candidate={"finishReason": "STOP"})],
        monkeypatch=monkeypatch,
    )
