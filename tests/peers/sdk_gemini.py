"""What Google's SDK is told, to call `generateContent` as `requests` has it."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Any

import pytest
from google import genai
from google.genai import errors
from google.genai import types as t

from tests.peers.clients import KEY, MODELS
from tests.peers.requests import CITY, PDF, PERSON, PNG, WAV
from tests.peers.sdk_inputs import WHAT, Case

__all__ = ["CASES", "call"]


def generate(*contents: Any, **config: Any) -> Case:
    return {
        "model": MODELS["gemini"],
        "contents": list(contents),
        "config": t.GenerateContentConfig(**config) if config else None,
    }


def generate_tools(*contents: Any, clock: bool = False, **config: Any) -> Case:
    declared = [
        t.FunctionDeclaration(name="get_weather", description=WHAT, parameters_json_schema=CITY)
    ]
    if clock:  # an object without properties is left out
        declared.append(t.FunctionDeclaration(name="get_time", description="Get the time."))
    return generate(*contents, tools=[t.Tool(function_declarations=declared)], **config)


def chosen(mode: str, *names: str) -> Any:
    allowed = list(names) or None
    calling = t.FunctionCallingConfig(mode=mode, allowed_function_names=allowed)
    return t.ToolConfig(function_calling_config=calling)


def said(role: str, *parts: Any) -> Any:
    made = [t.Part(text=part) if isinstance(part, str) else part for part in parts]
    return t.Content(role=role, parts=made)


# Gemini 3 refuses a call without the signature that came with it, unless it is told that there is
# none. The words are the vendor's, and the SDK takes a signature decoded.
UNSIGNED = urlsafe_b64decode("skip_thought_signature_validator")


def generate_call(city: str, signature: bytes | None = None) -> Any:
    call = t.FunctionCall(name="get_weather", args={"city": city})
    return t.Part(function_call=call, thought_signature=signature)


def generate_result(**response: str) -> Any:
    return t.Part.from_function_response(name="get_weather", response=response)


GEMINI_HI = said("user", "Hi.")
GEMINI_ASK = said("user", "Compare Paris and Rome.")
BRIEF = t.Content(parts=[t.Part(text="Be brief.")])

CASES: dict[str, Case] = {
    "text": generate(GEMINI_HI),
    "system": generate(GEMINI_HI, system_instruction=BRIEF),
    "turns": generate(GEMINI_HI, said("model", "Hello."), GEMINI_ASK, system_instruction=BRIEF),
    "tools": generate_tools(GEMINI_ASK, clock=True),
    "results": generate_tools(
        GEMINI_ASK,
        said("model", "I shall look.", generate_call("Paris", UNSIGNED), generate_call("Rome")),
        said(
            "user",
            generate_result(output="22 degrees"),
            generate_result(error="No such city."),
        ),
    ),
    "choice auto": generate_tools(GEMINI_ASK, tool_config=chosen("AUTO")),
    "choice none": generate_tools(GEMINI_ASK, tool_config=chosen("NONE")),
    "choice required": generate_tools(GEMINI_ASK, tool_config=chosen("ANY")),
    "choice of one": generate_tools(GEMINI_ASK, clock=True, tool_config=chosen("ANY", "get_time")),
    "image": generate(
        said("user", "What is this?", t.Part.from_bytes(data=PNG, mime_type="image/png"))
    ),
    "image by url": generate(
        said(
            "user",
            "What is this?",
            t.Part.from_uri(file_uri="https://example.com/cat.png", mime_type="image/png"),
        )
    ),
    "file": generate(
        said("user", "What is this?", t.Part.from_bytes(data=PDF, mime_type="application/pdf"))
    ),
    "audio": generate(
        said("user", "What is this?", t.Part.from_bytes(data=WAV, mime_type="audio/wav"))
    ),
    "schema": generate(
        GEMINI_HI, response_mime_type="application/json", response_json_schema=PERSON
    ),
    "reasoning": generate(
        # Thoughts are shown where they were asked for.
        GEMINI_HI,
        thinking_config=t.ThinkingConfig(thinking_level="LOW", include_thoughts=True),
    ),
    "temperature": generate(GEMINI_HI, temperature=0.5),
    "top_p": generate(GEMINI_HI, top_p=0.9),
    "seed": generate(GEMINI_HI, seed=7),
    "stop": generate(GEMINI_HI, stop_sequences=["END", "STOP"]),
    "max_tokens": generate(GEMINI_HI, max_output_tokens=99),
}


def call(url: str, case: Case, *, streamed: bool) -> None:
    options = t.HttpOptions(base_url=url, api_version="v1beta")
    sdk = genai.Client(api_key=KEY, http_options=options)
    generate = sdk.models.generate_content_stream if streamed else sdk.models.generate_content
    with sdk, pytest.raises(errors.ClientError):
        list(generate(**case))
