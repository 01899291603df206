"""What goes back to Gemini as it came, and what does not once a message was changed."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import BadRequestError, RateLimitError
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.gemini import GeminiCodec
from aether.llm.contracts import (
    CallContext,
    ImagePart,
    LLMRequest,
    Message,
    ProviderState,
    TextPart,
    ToolCall,
)
from tests.llm.gemini_answers import (
    answer,
    call,
    complete,
    provider,
    read,
    request,
    sent_back,
    signed,
    sse,
    stream,
    thought,
)

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

USER = Message("user", "Hi")
PNG = base64.b64encode(b"\x89PNG").decode()
CODE = {"executableCode": {"language": "PYTHON", "code": "print(1)"}, "thoughtSignature": "s9"}
RESULT = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}}
SEARCH = {"toolCall": {"toolType": "FILE_SEARCH", "id": "t1"}, "thoughtSignature": "s8"}
FOUND = {"toolResponse": {"toolType": "FILE_SEARCH", "id": "t1"}, "thoughtSignature": "s7"}


def picture(signature: str | None = None, data: str = PNG) -> dict[str, Any]:
    made: dict[str, Any] = {"inlineData": {"mimeType": "image/png", "data": data}}
    return made if signature is None else {**made, "thoughtSignature": signature}


def results(message: Message) -> list[Message]:
    return [Message("tool", "7", tool_call_id=made.id) for made in message.tool_calls]


def stored(message: Message) -> Message:
    """As a session store gives it back."""
    return Message.model_validate(json.loads(message.model_dump_json()))


async def echoed(
    transport: ScriptedTransport, message: Message, model: str = "gemini-3.8-flash"
) -> Any:
    contents = await sent_back(transport, USER, message, *results(message), model=model)
    return contents[1]["parts"]


ANSWERS: list[list[Any]] = [
    [signed("Hello", "s1")],
    [{"text": "Hello"}, signed("", "s1")],
    [signed("Hel", "s1"), signed("lo", "s2"), {"text": " there"}],
    [call(args={"a": 1}, id="abcd1234", signature="s1"), call(args={"a": 2}, id="efgh5678")],
    [{"text": "Wait."}, call(args={"a": 1}, signature="s1"), call(args={"a": 1})],
    [call(args={"a": 1}, signature="s1"), {"text": "after it"}],
    [thought("Hm."), {"text": "Hello"}],
    [{**thought("Hm."), "thoughtSignature": "s1"}, {"text": "Hello"}],
    [CODE, RESULT, {"text": "One."}],
    [SEARCH, FOUND, {"text": "Paris."}, signed("", "s1")],
    [signed("Here:", "s1"), picture("s2"), {"text": "and"}, picture("s3")],
    [picture("s2"), call(signature="s1")],
    [{"text": "Hear:"}, {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "eA=="}}],
    [{"text": "See:"}, {"inlineData": {"mimeType": "image/png", "data": ""}}],
    [{"text": "Hello", "partMetadata": {"a": 1}}],
    [{"functionCall": {"name": "odd name!", "args": {}}, "thoughtSignature": "s1"}],
]


@pytest.mark.parametrize("parts", ANSWERS)
async def test_parts_go_back_as_they_came(
    transport: ScriptedTransport, parts: list[dict[str, Any]]
) -> None:
    response = await complete(transport, answer(*parts))
    assert await echoed(transport, response.message) == parts
    assert await echoed(transport, stored(response.message)) == parts
    _, response = await stream(transport, *(answer(part, finish=None) for part in parts), answer())
    assert await echoed(transport, response.message) == parts
    assert await echoed(transport, stored(response.message)) == parts


@pytest.mark.parametrize("parts", [parts for parts in ANSWERS if "functionCall" not in str(parts)])
async def test_a_session_that_keeps_the_text_and_the_state_gives_them_back(
    transport: ScriptedTransport, parts: list[dict[str, Any]]
) -> None:
    response = await complete(transport, answer(*parts))
    made = response.message
    content = made.content if isinstance(made.content, list) else response.text
    kept = stored(Message("assistant", content, provider_state=made.provider_state))
    assert await echoed(transport, kept) == parts


async def test_pieces_of_plain_text_are_one_and_need_no_state(
    transport: ScriptedTransport,
) -> None:
    _, response = await stream(
        transport, answer("Hel", finish=None), answer("lo", finish=None), answer("")
    )
    assert response.message == Message("assistant", "Hello")
    _, response = await stream(
        transport, answer(call(id="abcd1234", signature="s1"), finish=None), answer("")
    )
    assert response.message.provider_state == {}
    assert response.tool_calls[0].provider_state == {
        "gemini": {"id": "abcd1234", "thoughtSignature": "s1"}
    }


async def test_bytes_are_not_kept_twice(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer(picture("s1"), "A cat."))
    assert PNG not in json.dumps(response.message.provider_state)


async def test_a_call_that_is_rebuilt_keeps_its_signature(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer("Wait.", call(args={"a": 1}, signature="s1")))
    rebuilt = Message("assistant", "", tool_calls=response.tool_calls)
    assert await echoed(transport, rebuilt) == [call(args={"a": 1}, signature="s1")]


async def test_results_name_the_ids_that_gemini_gave_and_no_others(
    transport: ScriptedTransport,
) -> None:
    response = await complete(transport, answer(call(id="abcd1234"), call(), thought("Hm.")))
    contents = await sent_back(transport, USER, response.message, *results(response.message))
    made = [part["functionResponse"].get("id", "none") for part in contents[2]["parts"]]
    assert made == ["abcd1234", "none"]


async def test_state_goes_to_no_other_provider_and_theirs_not_to_gemini(
    transport: ScriptedTransport,
) -> None:
    foreign: ProviderState = {"anthropic": {"content": [1]}, "openai": {"output": [2]}}
    message = Message(
        "assistant",
        "Hello",
        tool_calls=[ToolCall("c1", "add", {}, provider_state={"openai": {"x": 1}})],
        provider_state=foreign,
    )
    assert await echoed(transport, message, "gemini-2.5-flash") == [{"text": "Hello"}, call()]


# Changed messages


async def plain(
    transport: ScriptedTransport, message: Message, **changes: Any
) -> list[dict[str, Any]]:
    changed = message.model_copy(update=changes)
    parts: list[dict[str, Any]] = await echoed(transport, changed)
    return parts


async def test_an_edited_text_is_sent_without_the_signature_of_the_old_one(
    transport: ScriptedTransport,
) -> None:
    response = await complete(transport, answer(thought("Hm."), signed("Hello", "s1")))
    for content in ("Good bye", "Hello there", "Hell", ""):
        sent = await sent_back(
            transport, USER, response.message.model_copy(update={"content": content}), USER
        )
        assert "s1" not in json.dumps(sent)
        assert "Hm." not in json.dumps(sent)
        assert content in json.dumps(sent)


async def test_calls_that_were_taken_out_or_changed_are_not_sent_as_they_were(
    transport: ScriptedTransport,
) -> None:
    one, two = call(args={"a": 1}, signature="s1"), call(args={"a": 2})
    response = await complete(transport, answer(thought("Hm."), one, two))
    calls = response.tool_calls
    assert await plain(transport, response.message, tool_calls=calls[:1]) == [one]
    assert await plain(transport, response.message, tool_calls=calls[1:]) == [
        two | {"thoughtSignature": "skip_thought_signature_validator"}
    ]
    changed = calls[1].model_copy(update={"arguments": {"a": 3}})
    sent = await plain(transport, response.message, tool_calls=[calls[0], changed])
    assert sent == [one, call(args={"a": 3})]
    sent = await plain(transport, response.message, tool_calls=[], content="Never mind")
    assert sent == [{"text": "Never mind"}]


async def test_an_image_that_was_changed_is_not_signed(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer("A cat:", picture("s1")))
    text, image = list(response.message.content)
    assert isinstance(image, ImagePart)
    other = ImagePart(data=b"other", media_type="image/png")
    swapped = base64.b64encode(b"other").decode()
    cat = {"text": "A cat:"}
    assert await plain(transport, response.message, content=[text, other]) == [
        cat,
        picture(data=swapped),
    ]
    assert await plain(transport, response.message, content=[text]) == [cat]
    assert await plain(transport, response.message, content="A cat:") == [cat]
    doubled = [text, image, image]
    assert await plain(transport, response.message, content=doubled) == [cat, picture(), picture()]


@pytest.mark.parametrize(
    "state",
    [
        *(7, [], {}, {"parts": 7}, {"parts": []}, {"parts": [7]}, {"parts": [{"text": 7}]}),
        {"parts": [{"text": "Hello"}, {"functionCall": 7}]},
        {"parts": [{"text": "Hello"}, {"inlineData": {"sha256": "x"}}]},
    ],
)
async def test_state_that_makes_no_sense_is_not_sent(
    transport: ScriptedTransport, state: Any
) -> None:
    message = Message("assistant", "Hello", provider_state={"gemini": state})
    assert await echoed(transport, message) == [{"text": "Hello"}]


async def test_a_part_of_ones_own_may_be_signed(transport: ScriptedTransport) -> None:
    state: ProviderState = {"gemini": {"thoughtSignature": "s1"}}
    message = Message(
        "assistant", [TextPart(text="", provider_state=state), TextPart(text="Hello")]
    )
    assert await echoed(transport, message) == [signed("", "s1"), {"text": "Hello"}]


# Signatures that are refused


CORRUPTED = {
    "error": {"code": 400, "message": "Corrupted thought signature.", "status": "INVALID_ARGUMENT"}
}


def signed_history() -> list[Message]:
    made = ToolCall(
        "abcd1234",
        "add",
        {"a": 1},
        provider_state={
            "gemini": {"id": "abcd1234", "thoughtSignature": "s1"},
            "openai": {"x": 1},
        },
    )
    return [
        USER,
        Message(
            "assistant",
            [TextPart(text="Hello", provider_state={"gemini": {"thoughtSignature": "s3"}})],
            tool_calls=[made],
            provider_state={"gemini": {"parts": [signed("Hello", "s2"), call(args={"a": 1})]}},
        ),
        Message("tool", "7", tool_call_id="abcd1234"),
    ]


async def ask(transport: ScriptedTransport, made: LLMRequest, *, streamed: bool) -> str:
    if streamed:
        chunks = await read(provider(transport).stream(made))
        return "".join(chunk.text for chunk in chunks)
    return (await provider(transport).complete(made)).text


@pytest.mark.parametrize("streamed", [False, True])
async def test_signatures_of_another_model_or_key_are_left_out_and_it_is_asked_again(
    transport: ScriptedTransport, caplog: pytest.LogCaptureFixture, streamed: bool
) -> None:
    transport.answers_json(CORRUPTED, status=400)
    transport.answers(sse(answer("Good.")) if streamed else json.dumps(answer("Good.")).encode())
    context = CallContext()
    made = request(*signed_history(), context=context)
    assert await ask(transport, made, streamed=streamed) == "Good."
    first, second = (sent.body["contents"] for sent in transport.calls)
    assert first[1]["parts"] == [signed("Hello", "s2"), call(args={"a": 1})]
    assert second[1]["parts"] == [
        {"text": "Hello"},
        call(args={"a": 1}, signature="skip_thought_signature_validator"),
    ]
    assert second[2]["parts"] == [
        {"functionResponse": {"name": "add", "response": {"output": "7"}}}
    ]
    assert [entry.state for entry in context.entries] == ["not_billed", "exact"]
    assert "signatures" in caplog.text


@pytest.mark.parametrize("streamed", [False, True])
async def test_it_is_asked_again_only_once(transport: ScriptedTransport, streamed: bool) -> None:
    transport.answers_json(CORRUPTED, status=400)
    transport.answers_json(CORRUPTED, status=400)
    with pytest.raises(BadRequestError, match="Corrupted") as caught:
        await ask(transport, request(*signed_history()), streamed=streamed)
    assert caught.value.attempts == 2
    transport.answers_json(CORRUPTED, status=400)
    transport.answers_json({"error": {"code": 429, "message": "slow down"}}, status=429)
    with pytest.raises(RateLimitError) as limited:
        await ask(transport, request(*signed_history()), streamed=streamed)
    assert limited.value.attempts == 2


@pytest.mark.parametrize("streamed", [False, True])
async def test_another_refusal_is_not_asked_again(
    transport: ScriptedTransport, streamed: bool
) -> None:
    transport.answers_json({"error": {"code": 400, "message": "no"}}, status=400)
    with pytest.raises(BadRequestError):
        await ask(transport, request(*signed_history()), streamed=streamed)
    transport.answers_json(CORRUPTED, status=400)
    with pytest.raises(BadRequestError):  # there was nothing to leave out
        await ask(transport, request(), streamed=streamed)
    assert len(transport.calls) == 2


async def test_a_refusal_in_the_middle_repeats_no_text(transport: ScriptedTransport) -> None:
    goes_on = answer("Hel", finish="CONTINUATION", candidate={"continuationToken": "t1"})
    transport.answers(sse(goes_on))
    transport.answers_json(CORRUPTED, status=400)
    with pytest.raises(Exception, match="broke off") as caught:
        await ask(transport, request(*signed_history()), streamed=True)
    assert caught.value.partial.text == "Hel"  # type: ignore[attr-defined] # StreamInterruptedError
    assert len(transport.calls) == 2


async def test_leaving_a_stream_with_signatures_closes_it(transport: ScriptedTransport) -> None:
    transport.answers(sse(answer("Hel", finish=None)), sse(answer("lo")))
    chunks = provider(transport).stream(request(*signed_history()))
    assert (await anext(chunks)).text == "Hel"
    await chunks.aclose()
    assert transport.open_streams == 0
    assert transport.open_bodies == 0


# Whatever parts there are


PART = st.one_of(
    st.builds(lambda text: {"text": text}, st.text(min_size=1, max_size=3)),
    st.builds(signed, st.text(max_size=3), st.sampled_from("xyz")),
    st.builds(thought, st.text(min_size=1, max_size=3)),
    st.builds(
        lambda a, given: call(args={"a": a}, id=given), st.integers(0, 2), st.sampled_from("pq")
    ),
    st.builds(lambda s: call(signature=s), st.sampled_from("xyz")),
    st.builds(picture, st.sampled_from([None, "x", "y"])),
    st.sampled_from([CODE, RESULT, SEARCH]),
)


def merged(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbours that are nothing but text, joined."""
    made: list[dict[str, Any]] = []
    for part in parts:
        plain_text = part.keys() <= {"text", "thought"}
        if made and plain_text and made[-1].keys() == part.keys():
            made[-1] = {**part, "text": made[-1]["text"] + part["text"]}
        else:
            made.append(part)
    return made


@given(st.lists(PART, min_size=1, max_size=7))
def test_any_parts_go_back_in_their_order_with_their_signatures(
    parts: list[dict[str, Any]],
) -> None:
    codec = GeminiCodec("v1beta")
    body = json.dumps(answer(*parts)).encode()
    response = codec.parse(body, source=Source("gemini", "gemini-x", str))
    message = stored(response.message)
    made = LLMRequest([USER, message, *results(message)])
    rendered = codec.render(made, model="gemini-x", stream=False)
    assert rendered.body["contents"][1]["parts"] == merged(parts)
