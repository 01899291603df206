"""What cannot work is refused where it is given, and says what would."""

from __future__ import annotations

from typing import Any

import pytest

from aether import Aether, Agent
from aether.errors import ConfigurationError, InputError
from aether.events import EventBus
from aether.memory import InMemorySessionStore
from aether.registry import Registry
from aether.testing import FakeProvider


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory_store": object()}, "load, save, delete and exists"),
        ({"memory_store": InMemorySessionStore}, "an instance"),
        ({"events": 5}, "EventBus"),
        ({"tool_middleware": 5}, "list of async functions"),
        ({"tool_middleware": [5]}, "list of async functions"),
    ],
)
def test_a_client_refuses_a_part_of_a_wrong_type(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        Aether(FakeProvider(), **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"client": 5}, "an Aether, not int"),
        ({"tools": "x"}, "sequence"),
        ({"tools": 5}, "sequence"),
    ],
)
def test_an_agent_refuses_a_part_of_a_wrong_type(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        Agent("a", **options)


@pytest.mark.parametrize("tools", [5, "add", True])
async def test_tools_that_are_no_sequence_say_so(tools: Any) -> None:
    async with Aether(FakeProvider()) as client:
        with pytest.raises(TypeError, match="sequence"):
            await client.ask("hi", tools=tools)


@pytest.mark.parametrize(
    "options", [{"temperature": -1}, {"top_p": 1.5}, {"top_p": -0.1}, {"max_tokens": 0}]
)
async def test_a_knob_out_of_its_range_is_refused_before_anything_is_sent(
    options: dict[str, Any],
) -> None:
    fake = FakeProvider()
    async with Aether(fake) as client:
        with pytest.raises(InputError, match=next(iter(options))):
            await client.ask("hi", **options)
    assert fake.requests == []


def test_an_unknown_event_is_refused_before_it_decorates() -> None:
    with pytest.raises(ConfigurationError, match=r"request\.start"):
        EventBus().on("request.strat")


def test_a_fake_with_a_wrong_answer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="responses"):
        FakeProvider(5)  # type: ignore[arg-type] # the point of the test


@pytest.mark.parametrize(("kind", "name"), [(5, "x"), ("k", 5), ("", "x"), ("k", "")])
def test_a_registration_needs_strings(kind: Any, name: Any) -> None:
    with pytest.raises(ConfigurationError, match="strings"):
        Registry().add(kind, name, object())
