"""The schema of an output type, held against the one that the vendors' SDKs make of the same type.

Both put into words what the vendor does not enforce, each in words of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import openai
import pytest
from pydantic import BaseModel, Field

from aether.errors import BadRequestError
from tests.peers.capturing import capturing
from tests.peers.clients import KEY, MODELS, client
from tests.peers.recording import Refuser


class Address(BaseModel):
    street: str
    zip: str | None = None


class Person(BaseModel):
    """A person."""

    name: str = Field(description="In full.", max_length=40)
    age: int = Field(ge=0)
    level: Literal["low", "high"] = "low"
    address: Address
    others: list[Address] = []


def by_chat(url: str) -> Any:
    with openai.OpenAI(api_key=KEY, base_url=url, max_retries=0) as sdk:
        sdk.chat.completions.parse(
            model=MODELS["chat"],
            messages=[{"role": "user", "content": "Hi."}],
            response_format=Person,
        )


def by_responses(url: str) -> Any:
    with openai.OpenAI(api_key=KEY, base_url=url, max_retries=0) as sdk:
        sdk.responses.parse(model=MODELS["responses"], input="Hi.", text_format=Person)


def by_anthropic(url: str) -> Any:
    with anthropic.Anthropic(api_key=KEY, base_url=url, max_retries=0) as sdk:
        sdk.messages.parse(
            model=MODELS["anthropic"],
            max_tokens=100,
            messages=[{"role": "user", "content": "Hi."}],
            output_format=Person,
        )


SDKS = {"chat": by_chat, "responses": by_responses, "anthropic": by_anthropic}


def sent_by_sdk(protocol: str) -> Any:
    refused = anthropic.BadRequestError if protocol == "anthropic" else openai.BadRequestError
    with capturing() as captures:
        with pytest.raises(refused):
            SDKS[protocol](captures.url)
        return captures.take().body


async def sent_by_aether(protocol: str) -> Any:
    refuser = Refuser()
    async with client(protocol, transport=refuser) as aether:
        with pytest.raises(BadRequestError):
            await aether.complete("Hi.", output=Person)
    return refuser.take().body


def format_of(protocol: str, body: Any) -> dict[str, Any]:
    made: dict[str, Any]
    match protocol:
        case "chat":
            made = body["response_format"]["json_schema"]
        case "responses":
            made = body["text"]["format"]
        case _:
            made = body["output_config"]["format"]
    return made


def objects(schema: Any) -> Iterator[tuple[list[str], list[str], Any]]:
    """The properties of each object, which of them are required, and whether it may have others."""
    if isinstance(schema, list):
        for item in schema:
            yield from objects(item)
    elif isinstance(schema, dict):
        if "properties" in schema:
            required = sorted(schema.get("required", []))
            yield sorted(schema["properties"]), required, schema.get("additionalProperties")
        for item in schema.values():
            yield from objects(item)


@pytest.mark.parametrize("protocol", SDKS)
async def test_the_sdk_requires_the_same_of_each_object(protocol: str) -> None:
    ours = format_of(protocol, await sent_by_aether(protocol))
    theirs = format_of(protocol, sent_by_sdk(protocol))
    assert ours["schema"].keys() == theirs["schema"].keys()
    assert sorted(objects(ours["schema"])) == sorted(objects(theirs["schema"]))
    assert ours.get("strict") == theirs.get("strict")
    assert ours.get("type") == theirs.get("type")


async def test_anthropics_sdk_makes_the_same_schema_but_for_its_words() -> None:
    ours = format_of("anthropic", await sent_by_aether("anthropic"))
    theirs = format_of("anthropic", sent_by_sdk("anthropic"))
    assert wordless(ours) == wordless(theirs)


@pytest.mark.parametrize("protocol", ["chat", "responses"])
async def test_openais_sdk_makes_the_same_schema_but_for_defaults(protocol: str) -> None:
    # What has a default must be answered all the same. The SDK has the model make up a value; with
    # Aether it may answer null, and the default is taken.
    ours = format_of(protocol, await sent_by_aether(protocol))["schema"]
    theirs = format_of(protocol, sent_by_sdk(protocol))["schema"]
    for name in ("level", "others"):
        answered, null = ours["properties"][name].pop("anyOf")
        assert null == {"type": "null"}
        ours["properties"][name].update(answered)
        del theirs["properties"][name]["default"]
    # Its documentation has no length of strings among what it enforces.
    del theirs["properties"]["name"]["maxLength"]
    assert wordless(ours) == wordless(theirs)


def wordless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: wordless(item) for name, item in value.items() if name != "description"}
    return [wordless(item) for item in value] if isinstance(value, list) else value
