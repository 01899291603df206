"""Streams of Gemini: chunks that add up, and ends that are ends or are not."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import (
    AuthenticationError,
    BadRequestError,
    OverloadedError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.gemini import GeminiAssembly, GeminiCodec
from aether.extensions.llm._wire.sse import SSEDecoder
from aether.llm.contracts import LLMResponse, Message, StreamChunk
from tests.llm.gemini_answers import (
    answer,
    call,
    provider,
    read,
    request,
    signed,
    sse,
    stream,
    thought,
)

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

ERROR = {
    "error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"},
}
BARE_ERROR = json.dumps(ERROR, indent=2).encode()


def piece(*parts: Any, **fields: Any) -> dict[str, Any]:
    return answer(*parts, finish=None, **fields)


async def broken(
    transport: ScriptedTransport, *pieces: bytes | BaseException
) -> tuple[str, ProviderError]:
    """The text that was handed out, and the error behind it."""
    transport.answers(*pieces)
    text = ""
    try:
        async for chunk in provider(transport).stream(request()):
            text += chunk.text
            assert not chunk.is_final
    except ProviderError as error:
        assert transport.open_streams == 0
        return text, error
    raise AssertionError("the stream came to a good end")


# What a stream holds


async def test_a_stream_is_asked_for_as_events(transport: ScriptedTransport) -> None:
    await stream(transport, answer("Hello"))
    (sent,) = transport.calls
    assert sent.url.endswith("/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse")
    assert "stream" not in sent.body


async def test_text_is_handed_out_as_it_comes(transport: ScriptedTransport) -> None:
    chunks, response = await stream(
        transport, piece("Hel"), piece("lo"), answer({"text": "", "thoughtSignature": "s"})
    )
    assert [chunk.text for chunk in chunks] == ["Hel", "lo", ""]
    assert response.text == "Hello"
    assert response.model == "gemini-told"
    assert response.request_id == "answer-1"
    assert response.finish_reason == "stop"


async def test_thoughts_are_handed_out_as_reasoning(transport: ScriptedTransport) -> None:
    chunks, response = await stream(transport, piece(thought("Hm. "), "Hel"), answer("lo"))
    assert [chunk.reasoning for chunk in chunks] == ["Hm. ", None, None, None]
    assert response.reasoning == "Hm. "
    assert response.text == "Hello"


@pytest.mark.row("S20")
async def test_calls_come_whole_over_any_number_of_chunks(transport: ScriptedTransport) -> None:
    chunks, response = await stream(
        transport,
        piece(call(args={"a": 1}, signature="s")),
        piece(call(args={"a": 2}), call("now", id="abcd1234")),
        answer(""),
    )
    assert response.finish_reason == "tool_calls"
    assert [(made.name, made.arguments) for made in response.tool_calls] == [
        ("add", {"a": 1}),
        ("add", {"a": 2}),
        ("now", {}),
    ]
    deltas = [chunk.tool_call for chunk in chunks if chunk.tool_call]
    assert [(delta.index, delta.id) for delta in deltas] == [
        (index, made.id) for index, made in enumerate(response.tool_calls)
    ]
    assert [json.loads(delta.arguments) for delta in deltas] == [{"a": 1}, {"a": 2}, {}]


@pytest.mark.row("S19")
async def test_usage_is_a_running_total(transport: ScriptedTransport) -> None:
    def used(**counts: int) -> dict[str, int]:
        return counts

    chunks, response = await stream(
        transport,
        piece("a", usageMetadata=used(promptTokenCount=9, candidatesTokenCount=1)),
        piece("b", usageMetadata=used(promptTokenCount=20, candidatesTokenCount=4)),
        answer("c", usageMetadata={"trafficType": "ON_DEMAND"}),
    )
    assert (response.input_tokens, response.output_tokens) == (20, 4)
    assert (chunks[-1].input_tokens, chunks[-1].output_tokens) == (20, 4)


@pytest.mark.row("S16", "S17")
async def test_a_stream_goes_on_after_it_said_why_it_stopped(transport: ScriptedTransport) -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
    result = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}}
    _, response = await stream(
        transport, piece(code), answer("One"), piece(result), answer(" is it.", finish="MAX_TOKENS")
    )
    assert response.text == "One is it."
    assert response.finish_reason == "length"


@pytest.mark.row("S17")
@pytest.mark.parametrize(
    ("reason", "finish"),
    [("SAFETY", "content_filter"), ("MAX_TOKENS", "length"), ("MALFORMED_FUNCTION_CALL", "error")],
)
async def test_a_stop_behind_which_nothing_new_is_said_takes_no_reason_back(
    transport: ScriptedTransport, reason: str, finish: str
) -> None:
    _, response = await stream(transport, answer("One", finish=reason), answer("", finish="STOP"))
    assert (response.text, response.finish_reason) == ("One", finish)


async def test_a_foreign_end_mark_is_passed_over(transport: ScriptedTransport) -> None:
    transport.answers(sse(piece("Hel"), answer("lo")), b"data: [DONE]\n\n")
    chunks = await read(provider(transport).stream(request()))
    assert "".join(chunk.text for chunk in chunks) == "Hello"
    assert chunks[-1].is_final


async def test_a_blocked_prompt_ends_a_stream(transport: ScriptedTransport) -> None:
    usage = {"promptTokenCount": 9, "totalTokenCount": 9}
    chunks, response = await stream(
        transport, {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage}
    )
    assert len(chunks) == 1
    assert response.finish_reason == "content_filter"
    assert response.finish_reason_raw == "SAFETY"
    assert response.output_tokens == 0


async def test_comments_and_other_line_ends_are_nothing(transport: ScriptedTransport) -> None:
    transport.answers(
        b": hello\r\n\r\n",
        sse(piece("Hel"), end="\n\n"),
        b": there\n",
        sse(answer("lo"), end="\r\r"),
        b": bye\r\n",
    )
    chunks = await read(provider(transport).stream(request()))
    assert "".join(chunk.text for chunk in chunks) == "Hello"


async def test_the_last_blank_line_may_lack(transport: ScriptedTransport) -> None:
    for end in (b"", b"\r", b"\r\n"):
        transport.answers(sse(piece("Hel"), answer("lo")).rstrip() + end)
        chunks = await read(provider(transport).stream(request()))
        assert "".join(chunk.text for chunk in chunks) == "Hello"


# Ends that are none


async def test_a_stream_that_never_says_why_it_stopped_is_cut(
    transport: ScriptedTransport,
) -> None:
    text, error = await broken(transport, sse(piece("Hel")))
    assert text == "Hel"
    assert isinstance(error, StreamInterruptedError)
    assert error.kind == "truncated"
    assert error.partial is not None
    assert error.partial.text == "Hel"
    assert error.partial.finish_reason is None
    assert error.partial.output_tokens == 3
    assert error.request_id == "answer-1"


@pytest.mark.row("S16")
@pytest.mark.parametrize(
    "last",
    [
        [answer("One", finish="FINISH_REASON_UNSPECIFIED")],
        [answer("O"), piece("ne")],
        [piece("O"), answer("ne"), piece({"codeExecutionResult": {"outcome": "OUTCOME_OK"}})],
    ],
)
async def test_an_end_that_is_not_said_or_was_gone_beyond_is_none(
    transport: ScriptedTransport, last: list[dict[str, Any]]
) -> None:
    text, error = await broken(transport, sse(*last))
    assert text == "One"
    assert isinstance(error, StreamInterruptedError)
    assert error.kind == "truncated"


async def test_what_says_nothing_behind_the_end_changes_nothing(
    transport: ScriptedTransport,
) -> None:
    _, response = await stream(transport, answer("One"), piece(""), piece(signed("", "c2ln")), {})
    assert response.finish_reason == "stop"


async def test_an_empty_stream_may_be_tried_again(transport: ScriptedTransport) -> None:
    _, error = await broken(transport)
    assert isinstance(error, StreamInterruptedError)


@pytest.mark.parametrize("rest", [b"data: {", b'data: {"candidates": [{"content"', b"data: ", b"d"])
async def test_a_body_that_ends_inside_an_event_is_cut(
    transport: ScriptedTransport, rest: bytes
) -> None:
    text, error = await broken(transport, sse(answer("Hello")), rest)
    assert text == "Hello"
    assert isinstance(error, StreamInterruptedError)
    assert error.kind == "truncated"


@pytest.mark.parametrize(
    "cut", [ProviderConnectionError("cut", kind="reset"), RequestTimeoutError("")]
)
async def test_a_connection_that_breaks_after_the_end_was_said_changes_nothing(
    transport: ScriptedTransport, cut: ProviderError
) -> None:
    transport.answers(sse(piece("Hel"), answer("lo")), cut)
    chunks = await read(provider(transport).stream(request()))
    assert chunks[-1].response is not None
    assert chunks[-1].response.text == "Hello"


async def test_a_connection_that_breaks_before_the_end_was_said_is_an_error(
    transport: ScriptedTransport,
) -> None:
    cut = ProviderConnectionError("cut", kind="reset")
    text, error = await broken(transport, sse(piece("Hel")), cut)
    assert text == "Hel"
    assert isinstance(error, StreamInterruptedError)
    _, error = await broken(transport, cut)
    assert isinstance(error, ProviderConnectionError)
    assert error.retryable


async def test_with_code_execution_an_end_that_was_said_may_be_none(
    transport: ScriptedTransport,
) -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
    cut = ProviderConnectionError("cut", kind="reset")
    _, error = await broken(transport, sse(piece(code), answer("One")), cut)
    assert isinstance(error, StreamInterruptedError)


@pytest.mark.row("S1")
@pytest.mark.parametrize("form", ["events", "list"])
async def test_an_end_before_the_result_of_the_server_s_code_is_none(
    transport: ScriptedTransport, form: str
) -> None:
    """Google says STOP with the code itself, and goes on when that has run."""
    code = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
    result = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}
    begun = [piece("One: "), answer(code)]
    for more, whole in (([], False), ([piece(result)], False), ([answer(result)], True)):
        values = [*begun, *more]
        transport.answers(sse(*values) if form == "events" else json.dumps(values).encode())
        stream = provider(transport).stream(request())
        if whole:
            assert (await read(stream))[-1].finish_reason == "stop"
        else:
            with pytest.raises(StreamInterruptedError) as raised:
                await read(stream)
            assert raised.value.kind == "truncated"


# Errors in a stream


@pytest.mark.parametrize(
    "reported",
    [
        sse(ERROR),
        sse([ERROR]),
        b"event: error\r\n" + sse(ERROR),
        BARE_ERROR,
        BARE_ERROR + b"\r\n",
        BARE_ERROR.replace(b"\n", b"\r\n") + b"\r\n\r\n",
        b"[" + BARE_ERROR + b"\n]",
    ],
)
async def test_an_error_in_a_stream_is_raised_as_what_it_is(
    transport: ScriptedTransport, reported: bytes
) -> None:
    text, error = await broken(transport, sse(piece("Hel")), reported)
    assert text == "Hel"
    assert isinstance(error, StreamInterruptedError)
    assert error.status == 503
    assert "overloaded" in str(error)
    assert isinstance(error.__cause__, OverloadedError)
    assert error.partial is not None
    assert error.partial.text == "Hel"
    _, error = await broken(transport, reported)
    assert isinstance(error, OverloadedError)
    assert error.retryable


async def test_an_error_that_is_cut_is_a_cut_stream(transport: ScriptedTransport) -> None:
    _, error = await broken(transport, sse(piece("Hel")), BARE_ERROR[:-3])
    assert isinstance(error, StreamInterruptedError)
    assert error.kind == "truncated"


async def test_a_refused_stream_is_read_by_its_status(transport: ScriptedTransport) -> None:
    refusal = {
        "error": {
            "code": 400,
            "message": "API key not valid.",
            "status": "INVALID_ARGUMENT",
            "details": [{"reason": "API_KEY_INVALID"}],
        }
    }
    transport.answers_json(refusal, status=400, content_type="text/event-stream")
    with pytest.raises(AuthenticationError):
        await read(provider(transport).stream(request()))


@pytest.mark.parametrize("value", [7, "a", {"candidates": 7}, answer({"functionCall": {}})])
async def test_a_chunk_that_the_protocol_does_not_allow_is_an_error(
    transport: ScriptedTransport, value: Any
) -> None:
    text, error = await broken(transport, sse(piece("Hel"), value))
    assert text == "Hel"
    assert isinstance(error, ProtocolError)
    assert error.partial is not None


async def test_an_event_of_many_chunks_is_an_error(transport: ScriptedTransport) -> None:
    many = [piece("x")] * 2049
    text, error = await broken(transport, sse(piece("Hel"), many))
    assert text == "Hel"
    assert isinstance(error, ProtocolError)
    assert "more than 2048 members of a chunk" in str(error)


async def test_an_event_that_is_no_json_is_an_error(transport: ScriptedTransport) -> None:
    _, error = await broken(transport, sse(piece("Hel")), b"data: {nothing}\r\n\r\n")
    assert isinstance(error, ProtocolError)
    assert "not JSON" in str(error)


# A document in place of a stream


async def test_a_list_in_place_of_a_stream_is_read(transport: ScriptedTransport) -> None:
    body = json.dumps([piece("Hel"), answer("lo")]).encode()
    transport.answers(body[:7], body[7:])
    chunks = await read(provider(transport).stream(request()))
    assert "".join(chunk.text for chunk in chunks) == "Hello"
    assert chunks[-1].response is not None
    assert chunks[-1].response.finish_reason == "stop"


async def test_a_list_that_is_cut_is_an_error(transport: ScriptedTransport) -> None:
    _, error = await broken(transport, json.dumps([piece("Hel")]).encode())
    assert isinstance(error, StreamInterruptedError)
    _, error = await broken(transport, b'[{"candidates": [')
    assert isinstance(error, ProtocolError)


async def test_an_error_in_place_of_a_stream_is_raised(transport: ScriptedTransport) -> None:
    _, error = await broken(transport, b"[" + BARE_ERROR + b"]")
    assert isinstance(error, OverloadedError)


# An answer that goes on in another request


def unfinished(*parts: Any, token: str | None = "token-1") -> dict[str, Any]:
    more = {} if token is None else {"continuationToken": token}
    return answer(*parts, finish="CONTINUATION", candidate=more)


async def test_calls_of_several_parts_are_told_apart(transport: ScriptedTransport) -> None:
    transport.answers(sse(unfinished(call(args={"a": 1}))))
    transport.answers(sse(answer(call(args={"a": 2}))))
    chunks = await read(provider(transport).stream(request()))
    assert [chunk.tool_call.index for chunk in chunks if chunk.tool_call] == [0, 1]
    assert chunks[-1].response is not None
    assert [made.arguments for made in chunks[-1].response.tool_calls] == [{"a": 1}, {"a": 2}]


async def test_an_answer_goes_on_with_its_token(transport: ScriptedTransport) -> None:
    for ask in ("complete", "stream"):
        transport.calls.clear()
        values = [unfinished("Hel"), unfinished("lo", token="token-2"), answer(" there.")]
        made = request(extra_body={"store": False})
        if ask == "complete":
            for value in values:
                transport.answers_json(value)
            response = await provider(transport).complete(made)
        else:
            for value in values:
                transport.answers(sse(value))
            chunks = await read(provider(transport).stream(made))
            assert [chunk.text for chunk in chunks] == ["Hel", "lo", " there.", ""]
            assert [chunk.is_final for chunk in chunks] == [False, False, False, True]
            assert chunks[-1].response is not None
            response = chunks[-1].response
        assert response.text == "Hello there."
        assert response.finish_reason == "stop"
        assert (response.input_tokens, response.output_tokens) == (27, 9)
        first, second, third = (sent.body for sent in transport.calls)
        assert "continuationToken" not in first
        assert second == {**first, "continuationToken": "token-1"}
        assert third == {**first, "continuationToken": "token-2"}


async def test_an_answer_that_cannot_go_on_was_cut(transport: ScriptedTransport) -> None:
    transport.answers_json(unfinished("Hel", token=None))
    response = await provider(transport).complete(request())
    assert response.finish_reason == "length"
    transport.answers_json(unfinished("Hel"))
    transport.answers_json(unfinished(""))  # it has not moved on
    response = await provider(transport).complete(request())
    assert response.text == "Hel"
    assert response.finish_reason == "length"


async def test_an_answer_in_parts_is_sent_back_with_what_each_had(
    transport: ScriptedTransport,
) -> None:
    transport.answers_json(unfinished(signed("Hel", "s1")))
    transport.answers_json(answer("lo"))
    first = await provider(transport).complete(request())
    transport.answers_json(unfinished("Hel"))
    transport.answers_json(answer(signed("lo", "s2"), call(args={"a": 1}, signature="s3")))
    second = await provider(transport).complete(request())
    restored = Message.model_validate_json(second.message.model_dump_json())
    transport.answers_json(answer("ok"))
    result = Message("tool", "7", tool_call_id=second.tool_calls[0].id)
    made = request(Message("user", "Hi"), first.message, Message("user", "Go on"), restored, result)
    await provider(transport).complete(made)
    contents = transport.calls[-1].body["contents"]
    assert contents[1]["parts"] == [signed("Hel", "s1"), {"text": "lo"}]
    assert contents[3]["parts"] == [
        {"text": "Hel"},
        signed("lo", "s2"),
        call(args={"a": 1}, signature="s3"),
    ]


async def test_an_answer_that_breaks_off_in_its_second_part_keeps_the_first(
    transport: ScriptedTransport,
) -> None:
    transport.answers(sse(unfinished("Hel")))
    transport.answers_json({"error": {"code": 500, "message": "no"}}, status=500)
    with pytest.raises(StreamInterruptedError) as caught:
        await read(provider(transport).stream(request()))
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"
    assert isinstance(caught.value.__cause__, ServerError)


async def test_a_refusal_is_no_matter_of_streams(transport: ScriptedTransport) -> None:
    transport.answers_json({"error": {"code": 400, "message": "no"}}, status=400)
    with pytest.raises(BadRequestError):
        await read(provider(transport).stream(request()))


# However it is cut


VALUES = st.lists(
    st.one_of(
        st.builds(lambda text: {"text": text}, st.text(max_size=4)),
        st.builds(lambda text: {"text": text, "thought": True}, st.text(max_size=4)),
        st.builds(lambda text: {"text": text, "thoughtSignature": "s"}, st.text(max_size=4)),
        st.builds(lambda a: call(args={"a": a}, id="one"), st.text(max_size=3)),
        st.just({"executableCode": {"code": "1"}}),
        st.just({"inlineData": {"mimeType": "image/png", "data": "iVBORw=="}}),
    ),
    max_size=6,
).map(lambda parts: [*parts, {"codeExecutionResult": {"output": "1"}}])  # of the code, if any


def assembled(body: bytes, cuts: list[int]) -> tuple[list[StreamChunk], LLMResponse]:
    decoder, made = SSEDecoder(), GeminiAssembly(source=Source("gemini", "asked", str))
    places = [0, *sorted({cut % len(body) for cut in cuts}), len(body)]
    chunks: list[StreamChunk] = []
    for start, end in pairwise(places):
        for data, name in decoder.feed(body[start:end]):
            chunks += made.feed(data, name)
    return chunks, made.finish()


def without_minted_ids(response: LLMResponse) -> Any:
    made = response.model_dump(mode="json")
    for each in (*made["tool_calls"], *made["message"]["tool_calls"]):
        each["id"] = None
    return made


@given(VALUES, st.lists(st.integers(min_value=0), max_size=8))
def test_any_splitting_of_the_bytes_gives_the_same(parts: list[Any], cuts: list[int]) -> None:
    body = sse(*(piece(part) for part in parts), answer())
    chunks, response = assembled(body, cuts)
    whole_chunks, whole = assembled(body, [])
    assert without_minted_ids(response) == without_minted_ids(whole)
    assert [(chunk.text, chunk.reasoning) for chunk in chunks] == [
        (chunk.text, chunk.reasoning) for chunk in whole_chunks
    ]


@given(VALUES, st.lists(st.booleans(), min_size=7, max_size=7))
def test_an_answer_is_the_same_in_one_chunk_and_in_many(parts: list[Any], ends: list[bool]) -> None:
    groups: list[list[Any]] = [[]]
    for part, ends_here in zip(parts, ends, strict=False):
        groups[-1].append(part)
        if ends_here:
            groups.append([])
    _, streamed = assembled(sse(*(piece(*group) for group in groups), answer()), [])
    whole = GeminiCodec("v1beta").parse(
        json.dumps(answer(*parts)).encode(), source=Source("gemini", "asked", str)
    )
    assert without_minted_ids(streamed) == without_minted_ids(whole)
    assert "".join(part.text for part in [streamed]) == whole.text
