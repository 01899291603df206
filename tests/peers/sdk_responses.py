"""What OpenAI's SDK is told, to call the Responses API as `requests` has it."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.peers.clients import KEY, MODELS
from tests.peers.requests import CITY, PDF, PERSON, PNG
from tests.peers.sdk_inputs import ASK, HI, NO_ARGUMENTS, SYSTEM, WHAT, Case, data_url

__all__ = ["CASES", "call"]


def responses(*items: Any, **options: Any) -> Case:
    # Without the server's memory of a conversation, its reasoning must come to the client.
    stateless = {"store": False, "include": ["reasoning.encrypted_content"]}
    typed = [{"type": "message", **item} if "role" in item else item for item in items]
    return {"model": MODELS["responses"], "input": typed, **stateless, **options}


def responses_tools(*items: Any, clock: bool = False, **options: Any) -> Case:
    # Left out, `strict` is true, and refuses a schema with an optional property.
    weather = {"name": "get_weather", "description": WHAT, "parameters": CITY}
    tools = [{"type": "function", **weather, "strict": False}]
    if clock:
        timer = {"name": "get_time", "description": "Get the time.", "parameters": NO_ARGUMENTS}
        tools.append({"type": "function", **timer, "strict": False})
    return responses(*items, tools=tools, **options)


def responses_call(id: str, city: str) -> Any:
    arguments = f'{{"city":"{city}"}}'
    return {"type": "function_call", "call_id": id, "name": "get_weather", "arguments": arguments}


def responses_result(id: str, output: str) -> Any:
    return {"type": "function_call_output", "call_id": id, "output": output}


def responses_shown(part: Any) -> Case:
    text = {"type": "input_text", "text": "What is this?"}
    return responses({"role": "user", "content": [text, part]})


CASES: dict[str, Case] = {
    "text": responses(HI),
    "system": responses(SYSTEM, HI),
    "turns": responses(SYSTEM, HI, {"role": "assistant", "content": "Hello."}, ASK),
    "tools": responses_tools(ASK, clock=True),
    "results": responses_tools(
        ASK,
        {"role": "assistant", "content": "I shall look."},
        responses_call("call_one", "Paris"),
        responses_call("call_two", "Rome"),
        responses_result("call_one", "22 degrees"),
        responses_result("call_two", "No such city."),
    ),
    "choice auto": responses_tools(ASK, tool_choice="auto"),
    "choice none": responses_tools(ASK, tool_choice="none"),
    "choice required": responses_tools(ASK, tool_choice="required"),
    "choice of one": responses_tools(
        ASK, clock=True, tool_choice={"type": "function", "name": "get_time"}
    ),
    "one call a turn": responses_tools(ASK, parallel_tool_calls=False),
    "image": responses_shown(
        {"type": "input_image", "image_url": data_url("image/png", PNG), "detail": "auto"}
    ),
    "image by url": responses_shown(
        {"type": "input_image", "image_url": "https://example.com/cat.png", "detail": "auto"}
    ),
    "file": responses_shown(
        {
            "type": "input_file",
            "filename": "paper.pdf",
            "file_data": data_url("application/pdf", PDF),
        }
    ),
    "schema": responses(
        HI,
        text={
            "format": {"type": "json_schema", "name": "answer", "schema": PERSON, "strict": True}
        },
    ),
    "reasoning": responses(HI, reasoning={"effort": "low"}),
    "temperature": responses(HI, temperature=0.5),
    "top_p": responses(HI, top_p=0.9),
    "max_tokens": responses(HI, max_output_tokens=99),
}


def call(url: str, case: Case, *, streamed: bool) -> None:
    sdk = openai.OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0)
    with sdk, pytest.raises(openai.BadRequestError):
        sdk.responses.create(**case, **({"stream": True} if streamed else {}))
