"""Messages as Anthropic takes them: system text, turns, results, media, cache points."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import InputError
from aether.extensions.llm._wire.anthropic import MessagesCodec
from aether.llm.contracts import (
    AudioPart,
    CachePoint,
    FilePart,
    ImagePart,
    LLMRequest,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
)

HAIKU = "claude-haiku-5-5"
PIXEL = ImagePart(data=b"\x89PNG", media_type="image/png")


def body(*messages: Message, model: str = HAIKU) -> dict[str, Any]:
    request = LLMRequest(messages)
    return dict(MessagesCodec().render(request, model=model, stream=False).body)


def turns(*messages: Message, model: str = HAIKU) -> list[tuple[str, Any]]:
    return [(turn["role"], turn["content"]) for turn in body(*messages, model=model)["messages"]]


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def calls(*ids: str) -> Message:
    return Message(
        "assistant", "", tool_calls=[ToolCall(each, "add", {"n": n}) for n, each in enumerate(ids)]
    )


def result(call_id: str | None, content: Any = "3", **fields: Any) -> Message:
    return Message("tool", content, tool_call_id=call_id, **fields)


HI = Message("user", "hi")


# System text and turns


def test_system_text_stands_at_the_top() -> None:
    assert body(Message("system", "Be brief."), HI)["system"] == "Be brief."
    assert body(Message("system", "a"), Message("system", "b"), HI)["system"] == [
        text("a"),
        text("b"),
    ]
    assert "system" not in body(Message("system", "  "), HI)


def test_neighbours_of_one_role_become_one_turn() -> None:
    answer = Message("assistant", "yes")
    assert turns(HI, Message("user", "there"), answer, Message("assistant", "no"), HI) == [
        ("user", [text("hi"), text("there")]),
        ("assistant", [text("yes"), text("no")]),
        ("user", "hi"),
    ]


def test_an_empty_answer_is_left_out() -> None:
    assert turns(HI, Message("assistant", ""), Message("user", "there")) == [
        ("user", [text("hi"), text("there")])
    ]


def test_parts_that_say_nothing_are_left_out() -> None:
    parts: list[Any] = [TextPart(text=""), TextPart(text="a"), TextPart(text="\n")]
    assert turns(Message("user", parts)) == [("user", "a")]


@pytest.mark.parametrize("content", ["", " \n", [], [TextPart(text="")], [CachePoint()]])
def test_an_empty_user_message_is_refused(content: Any) -> None:
    with pytest.raises(InputError, match=r"Message 2 \(user\) is empty"):
        body(Message("system", "a"), Message("user", content))


def test_there_must_be_something_to_answer() -> None:
    with pytest.raises(InputError, match="no message to answer"):
        body(Message("system", "a"))
    with pytest.raises(InputError, match="no message"):
        body()


@pytest.mark.parametrize("model", [HAIKU, "claude-opus-4-6", "claude-opus-9"])
def test_a_begun_answer_is_refused_by_todays_models(model: str) -> None:
    with pytest.raises(InputError, match=f"{model} does not go on"):
        body(HI, Message("assistant", "The answer is"), model=model)


def test_a_begun_answer_goes_to_older_and_unknown_models() -> None:
    begun = Message("assistant", "The answer is")
    assert turns(HI, begun, model="claude-sonnet-4-5")[-1] == ("assistant", "The answer is")
    assert turns(HI, begun, model="llama3")[-1] == ("assistant", "The answer is")


def test_a_begun_answer_has_no_white_space_at_its_end() -> None:
    made = turns(HI, Message("assistant", "Answer:\n "), model="claude-sonnet-4-5")
    assert made[-1] == ("assistant", "Answer:")


# System text in the middle

ANSWER = Message("assistant", "yes")
LATE = Message("system", "Be brief.")


@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "claude-opus-5-5", "claude-opus-4-8"])
def test_late_system_text_stays_where_it_is_taken(model: str) -> None:
    made = body(HI, ANSWER, HI, LATE, LATE, model=model)
    assert "system" not in made
    assert made["messages"][-1] == {"role": "system", "content": [text("Be brief.")] * 2}
    made = body(HI, LATE, ANSWER, HI, model=model)
    assert [turn["role"] for turn in made["messages"]] == ["user", "system", "assistant", "user"]


@pytest.mark.parametrize(
    ("model", "messages"),
    [
        (HAIKU, (HI, LATE)),  # not known to take it
        ("claude-sonnet-5", (HI, LATE)),
        ("claude-opus-4-8", (HI, ANSWER, LATE, ANSWER, HI)),  # not behind an answer
        ("claude-opus-4-8", (HI, ANSWER, LATE, HI)),
        ("claude-opus-4-8", (HI, LATE, HI)),  # not before a user's message
    ],
)
def test_late_system_text_goes_to_the_top_elsewhere(
    model: str, messages: tuple[Message, ...]
) -> None:
    made = body(*messages, model=model)
    assert made["system"] == "Be brief."
    assert all(turn["role"] != "system" for turn in made["messages"])


def test_late_system_text_that_says_nothing_leaves_no_turn() -> None:
    assert turns(HI, Message("system", ""), model="claude-opus-4-8") == [("user", "hi")]


# Calls and results


def test_results_go_into_one_turn_in_the_order_of_the_calls_and_before_text() -> None:
    made = turns(HI, calls("a", "b"), result("b", "2"), result("a", "1"), Message("user", "so?"))
    assert made[1] == (
        "assistant",
        [
            {"type": "tool_use", "id": "a", "name": "add", "input": {"n": 0}},
            {"type": "tool_use", "id": "b", "name": "add", "input": {"n": 1}},
        ],
    )
    assert made[2] == (
        "user",
        [
            {"type": "tool_result", "tool_use_id": "a", "content": "1"},
            {"type": "tool_result", "tool_use_id": "b", "content": "2"},
            text("so?"),
        ],
    )


def test_a_failure_is_marked_and_never_without_a_word() -> None:
    (_, _, (_, blocks)) = turns(HI, calls("a"), result("a", "no such city", is_error=True))
    assert blocks[0]["is_error"] is True
    assert blocks[0]["content"] == "no such city"
    (_, _, (_, blocks)) = turns(HI, calls("a"), result("a", "", is_error=True))
    assert blocks[0]["content"] == "The tool failed."


def test_a_result_without_content_is_sent_without() -> None:
    (_, _, (_, blocks)) = turns(HI, calls("a"), result("a", ""))
    assert blocks == [{"type": "tool_result", "tool_use_id": "a"}]


def test_a_result_may_hold_images_and_documents() -> None:
    report = FilePart(data=b"%PDF", media_type="application/pdf")
    (_, _, (_, blocks)) = turns(HI, calls("a"), result("a", [TextPart(text="See."), PIXEL, report]))
    assert [each["type"] for each in blocks[0]["content"]] == ["text", "image", "document"]


def test_a_failure_with_an_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"Message 3 \(tool\)"):
        body(HI, calls("a"), result("a", [TextPart(text="See."), PIXEL], is_error=True))


def test_results_that_do_not_fit_their_calls_are_refused() -> None:
    with pytest.raises(InputError, match="Message 3"):
        body(HI, calls("a"), result("b"))
    with pytest.raises(InputError, match="results of the tool calls a"):
        body(HI, calls("a"))


@given(st.text(min_size=1, max_size=80))
def test_the_id_of_any_provider_becomes_one_that_is_taken_and_still_pairs(call_id: str) -> None:
    made = turns(HI, calls(call_id), result(call_id))
    sent = made[1][1][0]["id"]
    assert made[2][1][0]["tool_use_id"] == sent
    assert sent.isascii()
    assert sent.replace("-", "").replace("_", "").isalnum() or set(sent) <= {"-", "_"}
    assert turns(HI, calls(call_id), result(call_id)) == made


def test_an_id_that_comes_again_in_a_later_turn_becomes_another_and_still_pairs() -> None:
    turn = [HI, calls("call_0", "call_1"), result("call_1", "2"), result("call_0", "1")]
    made = turns(*turn, *turn, *turn)
    called = [block["id"] for _, blocks in made[1::2] for block in blocks]
    answered = [
        block["tool_use_id"] for _, blocks in made[2::2] for block in blocks if block != text("hi")
    ]
    assert called == answered
    assert called[:2] == ["call_0", "call_1"]
    assert len(set(called)) == 6
    assert turns(*turn, *turn) == [*made[:4], (made[4][0], made[4][1][:2])]


def test_the_name_of_a_call_that_was_made_up_is_made_sendable() -> None:
    made = Message("assistant", "", tool_calls=[ToolCall("a", "math.add one")])
    assert turns(HI, made, result("a"))[1][1][0]["name"] == "math_add_one"


# Media


def test_images_by_url_and_as_bytes() -> None:
    address = "https://example.org/a.png"
    jpg = ImagePart(data=b"x", media_type="IMAGE/JPG; charset=binary")
    ((_, blocks),) = turns(Message("user", [PIXEL, ImagePart(url=address), jpg]))
    assert [block["source"] for block in blocks] == [
        {"type": "base64", "media_type": "image/png", "data": "iVBORw=="},
        {"type": "url", "url": address},
        {"type": "base64", "media_type": "image/jpeg", "data": "eA=="},
    ]


def test_documents_by_url_as_bytes_and_as_text() -> None:
    address = "https://example.org/a.pdf"
    parts: list[Any] = [
        FilePart(data=b"%PDF", media_type="application/pdf", name="report.pdf"),
        FilePart(url=address),
        FilePart(data="Grüße".encode(), media_type="text/markdown; charset=utf-8"),
        FilePart(data=b"{}", media_type="application/json"),
    ]
    ((_, blocks),) = turns(Message("user", parts))
    assert blocks == [
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
            "title": "report.pdf",
        },
        {"type": "document", "source": {"type": "url", "url": address}},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "{}"}},
    ]


@pytest.mark.parametrize(
    ("part", "match"),
    [
        (
            AudioPart(data=b"x", media_type="audio/wav"),
            "of type audio, which Anthropic does not take",
        ),
        (ReasoningPart(text="hm"), "of type reasoning, which a user's message may hold none of"),
        (
            ImagePart(data=b"x", media_type="image/tiff"),
            "of type image/tiff: Anthropic takes image/jpeg, image/png",
        ),
        (ImagePart(data=b"x", media_type="image/svg+xml"), "Anthropic takes"),
        (ImagePart(url="file:///etc/passwd"), "url"),
        (FilePart(data=b"x", media_type="application/zip"), "file of type application/zip"),
        (FilePart(url="https://h/a.txt", media_type="text/plain"), "pass its data"),
        (FilePart(data=b"\xff", media_type="text/plain"), "not UTF-8"),
        (FilePart(url="ftp://h/a.pdf"), "url"),
    ],
)
def test_a_part_that_no_model_takes_is_refused(part: Any, match: str) -> None:
    with pytest.raises(InputError, match=rf"Message 2 \(user\), part 3 is .*{match}"):
        body(Message("system", "a"), Message("user", ["a", PIXEL, part]))


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_only_a_user_and_a_tool_show_images(role: Any) -> None:
    with pytest.raises(InputError, match=rf"Message 2 \({role}\), part 1 is of type image"):
        body(HI, Message(role, [PIXEL]), HI)


def test_reasoning_of_another_provider_is_left_out() -> None:
    said = Message("assistant", [ReasoningPart(text="hm"), TextPart(text="yes")])
    assert turns(HI, said, HI)[1] == ("assistant", "yes")


# Cache points

FIVE = {"type": "ephemeral", "ttl": "5m"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


def marked(made: dict[str, Any]) -> list[tuple[Any, str]]:
    """The blocks with a breakpoint, and how long it is kept, in the order of the prompt."""
    system = made.get("system", [])
    blocks = [] if isinstance(system, str) else list(system)
    for turn in made["messages"]:
        if not isinstance(turn["content"], str):
            blocks += turn["content"]
    return [
        (block.get("text", block["type"]), block["cache_control"]["ttl"])
        for block in blocks
        if "cache_control" in block
    ]


def test_a_cache_point_marks_the_block_before_it() -> None:
    made = body(
        Message("system", [TextPart(text="s"), CachePoint(ttl="1h")]),
        Message("user", [TextPart(text="a"), CachePoint(), TextPart(text="b")]),
    )
    assert made["system"] == [text("s", cache_control=HOUR)]
    assert made["messages"][0]["content"] == [text("a", cache_control=FIVE), text("b")]


def test_a_cache_point_at_the_beginning_of_a_message_marks_the_one_before() -> None:
    made = body(HI, ANSWER, Message("user", [CachePoint(), TextPart(text="b")]))
    assert marked(made) == [("yes", "5m")]


def test_a_cache_point_behind_nothing_is_left_out() -> None:
    assert marked(body(Message("user", [CachePoint(), TextPart(text="b")]))) == []


def test_a_cache_point_of_a_result_or_an_answer_stands_behind_it() -> None:
    said = Message("assistant", [TextPart(text="yes"), CachePoint()])
    last = result("a", [TextPart(text="3"), CachePoint()])
    assert marked(body(HI, said, HI, calls("a"), last)) == [("yes", "5m"), ("tool_result", "5m")]


def test_of_many_cache_points_the_last_four_count() -> None:
    parts: list[Any] = [part for n in range(6) for part in (TextPart(text=str(n)), CachePoint())]
    made = marked(body(Message("user", parts)))
    assert [said for said, _ in made] == ["2", "3", "4", "5"]


def test_two_cache_points_on_one_block_are_one() -> None:
    points = CachePoint(), CachePoint(ttl="1h")
    for both in (points, points[::-1]):
        assert marked(body(Message("user", [TextPart(text="a"), *both]))) == [("a", "1h")]


def test_nothing_is_kept_longer_than_what_stands_before_it() -> None:
    parts: list[Any] = [
        *(TextPart(text="a"), CachePoint()),
        *(TextPart(text="b"), CachePoint(ttl="1h")),
        *(TextPart(text="c"), CachePoint()),
    ]
    assert marked(body(Message("user", parts))) == [("a", "1h"), ("b", "1h"), ("c", "5m")]


def test_messages_are_not_changed() -> None:
    messages = (Message("user", [TextPart(text="a"), CachePoint()]), calls("a"), result("a"))
    before = [message.model_dump() for message in messages]
    body(*messages)
    assert [message.model_dump() for message in messages] == before
