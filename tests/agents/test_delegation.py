"""Delegation: an agent as a tool of another, its depth, its client, its costs and its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from aether import Aether, Agent
from aether.errors import AetherError, ConfigurationError, ProviderError, ToolLoopError
from aether.events import EVENT_NAMES, Event
from aether.llm.contracts import LLMRequest, LLMResponse, Message, TokenUsage, ToolCall
from aether.llm.scope import current_scope
from aether.testing import FakeProvider
from aether.tools import dispatch_tool
from aether.tools.contracts import NextHandler, ToolInvocation, ToolResult

Answer = Callable[[LLMRequest], LLMResponse]


class Cast:
    """Plays every agent: who is asked is told by the instructions, a system message."""

    default_model = "cast"

    def __init__(self, **parts: Answer) -> None:
        self.parts: Mapping[str, Answer] = parts
        self.requests: list[LLMRequest] = []
        self.closed = 0

    async def complete(self, request: LLMRequest) -> LLMResponse:
        self.requests.append(request)
        await asyncio.sleep(0)
        return self.parts[request.messages[0].text](request)

    async def aclose(self) -> None:
        self.closed += 1

    def asked(self, part: str) -> list[LLMRequest]:
        return [request for request in self.requests if request.messages[0].text == part]


def saying(text: str) -> Answer:
    return lambda _: LLMResponse(
        text=text, model="cast", input_tokens=10, output_tokens=5, finish_reason="stop"
    )


def calling(*calls: tuple[str, str]) -> LLMResponse:
    return LLMResponse(
        text="",
        model="cast",
        input_tokens=10,
        output_tokens=5,
        tool_calls=[
            ToolCall(f"c{i}", name, {"task": task}) for i, (name, task) in enumerate(calls)
        ],
        finish_reason="tool_calls",
    )


def delegating(*calls: tuple[str, str]) -> Answer:
    """Delegates in the first turn, and answers with the results in the second."""

    def answer(request: LLMRequest) -> LLMResponse:
        told = [message.text for message in request.messages if message.role == "tool"]
        return saying(" | ".join(told))(request) if told else calling(*calls)

    return answer


def record(client: Aether) -> list[Event]:
    seen: list[Event] = []
    for name in EVENT_NAMES:
        client.events.subscribe(name, seen.append)
    return seen


async def test_an_agent_as_a_tool_takes_a_task_and_answers_in_text() -> None:
    cast = Cast(boss=delegating(("writer", "write it")), writer=saying("written"))
    writer = Agent("writer", instructions="writer", description="Writes.")
    async with Aether(cast) as client:
        boss = Agent("boss", instructions="boss", tools=[writer.as_tool()], client=client)
        result = await boss.run("go")
    assert result.text == "written"
    assert cast.asked("writer")[0].messages == (
        Message("system", "writer"),
        Message("user", "write it"),
    )
    (tool,) = cast.asked("boss")[0].tools
    assert (tool.name, tool.description) == ("writer", "Writes.")
    assert tool.parameters["required"] == ["task"]
    assert tool.parameters["properties"]["task"]["type"] == "string"
    assert [message.text for message in result.messages][2:] == ["", "written", "written"]


async def test_an_agent_without_a_client_works_through_the_one_that_delegates() -> None:
    cast = Cast(
        middle=delegating(("leaf", "x")), leaf=saying("deep"), boss=delegating(("middle", "x"))
    )
    leaf = Agent("leaf", instructions="leaf")
    middle = Agent("middle", instructions="middle", tools=[leaf.as_tool()])
    async with Aether(cast) as client:
        boss = Agent("boss", instructions="boss", tools=[middle.as_tool()], client=client)
        assert await boss.run_text("go") == "deep"
        assert client.usage.total_requests == 5


async def test_a_client_of_its_own_is_used_and_charged() -> None:
    cast = Cast(boss=delegating(("writer", "x")))
    async with Aether(cast) as client, Aether(Cast(writer=saying("w"))) as other:
        writer = Agent("writer", instructions="writer", client=other)
        boss = Agent("boss", instructions="boss", tools=[writer.as_tool()], client=client)
        result = await boss.run("go")
        assert client.usage.total_requests == 2
        assert other.usage.total_requests == 1
    assert result.text == "w"
    assert result.usage.requests == 3


async def test_a_plain_call_may_delegate_too() -> None:
    fake = FakeProvider(responses=[calling(("writer", "x")), "from the writer", "said"])
    async with Aether(fake) as client:
        assert await client.ask("go", tools=[Agent("writer").as_tool()]) == "said"
    assert fake.requests[2].messages[-1].text == "from the writer"


@pytest.mark.parametrize(
    ("finish", "text", "told", "fails"),
    [
        ("length", "half", "half\n[The agent's answer was cut off by the output limit.]", False),
        ("length", "", "The agent's answer was cut off by the output limit.", True),
        ("content_filter", "half", "policy, refused the agent's answer.]", False),
        ("content_filter", "", "policy, refused the agent's answer.", True),
        ("stop", "half", "half", False),
        ("stop", "", "", False),
    ],
)
async def test_a_part_of_a_delegates_answer_does_not_pass_for_all_of_it(
    finish: Any, text: str, told: str, fails: bool
) -> None:
    answer = LLMResponse(text=text, model="fake", finish_reason=finish)
    fake = FakeProvider(responses=[calling(("writer", "x")), answer, "said"])
    async with Aether(fake) as client:
        assert await client.ask("go", tools=[Agent("writer").as_tool()]) == "said"
    result = fake.requests[2].messages[-1]
    assert result.text.endswith(told)
    assert result.is_error is fails
    if finish == "stop":
        assert result.text == text


@pytest.mark.row("T15")
async def test_delegated_use_is_counted_once_by_client_and_run() -> None:
    cast = Cast(
        boss=delegating(("one", "x"), ("two", "x")),
        one=saying("1"),
        two=delegating(("three", "x")),
        three=saying("3"),
    )
    three = Agent("three", instructions="three")
    two = Agent("two", instructions="two", tools=[three.as_tool()])
    one = Agent("one", instructions="one")
    async with Aether(cast) as client:
        boss = Agent(
            "boss", instructions="boss", tools=[one.as_tool(), two.as_tool()], client=client
        )
        result = await boss.run("go")
        assert len(cast.requests) == 6
        assert client.usage.total_requests == 6
        assert client.usage.total_input_tokens == 60
        assert len(client.usage.ledger) == 6
    assert (result.usage.requests, result.usage.input_tokens) == (6, 60)


async def test_delegations_of_one_turn_run_at_the_same_time_and_answer_in_order() -> None:
    both = asyncio.Barrier(2)
    answered: list[str] = []

    class Meeting(Cast):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            name = request.messages[0].text
            if name != "boss":
                async with asyncio.timeout(5):
                    await both.wait()
                if name == "one":
                    await asyncio.sleep(0)
                answered.append(name)
            return await super().complete(request)

    cast = Meeting(boss=delegating(("one", "x"), ("two", "x")), one=saying("1"), two=saying("2"))
    tools = [Agent(name, instructions=name).as_tool() for name in ("one", "two")]
    async with Aether(cast) as client:
        text = await Agent("boss", instructions="boss", tools=tools, client=client).run_text("go")
    assert text == "1 | 2"
    assert answered == ["two", "one"]


async def test_one_after_the_other_where_tools_are_not_parallel() -> None:
    running = most = 0

    class Counting(Cast):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                return await super().complete(request)
            finally:
                running -= 1

    cast = Counting(boss=delegating(("one", "x"), ("one", "y")), one=saying("1"))
    tool = Agent("one", instructions="one").as_tool()
    async with Aether(cast) as client:
        boss = Agent("boss", instructions="boss", tools=[tool], client=client, parallel_tools=False)
        await boss.run("go")
    assert most == 1


@pytest.mark.row("T15")
async def test_with_a_depth_of_one_only_the_outermost_run_delegates() -> None:
    cast = Cast(
        boss=delegating(("leaf", "x"), ("middle", "x")),
        middle=delegating(("leaf", "x")),
        leaf=saying("leaf was here"),
    )
    leaf = Agent("leaf", instructions="leaf").as_tool(max_depth=1)
    middle = Agent("middle", instructions="middle", tools=[leaf])
    async with Aether(cast) as client:
        boss = Agent("boss", instructions="boss", tools=[leaf, middle.as_tool()], client=client)
        text = await boss.run_text("go")
    direct, _, nested = text.partition(" | ")
    assert direct == "leaf was here"
    assert "delegation depth" in nested
    assert len(cast.asked("leaf")) == 1
    (told,) = [m for m in cast.asked("middle")[1].messages if m.role == "tool"]
    assert told.is_error


@pytest.mark.row("T15")
@pytest.mark.parametrize(
    ("setting", "deepest"), [(None, 3), ("1", 1), ("5", 5), ("0", 0), ("many", 3)]
)
async def test_an_agent_that_delegates_to_itself_ends_at_the_depth_of_the_environment(
    setting: str | None, deepest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting is not None:
        monkeypatch.setenv("AETHER_MAX_DELEGATION_DEPTH", setting)
    cast = Cast(me=delegating(("me", "again")))
    me = Agent("me", instructions="me", tools=())
    me.tools = (me.as_tool(),)
    async with Aether(cast) as client:
        me.client = client
        text = await me.run_text("go")
    assert "delegation depth" in text
    started = [request for request in cast.requests if request.messages[-1].role == "user"]
    assert len(started) == 1 + deepest


async def test_the_limit_is_read_when_the_model_delegates(monkeypatch: pytest.MonkeyPatch) -> None:
    cast = Cast(boss=delegating(("leaf", "x")), leaf=saying("leaf"))
    tool = Agent("leaf", instructions="leaf").as_tool()
    async with Aether(cast) as client:
        boss = Agent("boss", instructions="boss", tools=[tool], client=client)
        assert await boss.run_text("go") == "leaf"
        monkeypatch.setenv("AETHER_MAX_DELEGATION_DEPTH", "0")
        assert "delegation depth" in await boss.run_text("go")


@pytest.mark.row("T15")
async def test_depth_is_counted_for_each_branch_alone() -> None:
    """Two branches of depth 1 and 2 at once, ten times: what one does changes no other."""
    cast = Cast(
        boss=delegating(*[("shallow", "x"), ("deep", "x")] * 5),
        shallow=saying("shallow"),
        deep=delegating(("bottom", "x"), ("bottom", "y")),
        bottom=delegating(("shallow", "x")),
    )
    shallow = Agent("shallow", instructions="shallow").as_tool(max_depth=2)
    bottom = Agent("bottom", instructions="bottom", tools=[shallow]).as_tool(max_depth=2)
    deep = Agent("deep", instructions="deep", tools=[bottom]).as_tool()
    async with Aether(cast) as client:
        boss = Agent("boss", instructions="boss", tools=[shallow, deep], client=client)
        text = await boss.run_text("go")
        # The depth of a tool's task is not that of whoever waits for it.
        assert await boss.run_text("go") == text
    results = text.split(" | ")
    assert results.count("shallow") == 5
    assert sum("delegation depth" in result for result in results) == 10


@pytest.mark.parametrize("depth", [-1, "2", 1.5, True])
def test_a_depth_that_is_no_whole_number_is_refused(depth: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_depth"):
        Agent("a").as_tool(max_depth=depth)


async def test_the_events_of_runs_are_tied_to_the_run_that_delegated() -> None:
    cast = Cast(boss=delegating(("one", "x"), ("two", "x")), one=saying("1"), two=saying("2"))
    tools = [Agent(name, instructions=name).as_tool() for name in ("one", "two")]
    async with Aether(cast) as client:
        seen = record(client)
        result = await Agent("boss", instructions="boss", tools=tools, client=client).run("go")
    runs = {event.agent: (event.run_id, event.parent_run_id) for event in seen}
    assert runs["boss"] == (result.run_id, None)
    assert runs["one"][1] == runs["two"][1] == result.run_id
    assert len({run_id for run_id, _ in runs.values()}) == 3
    tool_events = [event for event in seen if event.name.startswith("tool.")]
    assert {event.run_id for event in tool_events} == {result.run_id}
    inner = [event.name for event in seen if event.agent == "one"]
    assert inner == ["request.start", "request.complete"]
    starts = [event.name for event in seen]
    assert starts.index("tool.start") < starts.index("tool.complete")


async def test_middleware_sees_a_delegation_as_any_call_and_how_deep_it_is() -> None:
    calls: list[tuple[str, str | None, int]] = []

    async def watch(call: ToolInvocation, proceed: NextHandler) -> ToolResult:
        calls.append((call.name, call.provenance.agent, call.provenance.depth))
        return await proceed(call)

    cast = Cast(
        boss=delegating(("middle", "x")), middle=delegating(("leaf", "x")), leaf=saying("l")
    )
    leaf = Agent("leaf", instructions="leaf").as_tool()
    middle = Agent("middle", instructions="middle", tools=[leaf]).as_tool()
    async with Aether(cast, tool_middleware=[watch]) as client:
        await Agent("boss", instructions="boss", tools=[middle], client=client).run("go")
    assert calls == [("middle", "boss", 0), ("leaf", "middle", 1)]


@pytest.mark.row("T1")
async def test_a_delegate_that_fails_is_told_to_the_model_and_hurts_no_sibling() -> None:
    def down(_: LLMRequest) -> LLMResponse:
        raise ProviderError("the line is down")

    cast = Cast(boss=delegating(("bad", "x"), ("good", "x")), bad=down, good=saying("fine"))
    tools = [Agent(name, instructions=name).as_tool() for name in ("bad", "good")]
    async with Aether(cast) as client:
        result = await Agent("boss", instructions="boss", tools=tools, client=client).run("go")
    failed, fine = (message for message in result.messages if message.role == "tool")
    assert failed.is_error
    assert "the line is down" in failed.text
    assert (fine.is_error, fine.text) == (False, "fine")


@pytest.mark.row("T15")
async def test_what_a_failed_delegate_has_used_is_counted_all_the_same() -> None:
    def ping() -> str:
        return "pong"

    def endless(_: LLMRequest) -> LLMResponse:
        return LLMResponse(
            text="",
            model="cast",
            input_tokens=10,
            output_tokens=5,
            tool_calls=[ToolCall("p", "ping", {})],
        )

    cast = Cast(boss=delegating(("lost", "x")), lost=endless)
    lost = Agent("lost", instructions="lost", tools=[ping], max_tool_iterations=3)
    async with Aether(cast) as client:
        boss = Agent("boss", instructions="boss", tools=[lost.as_tool()], client=client)
        result = await boss.run("go")
        assert client.usage.total_requests == 5
    assert result.usage.requests == 5
    assert "3 turns" in result.text


async def test_a_tool_may_go_on_counting_in_what_it_has_told_to_be_used() -> None:
    used = TokenUsage()

    def research(task: str) -> str:
        scope = current_scope.get()
        assert scope is not None
        assert scope.add_usage is not None
        used.requests, used.input_tokens = 2, 20
        scope.add_usage(used)
        used.requests, used.input_tokens = 1, 10
        scope.add_usage(used)
        used.requests, used.input_tokens = 0, None
        return "found"

    async with Aether(FakeProvider(responses=[calling(("research", "")), "done"])) as client:
        result = await Agent("boss", tools=[research], client=client).run("go")
    assert result.usage.requests == 5
    assert used == TokenUsage()


async def test_the_error_of_a_run_that_never_ends_has_the_usage_of_its_delegates() -> None:
    cast = Cast(boss=lambda _: calling(("leaf", "x")), leaf=saying("l"))
    tool = Agent("leaf", instructions="leaf").as_tool()
    async with Aether(cast) as client:
        boss = Agent("boss", instructions="boss", tools=[tool], client=client)
        with pytest.raises(ToolLoopError) as raised:
            await boss.run("go", max_tool_iterations=2)
    assert raised.value.usage is not None
    assert raised.value.usage.requests == 4


async def test_a_streamed_run_delegates_too() -> None:
    cast = Cast(boss=delegating(("leaf", "x")), leaf=saying("from the leaf"))
    tool = Agent("leaf", instructions="leaf").as_tool()
    async with Aether(cast) as client:
        seen = record(client)
        boss = Agent("boss", instructions="boss", tools=[tool], client=client)
        chunks = [chunk async for chunk in boss.stream("go")]
        assert client.usage.total_requests == 3
    assert "".join(chunk.text for chunk in chunks) == "from the leaf"
    names = [(event.name, event.agent) for event in seen if event.name != "stream.chunk"]
    assert names == [
        ("stream.start", "boss"),
        ("tool.start", "boss"),
        ("request.start", "leaf"),
        ("request.complete", "leaf"),
        ("tool.complete", "boss"),
        ("stream.complete", "boss"),
    ]


@pytest.mark.row("T6")
async def test_cancelling_the_outermost_run_ends_its_delegates_first() -> None:
    waiting = asyncio.Barrier(3)
    ended: list[str] = []

    class Stuck(Cast):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            name = request.messages[0].text
            if name == "boss":
                return await super().complete(request)
            await waiting.wait()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(name)
            raise AssertionError

    cast = Stuck(boss=delegating(("one", "x"), ("two", "x")))
    tools = [Agent(name, instructions=name).as_tool() for name in ("one", "two")]
    async with Aether(cast) as client:
        seen = record(client)
        boss = Agent("boss", instructions="boss", tools=tools, client=client)
        run = asyncio.create_task(boss.run("go"))
        await waiting.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert sorted(ended) == ["one", "two"]
        assert len(asyncio.all_tasks()) == 1
    errors = [event.name for event in seen if event.cancelled]
    assert sorted(errors) == ["request.error"] * 2 + ["tool.error"] * 2


@pytest.mark.row("T6")
async def test_leaving_a_stream_ends_the_delegate_that_runs_for_it() -> None:
    stuck = asyncio.Event()
    ended: list[int] = []

    class Stuck(Cast):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            if request.messages[0].text == "boss":
                return await super().complete(request)
            stuck.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(1)
            raise AssertionError

    tool = Agent("leaf", instructions="leaf").as_tool()
    async with Aether(Stuck(boss=delegating(("leaf", "x")))) as client:
        boss = Agent("boss", instructions="boss", tools=[tool], client=client)

        async def read() -> None:
            async for _ in boss.stream_text("go"):
                pass

        reading = asyncio.create_task(read())
        await stuck.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert ended == [1]


async def test_a_run_inside_a_tool_that_is_no_agent_knows_its_parent_and_client() -> None:
    cast = Cast(boss=delegating(("helper", "x")), inner=saying("inner"))
    inner = Agent("inner", instructions="inner")

    async def helper(task: str) -> str:
        return await inner.run_text(task)

    async with Aether(cast) as client:
        seen = record(client)
        boss = Agent("boss", instructions="boss", tools=[helper], client=client)
        result = await boss.run("go")
    assert result.text == "inner"
    (started,) = [e for e in seen if e.agent == "inner" and e.name == "request.start"]
    assert started.parent_run_id == result.run_id


@pytest.mark.row("T15")
async def test_a_sync_tool_keeps_the_depth_in_its_thread() -> None:
    cast = Cast(
        boss=delegating(("helper", "x"), ("middle", "x")),
        middle=delegating(("helper", "x")),
        leaf=saying("leaf"),
    )
    leaf = Agent("leaf", instructions="leaf").as_tool(max_depth=1)

    def helper(task: str) -> str:
        call = ToolCall("c", "leaf", {"task": task})
        return asyncio.run(dispatch_tool(call, tools=[leaf])).content

    middle = Agent("middle", instructions="middle", tools=[helper]).as_tool()
    async with Aether(cast) as client:
        boss = Agent("boss", instructions="boss", tools=[helper, middle], client=client)
        outer, _, inner = (await boss.run_text("go")).partition(" | ")
    assert outer == "leaf"
    assert "delegation depth" in inner


@pytest.mark.row("T15")
async def test_a_call_inside_a_tool_stands_as_deep_as_the_tool() -> None:
    cast = Cast(
        boss=delegating(("middle", "x")),
        middle=delegating(("nested", "x")),
        inner=delegating(("leaf", "x")),
        leaf=saying("leaf"),
    )
    leaf = Agent("leaf", instructions="leaf").as_tool(max_depth=1)

    async def nested(task: str) -> str:
        return await client.ask([Message("system", "inner"), Message("user", task)], tools=[leaf])

    middle = Agent("middle", instructions="middle", tools=[nested]).as_tool()
    async with Aether(cast) as client:
        boss = Agent("boss", instructions="boss", tools=[middle], client=client)
        assert "delegation depth" in await boss.run_text("go")


async def test_a_tool_of_an_agent_can_be_called_by_hand() -> None:
    async with Aether(Cast(leaf=saying("by hand"))) as client:
        tool = Agent("leaf", instructions="leaf", client=client).as_tool()
        result = await dispatch_tool(ToolCall("c", "leaf", {"task": "x"}), tools=[tool])
    assert (result.content, result.is_error, result.untrusted) == ("by hand", False, True)


@pytest.mark.parametrize(
    ("name", "tool_name"),
    [("writer", "writer"), ("The writer!", "The_writer_"), ("a" * 80, "a" * 64)],
)
def test_the_tools_name_is_one_that_every_provider_takes(name: str, tool_name: str) -> None:
    assert Agent(name).as_tool().name == tool_name


async def test_two_delegates_that_a_model_cannot_tell_apart_are_refused() -> None:
    async with Aether(FakeProvider()) as client:
        with pytest.raises(AetherError, match="tell them apart"):
            await client.ask("go", tools=[Agent("a b").as_tool(), Agent("a_b").as_tool()])


def test_agents_named_in_other_scripts_are_tools_of_different_names() -> None:
    names = [Agent(name).as_tool().name for name in ("исследователь", "писатель", "研究員")]
    assert len(set(names)) == 3
    assert all(name.isascii() and name.startswith("agent_") for name in names)
    assert Agent("Research Desk").as_tool().name == "Research_Desk"
