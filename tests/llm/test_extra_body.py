"""What a caller adds to a request's body takes nothing away from it."""

from __future__ import annotations

from typing import Any

import pytest

from aether.errors import InputError
from aether.extensions.llm._wire.extra import laid_over

BODY: dict[str, Any] = {
    "model": "m",
    "text": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    "tools": [{"name": "add"}],
    "thinking": {"type": "enabled", "budget_tokens": 2048},
}


@pytest.mark.parametrize(
    ("extra", "changed"),
    [
        ({}, {}),
        ({"service_tier": "flex"}, {"service_tier": "flex"}),
        ({"model": "other"}, {"model": "other"}),
        (
            {"text": {"verbosity": "low"}},
            {"text": {"format": BODY["text"]["format"], "verbosity": "low"}},
        ),
        (
            {"text": {"format": {"strict": True}}},
            {"text": {"format": {**BODY["text"]["format"], "strict": True}}},
        ),
        ({"text": None}, {"text": None}),
        ({"tools": [{"type": "search"}]}, {"tools": [{"name": "add"}, {"type": "search"}]}),
        ({"tools": ({"type": "search"},)}, {"tools": [{"name": "add"}, {"type": "search"}]}),
        ({"thinking": {"budget_tokens": 1}}, {"thinking": {"type": "enabled", "budget_tokens": 1}}),
        ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
    ],
)
def test_objects_are_merged_and_tools_added(extra: dict[str, Any], changed: dict[str, Any]) -> None:
    before = repr(BODY)
    assert laid_over(BODY, extra, stream=False) == {**BODY, **changed}
    assert repr(BODY) == before


def test_tools_of_a_request_without_any_are_those_that_are_added() -> None:
    assert laid_over({"model": "m"}, {"tools": [1]}, stream=True) == {"model": "m", "tools": [1]}


@pytest.mark.parametrize("stream", [True, False])
def test_whether_it_streams_is_for_the_call_to_say(stream: bool) -> None:
    assert laid_over({}, {"stream": stream}, stream=stream) == {"stream": stream}
    with pytest.raises(InputError, match="stream"):
        laid_over({}, {"stream": not stream}, stream=stream)
