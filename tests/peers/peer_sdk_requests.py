"""What Aether sends, held against what the vendors' SDKs send of the same: path, headers and body.

Each SDK is told the same as Aether. Where Aether says more by itself, the SDK is told that, too,
with the reason beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from google import genai

from tests.peers import sdk_anthropic, sdk_chat, sdk_gemini, sdk_responses
from tests.peers.capturing import Captures, capturing
from tests.peers.clients import KEY, PROTOCOLS, asked
from tests.peers.gemini_body import GeminiBody
from tests.peers.requests import REQUESTS

SDKS: dict[str, Any] = {
    "chat": sdk_chat,
    "responses": sdk_responses,
    "anthropic": sdk_anthropic,
    "gemini": sdk_gemini,
}
CASES = [(protocol, name) for protocol, sdk in SDKS.items() for name in sdk.CASES]


@pytest.fixture(scope="module")
def captures() -> Iterator[Captures]:
    with capturing() as captured:
        yield captured


@pytest.mark.parametrize(("protocol", "name"), CASES)
async def test_the_sdk_sends_the_same_body(protocol: str, name: str, captures: Captures) -> None:
    ours = await asked(protocol, REQUESTS[name])
    sdk = SDKS[protocol]
    sdk.call(captures.url, sdk.CASES[name], streamed=False)
    theirs = captures.take()
    assert meaning(protocol, ours.body) == meaning(protocol, theirs.body)


def meaning(protocol: str, body: Any) -> Any:
    """What a body says. Gemini takes two spellings of a name, and its SDK mixes them."""
    if protocol != "gemini":
        return body
    said = GeminiBody.model_validate(body).model_dump(exclude_none=True)
    if not said.get("generation_config"):
        said.pop("generation_config", None)
    return said


# What the SDKs call where they are told no other address.
HOSTS = {
    "chat": "https://api.openai.com",
    "responses": "https://api.openai.com",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
}
HEADERS = ("authorization", "x-api-key", "x-goog-api-key", "anthropic-version", "anthropic-beta")


def test_the_sdks_call_these_hosts() -> None:
    with openai.OpenAI(api_key=KEY) as sdk:
        assert str(sdk.base_url) == HOSTS["chat"] + "/v1/"
    with anthropic.Anthropic(api_key=KEY) as sdk:
        assert str(sdk.base_url) == HOSTS["anthropic"]
    with genai.Client(api_key=KEY) as sdk:
        assert sdk._api_client._http_options.base_url == HOSTS["gemini"] + "/"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_sdk_calls_the_same_address_with_the_same_key_and_version(
    protocol: str, streamed: bool, captures: Captures
) -> None:
    ours = await asked(protocol, REQUESTS["text"], streamed=streamed)
    sdk = SDKS[protocol]
    sdk.call(captures.url, sdk.CASES["text"], streamed=streamed)
    theirs = captures.take()
    assert ours.url == HOSTS[protocol] + theirs.url
    assert meaning(protocol, ours.body) == meaning(protocol, theirs.body)
    for name in HEADERS:
        assert ours.headers.get(name) == theirs.headers.get(name), name
    assert ours.headers["content-type"] == theirs.headers["content-type"]
