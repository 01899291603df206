"""What Aether sends, held against the types that the vendors' SDKs give to requests."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from aether.errors import InputError
from tests.peers.clients import PROTOCOLS, asked
from tests.peers.oracles import check_body
from tests.peers.requests import REQUESTS

# What a protocol has no place for is refused before it is sent.
REFUSED = {("responses", "audio"), ("responses", "stop"), ("anthropic", "audio")}
# API version 2026-10-21 took these fields away, and the SDK with it. Values that the caller chose
# are sent all the same: it is for the server to refuse them, for older models know them.
SENT_ALL_THE_SAME = {("anthropic", "temperature"), ("anthropic", "top_p")}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_body_has_the_type_that_the_sdk_gives_it(
    protocol: str, name: str, streamed: bool
) -> None:
    if (protocol, name) in REFUSED:
        with pytest.raises(InputError):
            await asked(protocol, REQUESTS[name], streamed=streamed)
        return
    body = (await asked(protocol, REQUESTS[name], streamed=streamed)).body
    if (protocol, name) in SENT_ALL_THE_SAME:
        del body[name]
    check_body(protocol, body, streamed=streamed)


WRONG: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {"messages": [], "model": "m", "top_k": 1},
        {"messages": [{"role": "user", "content": [{"type": "text", "txt": "hi"}]}], "model": "m"},
        {"messages": [{"role": "tool", "content": "42"}], "model": "m"},
    ],
    "responses": [
        {"input": "hi", "model": "m", "max_tokens": 1},
        {"input": [{"type": "function_call", "name": "add"}], "model": "m"},
    ],
    "anthropic": [
        {"messages": [], "model": "m"},
        {"messages": [], "model": "m", "max_tokens": 1, "seed": 1},
        {
            "messages": [{"role": "user", "content": [{"type": "text", "txt": "hi"}]}],
            "model": "m",
            "max_tokens": 1,
        },
    ],
    "gemini": [
        {"contents": [], "seed": 1},
        {"contents": [{"role": "user", "parts": [{"txt": "hi"}]}]},
    ],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_oracle_sees_what_is_wrong(protocol: str) -> None:
    for body in WRONG[protocol]:
        with pytest.raises(ValidationError):
            check_body(protocol, body)
