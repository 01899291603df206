"""What OpenAI's SDK is told, to call Chat Completions as `requests` has it."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.peers.clients import KEY, MODELS
from tests.peers.requests import CITY, PDF, PERSON, PNG, WAV
from tests.peers.sdk_inputs import ASK, HI, NO_ARGUMENTS, SYSTEM, WHAT, Case, base64, data_url

__all__ = ["CASES", "call"]


def chat(*messages: Any, **options: Any) -> Case:
    return {"model": MODELS["chat"], "messages": list(messages), **options}


def chat_tools(*messages: Any, clock: bool = False, **options: Any) -> Case:
    described = {"name": "get_weather", "description": WHAT, "parameters": CITY}
    tools = [{"type": "function", "function": described}]
    if clock:
        timer = {"name": "get_time", "description": "Get the time.", "parameters": NO_ARGUMENTS}
        tools.append({"type": "function", "function": timer})
    # This model takes tools here only without reasoning, as the vendor's documentation has it.
    return chat(*messages, tools=tools, reasoning_effort="none", **options)


def chat_call(id: str, city: str) -> Any:
    arguments = f'{{"city":"{city}"}}'
    return {
        "id": id,
        "type": "function",
        "function": {"name": "get_weather", "arguments": arguments},
    }


CHAT_CALLS = {
    "role": "assistant",
    "content": "I shall look.",
    "tool_calls": [chat_call("call_one", "Paris"), chat_call("call_two", "Rome")],
}
CHAT_RESULTS = (
    {"role": "tool", "tool_call_id": "call_one", "content": "22 degrees"},
    {"role": "tool", "tool_call_id": "call_two", "content": "No such city."},
)


def chat_shown(part: Any) -> Case:
    return chat({"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]})


CASES: dict[str, Case] = {
    "text": chat(HI),
    "system": chat(SYSTEM, HI),
    "turns": chat(SYSTEM, HI, {"role": "assistant", "content": "Hello."}, ASK),
    "tools": chat_tools(ASK, clock=True),
    "results": chat_tools(ASK, CHAT_CALLS, *CHAT_RESULTS),
    "choice auto": chat_tools(ASK, tool_choice="auto"),
    "choice none": chat_tools(ASK, tool_choice="none"),
    "choice required": chat_tools(ASK, tool_choice="required"),
    "choice of one": chat_tools(
        ASK, clock=True, tool_choice={"type": "function", "function": {"name": "get_time"}}
    ),
    "one call a turn": chat_tools(ASK, parallel_tool_calls=False),
    "image": chat_shown({"type": "image_url", "image_url": {"url": data_url("image/png", PNG)}}),
    "image by url": chat_shown(
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    ),
    "file": chat_shown(
        {
            "type": "file",
            "file": {"filename": "paper.pdf", "file_data": data_url("application/pdf", PDF)},
        }
    ),
    "audio": chat_shown(
        {"type": "input_audio", "input_audio": {"data": base64(WAV), "format": "wav"}}
    ),
    "schema": chat(
        HI,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": PERSON, "strict": True},
        },
    ),
    "reasoning": chat(HI, reasoning_effort="low"),
    "temperature": chat(HI, temperature=0.5),
    "top_p": chat(HI, top_p=0.9),
    "seed": chat(HI, seed=7),
    "stop": chat(HI, stop=["END", "STOP"]),
    "max_tokens": chat(HI, max_completion_tokens=99),
}


def call(url: str, case: Case, *, streamed: bool) -> None:
    sdk = openai.OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0)
    # Without this option a stream ends without its usage.
    more = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    with sdk, pytest.raises(openai.BadRequestError):
        sdk.chat.completions.create(**case, **more)
