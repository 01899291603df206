"""Cache points: servers that are told what comes again, and those that are not."""

from __future__ import annotations

from typing import Any

import pytest

from aether.extensions.llm._vendors import OPENAI, VENDORS, Vendor
from aether.extensions.llm._wire.openai_chat import render_request
from aether.llm.content import CachePoint, ImagePart, TextPart
from aether.llm.contracts import LLMRequest, Message, ToolCall
from aether.llm.profiles import ModelProfile

OPENROUTER = VENDORS["openrouter"]
CLAUDE = "anthropic/claude-sonnet-5-5"


def messages(
    *sent: Message, vendor: Vendor = OPENROUTER, model: str = CLAUDE
) -> list[dict[str, Any]]:
    body = render_request(LLMRequest(sent), model=model, vendor=vendor, stream=False, now=0)
    rendered: list[dict[str, Any]] = body["messages"]
    return rendered


def cached(*words: str) -> list[Any]:
    return [part for word in words for part in (TextPart(text=word), CachePoint())]


def test_openrouter_is_told_what_to_cache_for_models_that_want_it() -> None:
    system = Message("system", [TextPart(text="rules"), CachePoint(ttl="1h")])
    assert messages(system, Message("user", "hi"))[0]["content"] == [
        {"type": "text", "text": "rules", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    plain = [{"role": "system", "content": "rules"}, {"role": "user", "content": "hi"}]
    for model in ("openai/gpt-6-luna", "mistralai/mistral-large-4"):
        assert messages(system, Message("user", "hi"), model=model) == plain


def test_openai_is_told_for_models_that_have_breakpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Message("user", [TextPart(text="long"), CachePoint(), TextPart(text="short")])
    parts = [{"type": "text", "text": "long"}, {"type": "text", "text": "short"}]
    assert messages(asked, vendor=OPENAI, model="gpt-4.1")[0]["content"] == parts
    profile = ModelProfile(patterns=(), cache_breakpoints=True)
    module = "aether.extensions.llm._wire.openai_chat.caching"
    monkeypatch.setattr(f"{module}.profile_for", lambda _: profile)
    marked = {**parts[0], "prompt_cache_breakpoint": {"mode": "explicit"}}
    assert messages(asked, vendor=OPENAI)[0]["content"] == [marked, parts[1]]


def test_a_point_at_the_beginning_marks_the_end_of_the_message_before() -> None:
    call = ToolCall("c", "add", {})
    sent = messages(
        Message("assistant", "I add.", tool_calls=[call]),
        Message("tool", "2", tool_call_id="c"),
        Message("user", [CachePoint(), TextPart(text="and?")]),
    )
    assert sent[1]["content"][0]["text"] == "2"
    assert sent[1]["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "5m"}
    assert sent[2] == {"role": "user", "content": "and?"}


def test_a_point_before_everything_marks_nothing() -> None:
    sent = messages(Message("user", [CachePoint(), TextPart(text="hi")]))
    assert sent == [{"role": "user", "content": "hi"}]


def test_an_image_is_marked_as_text_is() -> None:
    image = ImagePart(url="https://example.org/a.png")
    (sent,) = messages(Message("user", [image, CachePoint()]))
    assert "cache_control" in sent["content"][0]


def test_the_latest_four_points_count() -> None:
    sent = messages(
        Message("system", cached("a")), Message("user", cached("b", "c", "d", "e", "f"))
    )
    marked = [
        part["text"]
        for message in sent
        if isinstance(message["content"], list)
        for part in message["content"]
        if "cache_control" in part
    ]
    assert marked == ["c", "d", "e", "f"]


def test_two_points_in_one_place_are_one() -> None:
    both = [TextPart(text="a"), CachePoint(), CachePoint(ttl="1h"), *cached("b", "c", "d")]
    (sent,) = messages(Message("user", both))
    assert [part["text"] for part in sent["content"] if "cache_control" in part] == [*"abcd"]
