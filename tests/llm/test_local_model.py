"""The real engine with a real, small model: loaded once for all of these tests.

What a model of this size says is no matter: the tests hold it to shapes, counts and schemas.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from aether import Aether
from aether.errors import BadRequestError, ContextLengthError
from aether.extensions.llm.local import LocalProvider
from aether.llm.contracts import CallContext, LLMRequest, Message
from aether.tools.contracts import Tool

ADD = Tool(
    "add",
    "Add two integers.",
    {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "description": "the first number"},
            "b": {"type": "integer", "description": "the second number"},
        },
        "required": ["a", "b"],
    },
    lambda a, b: a + b,
)
WEATHER = Tool(
    "weather",
    "Get the weather in a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    print,
)


@pytest.fixture(scope="module")
def provider() -> Iterator[LocalProvider]:
    provider = LocalProvider()
    yield provider
    asyncio.run(provider.aclose())


def request(prompt: str, **fields: Any) -> LLMRequest:
    fields.setdefault("max_tokens", 16)
    fields.setdefault("seed", 1)
    return LLMRequest([Message("user", prompt)], context=CallContext(), **fields)


async def test_answer(provider: LocalProvider) -> None:
    asked = request("What is the capital of France?")
    response = await provider.complete(asked)
    assert response.text
    assert "SmolLM2" in response.model
    assert response.finish_reason in ("stop", "length")
    assert response.input_tokens is not None
    assert response.output_tokens is not None
    assert 0 < response.output_tokens <= 16
    assert asked.context is not None
    (entry,) = asked.context.entries
    assert (entry.state, entry.input_tokens) == ("exact", response.input_tokens)


async def test_same_seed_gives_the_same_answer(provider: LocalProvider) -> None:
    asked = request("Name an animal.", temperature=0.9, seed=7)
    first, second = [(await provider.complete(asked)).text for _ in range(2)]
    assert first == second


async def test_stream_comes_token_by_token(provider: LocalProvider) -> None:
    chunks = [chunk async for chunk in provider.stream(request("Tell me about the sea."))]
    last = chunks[-1].response
    assert last is not None
    assert last.output_tokens is not None
    assert len(chunks) >= last.output_tokens - 1
    assert "".join(chunk.text for chunk in chunks) == last.text


async def test_first_token_is_there_before_the_last_is_made(provider: LocalProvider) -> None:
    asked = request("Tell me about the sea.", max_tokens=64)
    async with aclosing(provider.stream(asked)) as chunks:
        await anext(aiter(chunks))
    assert asked.context is not None
    (entry,) = asked.context.entries
    assert entry.state == "estimated"
    assert entry.output_tokens is not None
    assert entry.output_tokens < 64


async def test_forced_call_has_the_arguments_of_its_schema(provider: LocalProvider) -> None:
    asked = request("What is 17 + 25?", tools=[ADD, WEATHER], tool_choice="add", max_tokens=100)
    *deltas, last = [chunk async for chunk in provider.stream(asked)]
    assert last.response is not None
    assert last.finish_reason == "tool_calls"
    (call,) = last.response.tool_calls
    assert call.name == "add"
    assert call.arguments.keys() == {"a", "b"}
    assert all(isinstance(value, int) for value in call.arguments.values())
    pieces = [delta.tool_call.arguments for delta in deltas if delta.tool_call]
    assert len(pieces) > 5
    assert json.loads("".join(pieces)) == call.arguments


async def test_with_tools_the_reply_is_an_answer_or_a_call(provider: LocalProvider) -> None:
    response = await provider.complete(
        request("Hello, who are you?", tools=[ADD, WEATHER], max_tokens=100)
    )
    (name,) = [call.name for call in response.tool_calls] or ["answer"]
    assert name in ("answer", "add", "weather")
    assert bool(response.text) != bool(response.tool_calls) or name == "answer"


async def test_result_of_a_call_can_be_answered(provider: LocalProvider) -> None:
    asked = request("What is 17 + 25?", tools=[ADD], tool_choice="add", max_tokens=100)
    called = await provider.complete(asked)
    result = Message("tool", "42", tool_call_id=called.tool_calls[0].id)
    answered = await provider.complete(
        asked.replace(messages=(*asked.messages, called.message, result), tool_choice="none")
    )
    assert answered.text
    assert answered.tool_calls == []


async def test_call_cut_at_the_limit_is_no_call(provider: LocalProvider) -> None:
    asked = request("What is 17 + 25?", tools=[ADD], tool_choice="required", max_tokens=9)
    response = await provider.complete(asked)
    assert response.finish_reason == "length"
    assert response.tool_calls == []


PERSON: dict[str, Any] = {
    "$defs": {
        "City": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 12}},
            "required": ["name"],
        }
    },
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "year": {"type": "integer", "minimum": 1000, "maximum": 2000},
        "kind": {"enum": ["person", "place"]},
        "born_in": {"anyOf": [{"$ref": "#/$defs/City"}, {"type": "null"}]},
        "code": {"type": "string", "pattern": r"^\d{2}-[a-c]$"},
    },
    "required": ["name", "year", "kind", "born_in", "code"],
    "additionalProperties": False,
}


async def test_output_follows_its_schema(provider: LocalProvider) -> None:
    asked = request(
        "Ada Lovelace was born in London in 1815.", output_schema=PERSON, max_tokens=200
    )
    response = await provider.complete(asked)
    assert response.finish_reason == "stop"
    value = json.loads(response.text)
    assert value.keys() == PERSON["properties"].keys()
    assert 1000 <= value["year"] <= 2000
    assert value["kind"] in ("person", "place")
    assert value["born_in"] is None or set(value["born_in"]) == {"name"}
    assert value["code"][2] == "-"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "exclusiveMinimum": 3, "maximum": 9, "multipleOf": 2},
        {"type": ["boolean", "null"]},
        {"allOf": [{"properties": {"a": {"const": "x"}}}, {"required": ["a"]}]},
        {"type": "array", "prefixItems": [{"type": "boolean"}, {"enum": ['"', "\\"]}]},
        {"type": "string", "pattern": '^[^"]$', "format": "email", "maxLength": 3},
        {"type": "object", "patternProperties": {"^x": {"type": "null"}}, "maxProperties": 1},
    ],
)
async def test_schema_that_the_engine_takes_wrongly_is_held_all_the_same(
    provider: LocalProvider, capfd: pytest.CaptureFixture[str], schema: dict[str, Any]
) -> None:
    outer = {"type": "object", "properties": {"v": schema}, "required": ["v"]}
    response = await provider.complete(request("JSON!", output_schema=outer, max_tokens=40))
    assert response.finish_reason == "length" or json.loads(response.text).keys() == {"v"}
    assert capfd.readouterr().err == ""


class Person(BaseModel):
    name: str = Field(max_length=20)
    year: int = Field(ge=1000, le=2000)
    kind: Literal["person", "place"]
    code: str | None = Field(default=None, pattern=r"^\d{2}$")


FORMS: list[Any] = [
    Person,
    Literal["yes", "no"],
    bool | None,
    Annotated[list[bool], Field(max_length=3)],
]


@pytest.mark.parametrize("form", FORMS)
async def test_answer_is_of_the_type_at_the_first_try(provider: LocalProvider, form: Any) -> None:
    client = Aether(provider)  # not closed: the engine is that of all these tests
    value = await client.ask("Ada Lovelace?", output=form, output_retries=0, max_tokens=200, seed=1)
    assert TypeAdapter(form).validate_python(value) == value


async def test_stream_shows_the_value_as_it_comes(provider: LocalProvider) -> None:
    client = Aether(provider)
    stream = client.stream("Ada?", output=Person, output_retries=0, max_tokens=200, seed=1)
    *deltas, final = [chunk async for chunk in stream]
    assert final.output is not None
    partials = [chunk.partial for chunk in deltas]
    assert partials[0] in ({}, None)
    assert Person.model_validate(partials[-1]) == final.output


async def test_with_tools_the_reply_is_of_the_schema_or_a_call(provider: LocalProvider) -> None:
    response = await provider.complete(
        request("Who was Ada?", tools=[ADD], output_schema=PERSON, max_tokens=200)
    )
    assert response.tool_calls or json.loads(response.text).keys() == PERSON["properties"].keys()


async def test_several_at_once(provider: LocalProvider) -> None:
    responses = await asyncio.gather(
        *(provider.complete(request(f"Count from {number}.")) for number in range(4))
    )
    assert all(response.text for response in responses)


async def test_cancelled_call_makes_room_for_the_next(provider: LocalProvider) -> None:
    calls = [
        asyncio.create_task(provider.complete(request("A long story.", max_tokens=3000)))
        for _ in range(6)
    ]
    await asyncio.sleep(0.01)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    async with asyncio.timeout(10):
        assert (await provider.complete(request("Hi", max_tokens=1))).output_tokens == 1


async def test_prompt_beyond_the_context_is_refused(provider: LocalProvider) -> None:
    with pytest.raises(ContextLengthError, match=r"4096 tokens"):
        await provider.complete(request("word " * 5000))


async def test_option_that_the_engine_refuses_is_an_error(provider: LocalProvider) -> None:
    with pytest.raises(BadRequestError, match="temperature"):
        await provider.complete(request("Hi", extra_body={"temperature": "hot"}))


async def test_stop_sequence_ends_the_text(provider: LocalProvider) -> None:
    response = await provider.complete(request("Count: 1, 2, 3", stop=[" ", ","], max_tokens=30))
    assert response.finish_reason == "stop"
    assert " " not in response.text


def test_other_loops_and_threads_use_the_same_engine(provider: LocalProvider) -> None:
    texts: list[str] = []

    def ask() -> None:
        texts.append(asyncio.run(provider.complete(request("Hi", max_tokens=2))).text)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ask()
    assert all(texts)
    assert len(texts) == 4


PROGRAM = """
import asyncio
from aether.extensions.llm.local import LocalProvider
from aether.llm.contracts import LLMRequest, Message

def request(tokens):
    return LLMRequest([Message("user", "Tell me a long story.")], max_tokens=tokens)

async def begin(provider):
    stream = provider.stream(request(3000))
    return stream, (await anext(stream)).text

provider = LocalProvider()
{body}
print("end")
"""
CLOSED = "asyncio.run(provider.complete(request(1))); asyncio.run(provider.aclose())"
FORGOTTEN = "asyncio.run(provider.complete(request(1)))"
REOPENED = f"{CLOSED}; provider = LocalProvider(); {CLOSED}"
UNDER_WAY = "loop = asyncio.new_event_loop(); left = loop.run_until_complete(begin(provider))"


@pytest.mark.parametrize("body", [CLOSED, FORGOTTEN, REOPENED, UNDER_WAY])
def test_process_ends_well_and_without_a_word(body: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "end\n", "")
