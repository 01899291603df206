"""Agents on their own: instructions, options, results, the default client."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aether import Aether, Agent
from aether import agent as agent_module
from aether.errors import (
    AetherError,
    ClientClosedError,
    ConfigurationError,
    ProviderError,
    ToolLoopError,
)
from aether.llm.contracts import LLMRequest, LLMResponse, Message, ToolCall
from aether.testing import FakeProvider


def calling(*names: str) -> LLMResponse:
    return LLMResponse(
        text="",
        model="fake",
        input_tokens=10,
        output_tokens=5,
        tool_calls=[ToolCall(f"c{i}", name, {}) for i, name in enumerate(names)],
        finish_reason="tool_calls",
    )


def saying(text: str) -> LLMResponse:
    return LLMResponse(
        text=text, model="fake", input_tokens=10, output_tokens=5, finish_reason="stop"
    )


def ping() -> str:
    return "pong"


@pytest.fixture
def fresh_default_client() -> Iterator[None]:
    agent_module._default_client.cache_clear()
    yield
    agent_module._default_client.cache_clear()


@pytest.mark.parametrize(
    "instructions", ["Be brief.", "  two\n\nlines {with} braces\t\n", "说中文"]
)
async def test_instructions_go_word_for_word_as_the_first_system_message(instructions: str) -> None:
    fake = FakeProvider()
    async with Aether(fake) as client:
        await Agent("a", instructions=instructions, client=client).run_text("hi")
    assert fake.requests[0].messages == (Message("system", instructions), Message("user", "hi"))


async def test_without_instructions_there_is_no_system_message() -> None:
    fake = FakeProvider()
    async with Aether(fake) as client:
        await Agent("a", client=client).run_text("hi")
    assert fake.requests[0].messages == (Message("user", "hi"),)


async def test_a_prompt_of_messages_comes_after_the_instructions_and_is_left_as_it_was() -> None:
    prompt = [Message("user", "one"), Message("assistant", "two"), Message("user", "three")]
    fake = FakeProvider()
    async with Aether(fake) as client:
        await Agent("a", instructions="I", client=client).run(prompt)
    assert fake.requests[0].messages == (Message("system", "I"), *prompt)
    assert len(prompt) == 3


async def test_the_result_has_text_transcript_usage_response_and_the_runs_id() -> None:
    fake = FakeProvider(responses=[calling("ping"), saying("done")])
    seen: list[str] = []
    async with Aether(fake) as client:
        client.on("request.complete")(lambda event: seen.append(event.run_id))
        result = await Agent("a", instructions="I", tools=[ping], client=client).run("go")
        assert client.usage.total_requests == 2
    assert result.text == "done"
    assert [message.role for message in result.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert result.messages[3].text == "pong"
    assert result.messages[4].text == "done"
    assert (result.usage.requests, result.usage.input_tokens) == (2, 20)
    assert result.response.text == "done"
    assert seen == [result.run_id] * 2


async def test_the_options_of_an_agent_are_defaults_that_an_argument_beats() -> None:
    fake = FakeProvider()
    agent = Agent("a", model="one", temperature=0.1, max_tokens=7)
    async with Aether(fake) as client:
        agent.client = client
        await agent.run("hi")
        await agent.run("hi", model="two", temperature=0.9)
    sent = [(r.model, r.temperature, r.max_tokens) for r in fake.requests]
    assert sent == [("one", 0.1, 7), ("two", 0.9, 7)]


async def test_the_tools_of_a_run_take_the_place_of_the_agents_own() -> None:
    fake = FakeProvider()
    async with Aether(fake) as client:
        agent = Agent("a", tools=[ping], client=client)
        await agent.run("hi")
        await agent.run("hi", tools=[])
    assert [[tool.name for tool in request.tools] for request in fake.requests] == [["ping"], []]


async def test_turns_and_order_of_tools_can_be_the_agents() -> None:
    fake = FakeProvider(responses=[calling("ping")] * 3)
    async with Aether(fake) as client:
        agent = Agent("a", tools=[ping], client=client, max_tool_iterations=2)
        with pytest.raises(ToolLoopError, match="2 turns"):
            await agent.run("go")
    assert len(fake.requests) == 2


async def test_a_run_can_be_streamed() -> None:
    fake = FakeProvider(responses=[calling("ping"), saying("streamed"), saying("again")])
    async with Aether(fake) as client:
        agent = Agent("a", instructions="I", tools=[ping], client=client)
        chunks = [chunk async for chunk in agent.stream("go")]
        texts = [text async for text in agent.stream_text("go")]
    assert "".join(chunk.text for chunk in chunks) == "streamed"
    assert [chunk.is_final for chunk in chunks].count(True) == 1
    assert chunks[-1].input_tokens == 20
    assert "".join(texts) == "again"
    assert fake.requests[0].messages[0] == Message("system", "I")


async def test_one_agent_runs_many_times_at_once_and_nothing_is_mixed() -> None:
    class Echo:
        """Answers the number that the prompt holds, after as many turns of the loop."""

        default_model = "echo"

        async def complete(self, request: LLMRequest) -> LLMResponse:
            number = int(request.messages[1].text)
            for _ in range(number % 7):
                await asyncio.sleep(0)
            if len(request.messages) == 2:
                return calling("ping")
            return saying(f"answer {number}")

    async with Aether(Echo()) as client:
        agent = Agent("a", instructions="I", tools=[ping], client=client)
        results = await asyncio.gather(*(agent.run(str(n)) for n in range(100)))
        assert client.usage.total_requests == 200
    assert [result.text for result in results] == [f"answer {n}" for n in range(100)]
    assert all(result.messages[1].text == str(n) for n, result in enumerate(results))
    assert {result.usage.requests for result in results} == {2}
    assert len({result.run_id for result in results}) == 100


async def test_the_events_of_a_run_name_the_agent() -> None:
    fake = FakeProvider(responses=[calling("ping"), saying("done")])
    seen: list[str | None] = []
    async with Aether(fake) as client:
        for name in ("request.start", "tool.complete", "request.complete"):
            client.events.subscribe(name, lambda event: seen.append(event.agent))
        await Agent("helper", tools=[ping], client=client).run("go")
    assert set(seen) == {"helper"}


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_an_agent_needs_a_name(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        Agent(name)


async def test_a_failure_of_the_provider_comes_out_as_it_is() -> None:
    async with Aether(FakeProvider(responses=[ProviderError("down")])) as client:
        with pytest.raises(ProviderError, match="down"):
            await Agent("a", client=client).run("go")


async def test_an_agent_of_a_closed_client_says_so() -> None:
    client = Aether(FakeProvider())
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await Agent("a", client=client).run("go")


async def test_cancelling_a_run_propagates() -> None:
    started = asyncio.Event()

    async def wait() -> str:
        started.set()
        await asyncio.Event().wait()
        return "never"

    async with Aether(FakeProvider(responses=[calling("wait")])) as client:
        run = asyncio.create_task(Agent("a", tools=[wait], client=client).run("go"))
        await started.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run


async def test_the_default_client_is_made_from_the_environment_on_first_use(
    monkeypatch: pytest.MonkeyPatch, fresh_default_client: None
) -> None:
    agent = Agent("a")
    monkeypatch.setenv("LLM_PROVIDER", "fake")
    assert await agent.run_text("hi") == "hello"
    assert await Agent("b").run_text("hi") == "hello"
    assert agent_module._default_client().usage.total_requests == 2


async def test_an_environment_that_cannot_work_fails_the_run_and_can_be_mended(
    monkeypatch: pytest.MonkeyPatch, fresh_default_client: None
) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "openai")
    with pytest.raises(AetherError, match="OPENAI_API_KEY"):
        await Agent("a").run_text("hi")
    monkeypatch.setenv("LLM_PROVIDER", "fake")
    assert await Agent("a").run_text("hi") == "hello"


def test_threads_that_come_first_together_share_one_default_client(
    monkeypatch: pytest.MonkeyPatch, fresh_default_client: None
) -> None:
    made: list[Aether] = []
    together = threading.Barrier(4)

    class Slow(Aether):
        def __init__(self) -> None:
            made.append(self)
            threading.Event().wait(0.01)
            super().__init__(FakeProvider())

    monkeypatch.setattr(agent_module, "Aether", Slow)
    answers: list[str] = []

    def run() -> None:
        together.wait()
        answers.append(asyncio.run(Agent("a").run_text("hi")))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["hello"] * 4
    assert len(made) == 1


def test_the_default_client_is_closed_at_exit() -> None:
    script = """
        import asyncio
        from aether import Agent, register_provider
        from aether.testing import FakeProvider

        @register_provider("closing")
        class ClosingProvider(FakeProvider):
            def __init__(self): super().__init__("hi")
            async def aclose(self): print("closed")

        first = asyncio.run(Agent("a").run_text("x"))
        second = asyncio.run(Agent("b").run_text("x"))
        print("ran", first, second)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        env={"LLM_PROVIDER": "closing", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("ran hi hi\nclosed\n", "")
