"""What Gemini's answers mean: text, thoughts, calls, images, ends, usage, errors."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from aether.errors import (
    AuthenticationError,
    OverloadedError,
    ProtocolError,
    StreamInterruptedError,
)
from aether.llm.contracts import AudioPart, FilePart, ImagePart, Message, TextPart
from tests.llm.gemini_answers import USAGE, answer, call, complete, provider, request, thought

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

PNG = base64.b64encode(b"\x89PNG").decode()


def picture(**fields: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": "image/png", "data": PNG}, **fields}


async def test_an_answer_is_its_texts(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer("Hel", "lo", ""))
    assert response.text == "Hello"
    assert response.message == Message("assistant", "Hello")
    assert response.model == "gemini-told"
    assert response.provider == "gemini"
    assert response.request_id == "answer-1"
    assert response.finish_reason == "stop"
    assert response.finish_reason_raw == "STOP"
    assert response.reasoning is None
    assert (response.input_tokens, response.output_tokens) == (9, 3)


async def test_a_part_of_nothing_is_nothing(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer("Hello", None, {}))
    assert response.message == Message("assistant", "Hello")


async def test_thoughts_are_reasoning_and_no_text(transport: ScriptedTransport) -> None:
    parts = [thought("Hm. "), thought("Yes."), {"text": "Hello", "thought": False}]
    response = await complete(transport, answer(*parts))
    assert response.text == "Hello"
    assert response.reasoning == "Hm. Yes."
    assert response.message.text == "Hello"


async def test_calls_are_told_from_the_parts_and_have_ids(transport: ScriptedTransport) -> None:
    bare = {"functionCall": {"name": "add"}}  # arguments may be left out
    parts = ["Wait.", call(args={"a": 1}, id="abcd1234"), call(args={"a": 2}), bare]
    response = await complete(transport, answer(*parts))
    assert response.finish_reason == "tool_calls"
    assert response.finish_reason_raw == "STOP"
    assert response.text == "Wait."
    assert [made.arguments for made in response.tool_calls] == [{"a": 1}, {"a": 2}, {}]
    first, second, third = (made.id for made in response.tool_calls)
    assert first == "abcd1234"
    assert len({first, second, third}) == 3
    assert response.message.tool_calls == response.tool_calls


@pytest.mark.row("S20")
async def test_two_calls_with_one_id_are_two(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer(call(id="same"), call(id="same")))
    assert len({made.id for made in response.tool_calls}) == 2


async def test_images_and_files_are_content(transport: ScriptedTransport) -> None:
    pdf = {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}}
    response = await complete(transport, answer("Here: ", picture(), "and", " more", pdf))
    assert response.text == "Here: and more"
    assert response.message.content == [
        TextPart(text="Here: "),
        ImagePart(data=b"\x89PNG", media_type="image/png"),
        TextPart(text="and more"),
        FilePart(data=b"%PDF", media_type="application/pdf"),
    ]


async def test_sound_keeps_the_rate_of_its_samples(transport: ScriptedTransport) -> None:
    blob = {"mimeType": "audio/L16;codec=pcm;rate=24000", "data": "eA=="}
    response = await complete(transport, answer({"inlineData": blob}))
    assert response.message.content == [
        AudioPart(data=b"x", media_type="audio/l16;codec=pcm;rate=24000")
    ]


async def test_an_image_without_any_bytes_is_no_content(transport: ScriptedTransport) -> None:
    nothing = {"inlineData": {"mimeType": "image/png", "data": ""}}
    response = await complete(transport, answer("Here.", nothing))
    assert response.message.content == "Here."


async def test_a_sketch_that_was_thought_is_no_content(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer(picture(thought=True), "Done."))
    assert response.message.content == "Done."


@pytest.mark.parametrize(
    ("raw", "neutral"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        *((raw, "content_filter") for raw in ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST")),
        *((raw, "content_filter") for raw in ("PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY")),
        *((raw, "error") for raw in ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER")),
        *((raw, "error") for raw in ("MISSING_THOUGHT_SIGNATURE", "TOO_MANY_TOOL_CALLS")),
        ("SOMETHING_NEW", "other"),
        ("CONTINUATION", "length"),  # without a token there is nothing to go on with
    ],
)
async def test_why_it_stopped(transport: ScriptedTransport, raw: str, neutral: str) -> None:
    response = await complete(transport, answer("a", finish=raw))
    assert response.finish_reason == neutral
    assert response.finish_reason_raw == raw


@pytest.mark.parametrize(
    ("raw", "neutral"),
    [("SOMETHING_NEW", "tool_calls"), ("MAX_TOKENS", "length"), ("OTHER", "error")],
)
async def test_calls_do_not_hide_that_it_was_cut(
    transport: ScriptedTransport, raw: str, neutral: str
) -> None:
    response = await complete(transport, answer(call(), finish=raw))
    assert response.finish_reason == neutral
    assert len(response.tool_calls) == 1


async def test_an_end_without_content_is_an_end(transport: ScriptedTransport) -> None:
    usage = {"promptTokenCount": 9, "thoughtsTokenCount": 50, "totalTokenCount": 59}
    for content in ({"role": "model"}, {}, None):
        candidate = {"finishReason": "MAX_TOKENS", "index": 0, "content": content}
        response = await complete(transport, {"candidates": [candidate], "usageMetadata": usage})
        assert response.text == ""
        assert response.finish_reason == "length"
        assert response.output_tokens == 50
        assert response.reasoning_tokens == 50


async def test_a_blocked_prompt_is_filtered(transport: ScriptedTransport) -> None:
    usage = {"promptTokenCount": 9, "totalTokenCount": 9}
    for reason in ("PROHIBITED_CONTENT", "OTHER"):
        blocked = {"promptFeedback": {"blockReason": reason}, "usageMetadata": usage}
        response = await complete(transport, blocked)
        assert response.finish_reason == "content_filter"
        assert response.finish_reason_raw == reason
        assert response.text == ""
        assert (response.input_tokens, response.output_tokens) == (9, 0)


async def test_what_is_unspecified_is_not_said(transport: ScriptedTransport) -> None:
    feedback = {"blockReason": "BLOCK_REASON_UNSPECIFIED"}
    response = await complete(transport, answer("Hello", promptFeedback=feedback))
    assert response.finish_reason == "stop"
    response = await complete(transport, answer("Hello", finish="FINISH_REASON_UNSPECIFIED"))
    assert (response.finish_reason, response.finish_reason_raw) == ("other", None)


async def test_the_other_form_of_its_json_is_read_as_well(transport: ScriptedTransport) -> None:
    parts = [
        {"text": "Here:", "thought": None, "function_call": None, "inline_data": None},
        {"text": None, "inline_data": {"mime_type": "image/png", "data": "_-8="}},
        {
            "function_call": {"name": "add", "args": {"a_b": None}, "id": None},
            "thought_signature": "c2ln",
        },
    ]
    usage = {"prompt_token_count": 9, "candidates_token_count": 3, "total_token_count": 12}
    candidate = {"content": {"parts": parts}, "finish_reason": "MAX_TOKENS", "index": None}
    value = {
        "candidates": [candidate],
        "usage_metadata": usage,
        "model_version": "gemini-told",
        "response_id": "answer-1",
        "prompt_feedback": None,
    }
    response = await complete(transport, value)
    assert response.message.content == [
        TextPart(text="Here:"),
        ImagePart(data=b"\xff\xef", media_type="image/png"),
    ]
    (made,) = response.tool_calls
    assert (made.name, made.arguments) == ("add", {"a_b": None})
    assert made.provider_state == {"gemini": {"thoughtSignature": "c2ln"}}
    assert response.finish_reason == "length"
    assert (response.input_tokens, response.output_tokens) == (9, 3)
    assert (response.model, response.request_id) == ("gemini-told", "answer-1")
    blocked = {"prompt_feedback": {"block_reason": "SAFETY"}}
    assert (await complete(transport, blocked)).finish_reason == "content_filter"


async def test_ratings_of_a_prompt_block_nothing(transport: ScriptedTransport) -> None:
    rated = answer("Hello", promptFeedback={"safetyRatings": []})
    assert (await complete(transport, rated)).finish_reason == "stop"


async def test_only_the_first_alternative_counts(transport: ScriptedTransport) -> None:
    value = answer("one")
    value["candidates"] = [{**answer("two")["candidates"][0], "index": 1}, *value["candidates"]]
    assert (await complete(transport, value)).text == "one"


async def test_an_answer_without_a_reason_to_stop_is_no_clean_stop(
    transport: ScriptedTransport,
) -> None:
    response = await complete(transport, answer("Hello", finish=None))
    assert response.finish_reason == "other"
    assert response.finish_reason_raw is None


# Usage


@pytest.mark.row("S19")
@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (USAGE, (9, 3, None, None)),
        (
            {
                "promptTokenCount": 10,
                "toolUsePromptTokenCount": 5,
                "cachedContentTokenCount": 4,
                "candidatesTokenCount": 3,
                "thoughtsTokenCount": 7,
                "totalTokenCount": 25,
            },
            (15, 10, 4, 7),
        ),
        ({"promptTokenCount": 10, "candidatesTokenCount": 3}, (10, 3, None, None)),
        # What is left out may be nothing or unknown: the total tells.
        ({"promptTokenCount": 10, "totalTokenCount": 10}, (10, None, None, None)),
        ({"promptTokenCount": 10, "totalTokenCount": 14}, (10, 4, None, None)),
        ({"promptTokenCount": 10, "totalTokenCount": 8}, (10, None, None, None)),
        ({"promptTokenCount": 10, "thoughtsTokenCount": 5}, (10, None, None, 5)),
        ({"promptTokenCount": 10}, (10, None, None, None)),
        ({"candidatesTokenCount": 3, "totalTokenCount": 13}, (None, 3, None, None)),
        ({"totalTokenCount": 13}, (None, None, None, None)),
        ({"trafficType": "ON_DEMAND"}, (None, None, None, None)),
        ({"promptTokenCount": "10", "candidatesTokenCount": -1}, (None, None, None, None)),
        ({}, (None, None, None, None)),
        (None, (None, None, None, None)),
        ("many", (None, None, None, None)),
    ],
)
async def test_usage_counts_what_is_certain(
    transport: ScriptedTransport, usage: Any, counts: tuple[int | None, ...]
) -> None:
    response = await complete(transport, answer("a", usageMetadata=usage))
    assert counts == (
        response.input_tokens,
        response.output_tokens,
        response.cache_read_tokens,
        response.reasoning_tokens,
    )
    assert response.cache_write_tokens is None


async def test_a_model_that_is_not_told_is_the_one_that_was_asked(
    transport: ScriptedTransport,
) -> None:
    assert (await complete(transport, answer("a", modelVersion=None))).model == "gemini-3.8-flash"
    named = answer("a", modelVersion="models/gemini-x")
    assert (await complete(transport, named)).model == "gemini-x"


# A stream that came as a document


async def test_a_list_of_chunks_is_one_answer(transport: ScriptedTransport) -> None:
    chunks = [answer("Hel", finish=None), answer("lo", finish=None), answer(call())]
    response = await complete(transport, chunks)
    assert response.text == "Hello"
    assert response.finish_reason == "tool_calls"


async def test_a_list_without_an_end_is_cut(transport: ScriptedTransport) -> None:
    for value in ([answer("Hel", finish=None)], []):
        with pytest.raises(StreamInterruptedError) as caught:
            await complete(transport, value)
        assert caught.value.kind == "truncated"
        assert caught.value.partial is not None
        assert caught.value.partial.text == ("Hel" if value else "")


# Errors


async def test_an_error_in_a_good_status_is_raised(transport: ScriptedTransport) -> None:
    error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    for value in (error, [error], [answer("a", finish=None), error]):
        with pytest.raises(OverloadedError):
            await complete(transport, value)


async def test_an_error_without_a_number_is_classed_by_its_word(
    transport: ScriptedTransport,
) -> None:
    with pytest.raises(AuthenticationError):
        await complete(transport, {"error": {"status": "UNAUTHENTICATED", "message": "who?"}})


def _candidate(**fields: Any) -> dict[str, Any]:
    return {"candidates": [fields]}


NOT_ARGUMENTS: list[Any] = ["{}", [], 7]
NOT_FEEDBACK: list[Any] = [[], {"blockReason": 7}]
NOT_PARTS: list[Any] = [7, [], {"text": 7}, {"functionCall": 7}, {"inlineData": {"data": 7}}]
NOT_CALLS: list[Any] = [
    *({}, {"name": ""}, {"name": 7}, {"name": "a", "args": {}, "id": 7}),
    *({"name": "a", "args": args} for args in NOT_ARGUMENTS),
    {"name": "a", "willContinue": True},
    {"name": "a", "partialArgs": [{"jsonPath": "$.a"}]},
]


@pytest.mark.parametrize(
    "value",
    [
        *({}, {"candidates": []}, {"candidates": None}, {"usageMetadata": USAGE}, 7, "a", None),
        *({"candidates": {}}, {"candidates": [7]}, _candidate(), _candidate(content=[])),
        _candidate(content={"parts": {}}),
        _candidate(finishReason={}),
        *(answer(part) for part in NOT_PARTS),
        *(answer({"functionCall": function}) for function in NOT_CALLS),
        answer({"inlineData": {"mimeType": "image/png", "data": "???"}}),
        *({"promptFeedback": feedback} for feedback in NOT_FEEDBACK),
    ],
)
async def test_what_the_protocol_does_not_allow_is_an_error(
    transport: ScriptedTransport, value: Any
) -> None:
    with pytest.raises(ProtocolError) as caught:
        await complete(transport, value)
    assert caught.value.provider == "gemini"


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"candidates": [', b"\xff"])
async def test_what_is_no_json_is_an_error(transport: ScriptedTransport, body: bytes) -> None:
    transport.answers(body)
    with pytest.raises(ProtocolError):
        await provider(transport).complete(request())


@pytest.mark.row("S24")
@pytest.mark.parametrize(
    "part",
    [
        {"fileData": {"fileUri": "https://files.test/1", "mimeType": "image/png"}},
        {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": {}}},
    ],
)
async def test_an_answer_that_nobody_reads_is_no_empty_one(
    transport: ScriptedTransport, part: dict[str, Any]
) -> None:
    response = await complete(transport, answer(thought("Hm."), part))
    assert (response.text, response.finish_reason) == ("", "other")
    assert next(iter(part)) in str(response.message.provider_state)
    assert (await complete(transport, answer(part, "Hi"))).finish_reason == "stop"
    assert (await complete(transport, answer(thought("Hm.")))).finish_reason == "stop"
