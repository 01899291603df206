"""Agents whose runs give a value of a type."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from aether import Aether, Agent
from aether.agent import AgentResult, StructuredResult
from aether.errors import OutputError
from aether.llm.contracts import LLMResponse, ToolCall
from aether.testing import FakeProvider


class Weather(BaseModel):
    city: str
    degrees: int


ROME = '{"city": "Rome", "degrees": 31}'
CALL = LLMResponse(
    "", "fake-model", 5, 3, [ToolCall("1", "measure", {"city": "Rome"})], "tool_calls"
)


def measure(city: str) -> int:
    return 27 + len(city)


def reporter(*answers: Any) -> tuple[Agent, Aether]:
    client = Aether(FakeProvider(responses=answers))
    return Agent("reporter", instructions="Report.", tools=[measure], client=client), client


async def test_a_result_has_the_value_and_the_whole_transcript() -> None:
    agent, client = reporter(CALL, "31", ROME)
    async with client:
        result = await agent.run("Rome?", output=Weather)
        assert isinstance(result, StructuredResult)
        assert result.output == Weather(city="Rome", degrees=31)
        assert (result.text, result.response.output) == (ROME, result.output)
        assert [message.role for message in result.messages] == [
            *("system", "user", "assistant", "tool", "assistant", "user", "assistant")
        ]
        assert result.usage.requests == client.usage.total_requests == 3


async def test_without_a_type_a_result_has_text() -> None:
    agent, client = reporter("Hot.")
    async with client:
        result = await agent.run("Rome?")
    assert type(result) is AgentResult
    assert not hasattr(result, "output")


async def test_a_run_without_an_answer_of_the_type_fails_with_its_transcript() -> None:
    agent, client = reporter(CALL, "Hot.")
    async with client:
        with pytest.raises(OutputError) as caught:
            await agent.run("Rome?", output=Weather, output_retries=0)
    assert [message.role for message in caught.value.messages] == [
        *("system", "user", "assistant", "tool", "assistant")
    ]
    assert caught.value.usage is not None
    assert caught.value.usage.requests == 2


async def test_a_stream_of_a_run_ends_with_the_value() -> None:
    agent, client = reporter(CALL, ROME)
    async with client:
        chunks = [chunk async for chunk in agent.stream("Rome?", output=Weather)]
    assert chunks[-2].partial == {"city": "Rome", "degrees": 31}
    assert chunks[-1].output == Weather(city="Rome", degrees=31)


async def test_an_agent_that_is_delegated_to_answers_in_text() -> None:
    delegated = LLMResponse(
        "", "fake-model", tool_calls=[ToolCall("1", "writer", {"task": "go"})], finish_reason="stop"
    )
    async with Aether(FakeProvider(responses=[delegated, "Done.", '{"value": "yes"}'])) as client:
        writer = Agent("writer")
        lead = Agent("lead", tools=[writer.as_tool()], client=client)
        result = await lead.run("?", output=Literal["yes", "no"])
    assert result.output == "yes"
    assert result.messages[-2].text == "Done."


async def test_runs_of_several_types_at_once_do_not_mix() -> None:
    client = Aether(FakeProvider('{"value": 1}'))
    agent = Agent("counter", client=client)
    async with client:
        first, second, third = await asyncio.gather(
            agent.run("?", output=int),
            agent.run("?", output=float | None),
            agent.run("?", output=dict[str, int]),
        )
    assert (first.output, third.output) == (1, {"value": 1})
    assert type(second.output) is float
