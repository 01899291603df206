"""What Anthropic's SDK is told, to call its Messages API as `requests` has it."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.peers.clients import KEY, MODELS
from tests.peers.requests import CITY, PDF, PERSON, PNG
from tests.peers.sdk_inputs import ASK, HI, NO_ARGUMENTS, WHAT, Case, base64

__all__ = ["CASES", "call"]


def messages(*turns: Any, **options: Any) -> Case:
    # The API requires a limit: the highest for which its SDK needs no stream.
    return {"max_tokens": 20_000, "model": MODELS["anthropic"], "messages": list(turns), **options}


def messages_tools(*turns: Any, clock: bool = False, **options: Any) -> Case:
    tools = [{"name": "get_weather", "description": WHAT, "input_schema": CITY}]
    if clock:
        timer = {"name": "get_time", "description": "Get the time.", "input_schema": NO_ARGUMENTS}
        tools.append(timer)
    return messages(*turns, tools=tools, **options)


def messages_call(id: str, city: str) -> Any:
    return {"type": "tool_use", "id": id, "name": "get_weather", "input": {"city": city}}


def messages_shown(part: Any) -> Case:
    return messages({"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]})


CASES: dict[str, Case] = {
    "text": messages(HI),
    "system": messages(HI, system="Be brief."),
    "turns": messages(HI, {"role": "assistant", "content": "Hello."}, ASK, system="Be brief."),
    "tools": messages_tools(ASK, clock=True),
    "results": messages_tools(
        ASK,
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I shall look."},
                messages_call("call_one", "Paris"),
                messages_call("call_two", "Rome"),
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_one", "content": "22 degrees"},
                {
                    "type": "tool_result",
                    "tool_use_id": "call_two",
                    "is_error": True,
                    "content": "No such city.",
                },
            ],
        },
    ),
    "choice auto": messages_tools(ASK, tool_choice={"type": "auto"}),
    "choice none": messages_tools(ASK, tool_choice={"type": "none"}),
    "choice required": messages_tools(ASK, tool_choice={"type": "any"}),
    "choice of one": messages_tools(
        ASK, clock=True, tool_choice={"type": "tool", "name": "get_time"}
    ),
    "one call a turn": messages_tools(
        ASK, tool_choice={"type": "auto", "disable_parallel_tool_use": True}
    ),
    "image": messages_shown(
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": base64(PNG)},
        }
    ),
    "image by url": messages_shown(
        {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}}
    ),
    "file": messages_shown(
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": base64(PDF)},
            "title": "paper.pdf",
        }
    ),
    "schema": messages(HI, output_config={"format": {"type": "json_schema", "schema": PERSON}}),
    "reasoning": messages(
        HI,
        # Today's models leave the text of their thinking out unless it is asked for.
        thinking={"type": "adaptive", "display": "summarized"},
        output_config={"effort": "low"},
    ),
    "no reasoning": messages(HI, thinking={"type": "disabled"}),
    "stop": messages(HI, stop_sequences=["END", "STOP"]),
    "max_tokens": messages(HI, max_tokens=99),
}


def call(url: str, case: Case, *, streamed: bool) -> None:
    sdk = anthropic.Anthropic(api_key=KEY, base_url=url, max_retries=0)
    # In a stream more may be asked for.
    more = {"stream": True, "max_tokens": 64_000} if streamed else {}
    with sdk, pytest.raises(anthropic.BadRequestError):
        sdk.messages.create(**{**case, **more})
