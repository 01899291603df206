"""Requests of every kind, neutral: each protocol's bodies are made of the same ones."""

from __future__ import annotations

from aether import Message, Tool
from aether.llm.contracts import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMRequest,
    TextPart,
    ToolCall,
)

__all__ = ["PERSON", "REQUESTS"]

PNG = b"\x89PNG\r\n\x1a\n of a cat"
PDF = b"%PDF-1.7 of a paper"
WAV = b"RIFF\x24\x00\x00\x00WAVE of a word"

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Where."}},
    "required": ["city"],
    "additionalProperties": False,
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WEATHER = Tool("get_weather", "Get the weather in a city.", CITY, print)
CLOCK = Tool("get_time", "Get the time.", {"type": "object", "properties": {}}, print)

HI = Message("user", "Hi.")
SYSTEM = Message("system", "Be brief.")
ASK = Message("user", "Compare Paris and Rome.")
CALLS = Message(
    "assistant",
    "I shall look.",
    tool_calls=[
        ToolCall("call_one", "get_weather", {"city": "Paris"}),
        ToolCall("call_two", "get_weather", {"city": "Rome"}),
    ],
)
RESULTS = (
    Message("tool", "22 degrees", tool_call_id="call_one"),
    Message("tool", "No such city.", tool_call_id="call_two", is_error=True),
)


def shown(*parts: TextPart | ImagePart | FilePart | AudioPart) -> LLMRequest:
    return LLMRequest([Message("user", [TextPart(text="What is this?"), *parts])])


REQUESTS = {
    "text": LLMRequest([HI]),
    "system": LLMRequest([SYSTEM, HI]),
    "turns": LLMRequest([SYSTEM, HI, Message("assistant", "Hello."), ASK]),
    "tools": LLMRequest([ASK], tools=[WEATHER, CLOCK]),
    "results": LLMRequest([ASK, CALLS, *RESULTS], tools=[WEATHER]),
    "results and more": LLMRequest(
        [ASK, CALLS, *RESULTS, Message("assistant", "Paris it is."), HI], tools=[WEATHER]
    ),
    "choice auto": LLMRequest([ASK], tools=[WEATHER], tool_choice="auto"),
    "choice none": LLMRequest([ASK], tools=[WEATHER], tool_choice="none"),
    "choice required": LLMRequest([ASK], tools=[WEATHER], tool_choice="required"),
    "choice of one": LLMRequest([ASK], tools=[WEATHER, CLOCK], tool_choice="get_time"),
    "one call a turn": LLMRequest([ASK], tools=[WEATHER], parallel_tool_calls=False),
    "image": shown(ImagePart(data=PNG, media_type="image/png")),
    "image by url": shown(ImagePart(url="https://example.com/cat.png", media_type="image/png")),
    "file": shown(FilePart(data=PDF, media_type="application/pdf", name="paper.pdf")),
    "audio": shown(AudioPart(data=WAV, media_type="audio/wav")),
    "schema": LLMRequest([HI], output_schema=PERSON),
    "reasoning": LLMRequest([HI], reasoning="low"),
    "no reasoning": LLMRequest([HI], reasoning="none"),
    "temperature": LLMRequest([HI], temperature=0.5),
    "top_p": LLMRequest([HI], top_p=0.9),
    "seed": LLMRequest([HI], seed=7),
    "stop": LLMRequest([HI], stop=["END", "STOP"]),
    "max_tokens": LLMRequest([HI], max_tokens=99),
}
