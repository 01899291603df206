"""Sound and images that a model made, and thoughts inside the content: read, and sent back."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from aether.errors import InputError, ProtocolError
from aether.extensions.llm._vendors import OPENAI, VENDORS, Vendor
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.openai_chat import ChatAssembly, ChatCodec, parse_response
from aether.llm.content import AudioPart, ContentPart, ImagePart, TextPart
from aether.llm.contracts import LLMRequest, LLMResponse, Message, StreamChunk

OPENROUTER = VENDORS["openrouter"]
MISTRAL = VENDORS["mistral"]
WAV = b"RIFF....WAVE"
PNG = "data:image/png;base64," + b64encode(b"\x89PNG").decode()


def source(vendor: Vendor) -> Source:
    return Source(provider=vendor.name, model="m", redact=str)


def parse(message: dict[str, Any], vendor: Vendor = OPENAI) -> LLMResponse:
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    return parse_response(json.dumps(body).encode(), source=source(vendor), vendor=vendor)


def assemble(
    *deltas: dict[str, Any], vendor: Vendor = OPENAI
) -> tuple[list[StreamChunk], LLMResponse]:
    """The chunks and the response of a stream; a delta `{}` is the finish."""
    assembly = ChatAssembly(source=source(vendor), vendor=vendor)
    choices = [
        {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"} for delta in deltas
    ]
    events = [json.dumps({"choices": [choice]}).encode() for choice in choices]
    chunks = [chunk for event in events for chunk in assembly.feed(event)]
    return chunks, assembly.finish()


def parts(response: LLMResponse) -> list[ContentPart]:
    assert isinstance(response.message.content, list)
    return response.message.content


def sent_back(response: LLMResponse, vendor: Vendor = OPENAI, *, now: float = 0) -> dict[str, Any]:
    stored = Message.model_validate_json(response.message.model_dump_json())
    codec = ChatCodec(vendor, clock=lambda: now)
    request = LLMRequest([Message("user", "hi"), stored, Message("user", "go on")])
    message: dict[str, Any] = codec.render(request, model="m", stream=False).body["messages"][1]
    return message


def spoken(**changes: Any) -> dict[str, Any]:
    audio = {
        "id": "audio_1",
        "data": b64encode(WAV).decode(),
        "transcript": "Hello",
        "expires_at": 100,
    }
    return {"content": None, "audio": {**audio, **changes}}


def test_a_spoken_answer_is_its_transcript_and_its_sound() -> None:
    response = parse(spoken())
    assert response.text == "Hello"
    text, sound = parts(response)
    assert isinstance(text, TextPart)
    assert text.text == "Hello"
    assert isinstance(sound, AudioPart)
    assert (sound.data, sound.media_type) == (WAV, "audio/wav")


@pytest.mark.parametrize(
    ("begins", "media_type"), [(b"ID3", "audio/mpeg"), (b"OggS", "audio/ogg"), (b"x", "audio/pcm")]
)
def test_the_kind_of_sound_is_told_by_how_it_begins(begins: bytes, media_type: str) -> None:
    sound = parts(parse(spoken(data=b64encode(begins).decode())))[-1]
    assert isinstance(sound, AudioPart)
    assert sound.media_type == media_type


def test_sound_goes_back_by_its_id_while_the_server_has_it() -> None:
    response = parse(spoken())
    assert sent_back(response, now=99) == {"role": "assistant", "audio": {"id": "audio_1"}}
    assert sent_back(response, now=100) == {"role": "assistant", "content": "Hello"}
    assert sent_back(response, OPENROUTER) == {"role": "assistant", "content": "Hello"}


def test_text_beside_sound_goes_back_with_it() -> None:
    response = parse({**spoken(), "content": "Listen. "})
    assert response.text == "Listen. Hello"
    assert sent_back(response) == {
        "role": "assistant",
        "content": "Listen. ",
        "audio": {"id": "audio_1"},
    }


@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 100])
def test_streamed_sound_is_put_together_however_it_is_cut(size: int) -> None:
    data = b64encode(WAV).decode()
    pieces = [{"audio": {"data": data[at : at + size]}} for at in range(0, len(data), size)]
    chunks, response = assemble(
        {"audio": {"id": "audio_1", "transcript": "Hel"}},
        *pieces,
        {"audio": {"expires_at": 100}},
        {"audio": {"transcript": "lo"}},
        {},
    )
    assert [chunk.text for chunk in chunks] == ["Hel", "lo"]
    assert response.text == "Hello"
    sound = parts(response)[-1]
    assert isinstance(sound, AudioPart)
    assert sound.data == WAV
    assert sent_back(response, now=99) == {"role": "assistant", "audio": {"id": "audio_1"}}
    assert sent_back(response, now=101) == {"role": "assistant", "content": "Hello"}


def test_the_last_piece_of_sound_comes_after_the_finish_and_says_when_it_expires() -> None:
    sound = b64encode(WAV).decode()
    _, response = assemble(
        {"audio": {"id": "audio_1", "data": sound, "transcript": "Hello"}},
        {},
        {"audio": {"expires_at": 100}},
    )
    assert sent_back(response, now=101) == {"role": "assistant", "content": "Hello"}


def test_sound_counts_as_something_that_was_given() -> None:
    assembly = ChatAssembly(source=source(OPENAI), vendor=OPENAI)
    audio = {"data": b64encode(WAV).decode(), "transcript": "Hello"}
    choice = {"index": 0, "delta": {"audio": audio}}
    assembly.feed(json.dumps({"choices": [choice]}).encode())
    assert assembly.has_content
    assert assembly.characters == len("Hello")
    assert assembly.partial().text == "Hello"


def test_streamed_sound_whose_pieces_are_padded_is_put_together() -> None:
    pieces = [{"audio": {"data": b64encode(WAV[at : at + 4]).decode()}} for at in (0, 4, 8)]
    _, response = assemble(*pieces, {})
    sound = parts(response)[-1]
    assert isinstance(sound, AudioPart)
    assert sound.data == WAV


@pytest.mark.parametrize("data", ["####", "A=AA", "QUJ"])
def test_sound_that_is_no_base64_is_an_error(data: str) -> None:
    with pytest.raises(ProtocolError, match="sound"):
        parse(spoken(data=data))
    with pytest.raises(ProtocolError, match="sound") as caught:
        assemble({"content": "Hi"}, {"audio": {"data": data}}, {})
    assert data != "QUJ" or (caught.value.partial and caught.value.partial.text == "Hi")


def test_images_that_a_model_made_are_parts_of_its_message() -> None:
    image = {"type": "image_url", "image_url": {"url": PNG}}
    message = {"content": "Here:", "images": [image]}
    response = parse(message, OPENROUTER)
    assert response.text == "Here:"
    part = parts(response)[1]
    assert isinstance(part, ImagePart)
    assert (part.data, part.media_type) == (b"\x89PNG", "image/png")
    assert sent_back(response, OPENROUTER) == {"role": "assistant", **message}


def test_streamed_images_are_kept_once() -> None:
    image = {"type": "image_url", "image_url": {"url": PNG}}
    _, response = assemble({"images": [image]}, {"images": [image]}, {}, vendor=OPENROUTER)
    (part,) = parts(response)
    assert isinstance(part, ImagePart)
    assert response.text == ""
    assert response.finish_reason == "stop"


def test_an_image_alone_is_an_answer() -> None:
    choice = {"message": {"images": [{"image_url": PNG}]}, "finish_reason": None}
    body = json.dumps({"choices": [choice]}).encode()
    response = parse_response(body, source=source(OPENROUTER), vendor=OPENROUTER)
    assert [part.type for part in parts(response)] == ["image"]
    image = {"type": "image_url", "image_url": {"url": PNG}}
    assert sent_back(response, OPENROUTER) == {
        "role": "assistant",
        "content": "",
        "images": [image],
    }


def test_an_image_goes_back_to_no_other_server() -> None:
    response = parse({"content": "", "images": [{"image_url": {"url": PNG}}]}, OPENROUTER)
    with pytest.raises(InputError, match="image"):
        sent_back(response, OPENAI)


@pytest.mark.parametrize("image", [{}, {"image_url": {"url": "data:;base64,#"}}, "x"])
def test_an_image_that_cannot_be_read_is_an_error(image: Any) -> None:
    with pytest.raises(ProtocolError, match="image"):
        parse({"content": "", "images": [image]})


THOUGHT = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}], "signature": "s"},
    {"type": "text", "text": "Four"},
]


def test_a_thought_inside_the_content_goes_back_where_it_was() -> None:
    response = parse({"content": THOUGHT}, MISTRAL)
    assert (response.text, response.reasoning) == ("Four", "Hm.")
    assert sent_back(response, MISTRAL) == {"role": "assistant", "content": THOUGHT}
    assert sent_back(response, OPENROUTER) == {"role": "assistant", "content": "Four"}


def test_a_thought_goes_back_with_the_text_that_was_stored_for_it() -> None:
    message = parse({"content": THOUGHT}, MISTRAL).message
    for text, content in (("Four", THOUGHT), ("Five", "Five")):
        edited = message.model_copy(update={"content": text})
        codec = ChatCodec(MISTRAL)
        body = codec.render(LLMRequest([edited]), model="m", stream=False).body
        assert body["messages"] == [{"role": "assistant", "content": content}]


def test_what_goes_back_is_a_copy() -> None:
    message = parse({"content": THOUGHT}, MISTRAL).message
    before = message.model_dump_json()
    body = ChatCodec(MISTRAL).render(LLMRequest([message]), model="m", stream=False).body
    body["messages"][0]["content"][0]["more"] = 1
    assert message.model_dump_json() == before


def test_a_streamed_thought_is_put_together_before_it_goes_back() -> None:
    def thinking(text: str, **more: Any) -> dict[str, Any]:
        part = {"type": "thinking", "thinking": [{"type": "text", "text": text}], **more}
        return {"content": [part]}

    chunks, response = assemble(
        {"role": "assistant", "content": ""},
        thinking("H"),
        thinking("m.", signature="s"),
        {"content": [{"type": "text", "text": "Fo"}]},
        {"content": "ur"},
        {},
        vendor=MISTRAL,
    )
    assert "".join(chunk.text for chunk in chunks) == "Four"
    assert response.reasoning == "Hm."
    assert sent_back(response, MISTRAL) == {"role": "assistant", "content": THOUGHT}


def test_text_before_a_thought_goes_back_before_it() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    _, response = assemble({"content": "So: "}, {"content": [thinking]}, {}, vendor=MISTRAL)
    assert sent_back(response, MISTRAL)["content"] == [{"type": "text", "text": "So: "}, thinking]


def test_text_in_a_list_is_text() -> None:
    text = {"type": "text", "text": "b"}
    _, response = assemble({"content": "a"}, {"content": [text]}, {}, vendor=MISTRAL)
    assert response.text == "ab"
    assert response.message == Message("assistant", "ab")
