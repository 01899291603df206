"""The tool loop through the facade: order, concurrency, limits, what is never run."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether import Aether
from aether.errors import InputError, ProtocolError, ServerError, ToolLoopError
from aether.llm.contracts import LLMRequest, LLMResponse, Message, ToolCall
from aether.testing import FakeProvider


def calling(*calls: tuple[str, dict[str, Any]], **fields: Any) -> LLMResponse:
    return LLMResponse(
        text="",
        model="fake",
        input_tokens=10,
        output_tokens=5,
        tool_calls=[ToolCall(f"c{i}", name, args) for i, (name, args) in enumerate(calls)],
        **{"finish_reason": "tool_calls", **fields},
    )


def saying(text: str) -> LLMResponse:
    return LLMResponse(
        text=text, model="fake", input_tokens=10, output_tokens=5, finish_reason="stop"
    )


def results(request: LLMRequest) -> list[str]:
    return [message.text for message in request.messages if message.role == "tool"]


@pytest.mark.row("T13")
async def test_results_are_fed_back_in_the_order_of_the_calls() -> None:
    second_done = asyncio.Event()

    async def first() -> str:
        await second_done.wait()
        return "1"

    async def second() -> str:
        second_done.set()
        return "2"

    fake = FakeProvider(responses=[calling(("first", {}), ("second", {})), saying("done")])
    async with Aether(fake) as client:
        assert await client.ask("go", tools=[first, second]) == "done"
    tool_messages = [m for m in fake.requests[1].messages if m.role == "tool"]
    assert [(m.tool_call_id, m.text) for m in tool_messages] == [("c0", "1"), ("c1", "2")]


@pytest.mark.row("C2")
@pytest.mark.parametrize("how", ["argument", "0", "false", "no", "OFF"])
async def test_sequential_calls_never_overlap(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    running = overlaps = 0

    async def step() -> str:
        nonlocal running, overlaps
        overlaps += running
        running += 1
        await asyncio.sleep(0)
        running -= 1
        return "ok"

    if how != "argument":
        monkeypatch.setenv("AETHER_PARALLEL_TOOLS", how)
    options: dict[str, Any] = {"parallel_tools": False} if how == "argument" else {}
    fake = FakeProvider(responses=[calling(*[("step", {})] * 3), saying("done")])
    async with Aether(fake) as client:
        await client.ask("go", tools=[step], **options)
    assert overlaps == 0
    assert results(fake.requests[1]) == ["ok"] * 3


@pytest.mark.row("T1")
async def test_one_failing_tool_leaves_its_siblings_alone() -> None:
    async def bad() -> str:
        raise RuntimeError("broken")

    async def good() -> str:
        await asyncio.sleep(0)
        return "fine"

    fake = FakeProvider(responses=[calling(("bad", {}), ("good", {})), saying("done")])
    async with Aether(fake) as client:
        assert await client.ask("go", tools=[bad, good]) == "done"
    failed, fine = (m for m in fake.requests[1].messages if m.role == "tool")
    assert failed.is_error
    assert "RuntimeError" in failed.text
    assert "broken" in failed.text
    assert "Traceback" not in failed.text
    assert fine.text == "fine"


@pytest.mark.row("T14")
async def test_the_loop_stops_after_the_last_allowed_turn() -> None:
    fake = FakeProvider(responses=[calling(("ping", {}))] * 5)

    def ping() -> str:
        return "pong"

    async with Aether(fake) as client:
        with pytest.raises(ToolLoopError, match="3 turns") as raised:
            await client.ask("go", tools=[ping], max_tool_iterations=3)
    assert len(fake.requests) == 3
    assert [m.role for m in raised.value.messages] == ["user"] + ["assistant", "tool"] * 3
    assert raised.value.usage is not None
    assert raised.value.usage.requests == 3
    assert raised.value.usage.input_tokens == 30


@pytest.mark.row("T14")
async def test_the_number_of_turns_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AETHER_MAX_TOOL_ITERATIONS", "2")
    fake = FakeProvider(responses=[calling(("ping", {}))] * 5)

    def ping() -> str:
        return "pong"

    async with Aether(fake) as client:
        with pytest.raises(ToolLoopError):
            await client.ask("go", tools=[ping])
    assert len(fake.requests) == 2


@pytest.mark.row("T7")
async def test_calls_of_a_turn_that_was_cut_off_are_not_run() -> None:
    ran: list[str] = []

    def write(path: str) -> str:
        ran.append(path)
        return "written"

    fake = FakeProvider(
        responses=[calling(("write", {"path": "/"}), finish_reason="length"), saying("sorry")]
    )
    async with Aether(fake) as client:
        assert await client.ask("go", tools=[write]) == "sorry"
    assert ran == []
    (told,) = [m for m in fake.requests[1].messages if m.role == "tool"]
    assert told.is_error
    assert "cut off" in told.text


@pytest.mark.row("T9")
async def test_a_registered_tool_that_is_not_offered_is_not_run(aether_registry: Any) -> None:
    from aether import register_tool

    ran: list[int] = []

    @register_tool
    def secret() -> str:
        ran.append(1)
        return "secret"

    def ping() -> str:
        return "pong"

    fake = FakeProvider(responses=[calling(("secret", {})), saying("ok")])
    async with Aether(fake) as client:
        await client.ask("go", tools=[ping])
    assert ran == []
    assert "ping" in results(fake.requests[1])[0]


@pytest.mark.row("T7")
async def test_arguments_that_are_no_object_are_told_to_the_model_and_not_run() -> None:
    ran: list[int] = []

    def ping() -> str:
        ran.append(1)
        return "pong"

    cut = LLMResponse(text="", model="fake", tool_calls=[ToolCall.parse("c", "ping", '{"a": 1')])
    fake = FakeProvider(responses=[cut, saying("ok")])
    async with Aether(fake) as client:
        await client.ask("go", tools=[ping])
    assert ran == []
    assert fake.requests[1].messages[-1].is_error


@pytest.mark.parametrize("choice", ["required", "ping"])
async def test_a_forced_choice_holds_for_the_first_turn(choice: str) -> None:
    def ping() -> str:
        return "pong"

    fake = FakeProvider(responses=[calling(("ping", {})), saying("ok")])
    async with Aether(fake) as client:
        await client.ask("go", tools=[ping], tool_choice=choice)
    assert fake.requests[0].tool_choice == choice
    assert fake.requests[1].tool_choice in (None, "auto")


@pytest.mark.parametrize("choice", ["auto", "none"])
async def test_a_choice_that_forces_nothing_holds_for_every_turn(choice: str) -> None:
    def ping() -> str:
        return "pong"

    fake = FakeProvider(responses=[calling(("ping", {})), calling(("ping", {})), saying("ok")])
    async with Aether(fake) as client:
        await client.ask("go", tools=[ping], tool_choice=choice)
    assert [request.tool_choice for request in fake.requests] == [choice] * 3


async def test_each_call_of_a_run_has_a_context_of_its_own_that_says_whose_it_is() -> None:
    async def ping() -> str:
        return "pong"

    turns = [calling(("ping", {})), calling(("ping", {})), saying("done")]
    fake = FakeProvider(responses=turns)
    client = Aether(fake)
    await client.ask("go", tools=[ping], timeout=60)
    contexts = [request.context for request in fake.requests if request.context is not None]
    assert len(contexts) == len({each.call_id for each in contexts}) == 3
    assert len({(each.run_id, each.deadline) for each in contexts}) == 1
    assert [len(each.entries) for each in contexts] == [1, 1, 1]
    assert {entry.run_id for entry in client.usage.ledger} == {contexts[0].run_id}


async def test_events_tell_the_turn_that_they_belong_to() -> None:
    def ping() -> str:
        return "pong"

    seen: list[tuple[str, int | None]] = []
    fake = FakeProvider(responses=[*[calling(("ping", {}))] * 3, saying("ok")])
    async with Aether(fake) as client:
        for name in ("request.start", "request.complete", "tool.start", "tool.complete"):
            client.on(name)(lambda event: seen.append((event.name, event.turn)))
        await client.ask("go", tools=[ping])
    turn = ["request.start", "request.complete", "tool.start", "tool.complete"]
    assert seen == [(name, number) for number in (1, 2, 3, 4) for name in turn][:-2]


@pytest.mark.parametrize(("choice", "tools"), [("required", False), ("pong", True), ("Ping", True)])
async def test_a_choice_that_cannot_be_is_refused_before_anything_is_sent(
    choice: str, tools: bool
) -> None:
    def ping() -> str:
        return "pong"

    fake = FakeProvider()
    async with Aether(fake) as client:
        with pytest.raises(InputError, match="tool_choice"):
            await client.ask("go", tools=[ping] if tools else [], tool_choice=choice)
    assert fake.requests == []


async def test_an_answer_that_lost_its_calls_is_an_error_unless_it_has_a_text() -> None:
    lost = LLMResponse(
        "", "fake-1", provider="acme", request_id="req-1", finish_reason="tool_calls"
    )
    async with Aether(FakeProvider(responses=[lost])) as client:
        with pytest.raises(ProtocolError, match="calls tools, but has no call and no text") as told:
            await client.ask("go")
    error = told.value
    assert (error.provider, error.model, error.request_id) == ("acme", "fake-1", "req-1")
    assert error.partial is not None
    assert error.partial.finish_reason == "tool_calls"
    said = LLMResponse("Hi", "fake-1", finish_reason="tool_calls")
    async with Aether(FakeProvider(responses=[said])) as client:
        assert await client.ask("go") == "Hi"


@pytest.mark.parametrize(("raw", "told"), [("busy", "busy"), (None, "it does not say which")])
async def test_a_text_that_an_error_ended_is_an_error_that_holds_it(
    raw: str | None, told: str
) -> None:
    cut = LLMResponse(
        *("It is", "fake-1"),
        provider="acme",
        request_id="req-1",
        finish_reason="error",
        finish_reason_raw=raw,
    )
    async with Aether(FakeProvider(responses=[cut])) as client:
        with pytest.raises(ServerError, match=rf"\({told}\).* error\.partial") as raised:
            await client.ask("go")
    error = raised.value
    assert (error.provider, error.model, error.request_id) == ("acme", "fake-1", "req-1")
    assert error.partial is not None
    assert error.partial.text == "It is"


@pytest.mark.row("T13")
async def test_too_many_calls_in_one_turn_are_an_error() -> None:
    ran: list[int] = []

    def ping() -> str:
        ran.append(1)
        return "pong"

    fake = FakeProvider(responses=[calling(*[("ping", {})] * 129)])
    async with Aether(fake) as client:
        with pytest.raises(ToolLoopError, match="129"):
            await client.ask("go", tools=[ping])
    assert ran == []


@pytest.mark.row("T6")
async def test_cancelling_a_run_ends_all_its_tools_first() -> None:
    started = asyncio.Event()
    ended: list[str] = []

    async def slow(name: str) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)
        return "never"

    fake = FakeProvider(responses=[calling(("slow", {"name": "a"}), ("slow", {"name": "b"}))])
    async with Aether(fake) as client:
        run = asyncio.create_task(client.ask("go", tools=[slow]))
        await started.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert sorted(ended) == ["a", "b"]


@pytest.mark.row("T6")
async def test_cancelling_twice_still_ends_the_tools() -> None:
    started, hurry = asyncio.Event(), asyncio.Event()
    ended: list[int] = []

    async def stubborn() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await hurry.wait()
            ended.append(1)
        return "never"

    fake = FakeProvider(responses=[calling(("stubborn", {}))])
    async with Aether(fake) as client:
        run = asyncio.create_task(client.ask("go", tools=[stubborn]))
        await started.wait()
        run.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        run.cancel()
        await asyncio.sleep(0)
        hurry.set()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert ended == [1]


async def test_the_prompt_list_is_left_as_it_was() -> None:
    def ping() -> str:
        return "pong"

    prompt = [Message("user", "go")]
    fake = FakeProvider(responses=[calling(("ping", {})), saying("ok")])
    async with Aether(fake) as client:
        await client.ask(prompt, tools=[ping])
    assert prompt == [Message("user", "go")]


turns = st.lists(
    st.lists(st.sampled_from(["value", "error", "slow", "unknown"]), min_size=1, max_size=4),
    max_size=4,
)


def make_tools() -> list[Callable[..., Any]]:
    async def value() -> int:
        return 42

    async def error() -> None:
        raise ValueError("no")

    async def slow() -> str:
        for _ in range(3):
            await asyncio.sleep(0)
        return "at last"

    return [value, error, slow]


@pytest.mark.row("T13")
@settings(max_examples=60, deadline=None)
@given(turns=turns, parallel=st.booleans(), streaming=st.booleans(), limit=st.integers(1, 5))
def test_every_transcript_pairs_calls_and_results(
    turns: list[list[str]], parallel: bool, streaming: bool, limit: int
) -> None:
    script = [calling(*((name, {}) for name in names)) for names in turns] + [saying("done")]
    fake = FakeProvider(responses=script)

    async def run() -> tuple[str | None, int | None]:
        async with Aether(fake) as client:
            options: dict[str, Any] = {
                "tools": make_tools(),
                "parallel_tools": parallel,
                "max_tool_iterations": limit,
            }
            try:
                if not streaming:
                    return await client.ask("go", **options), client.usage.total_input_tokens
                async with client.stream("go", **options) as chunks:
                    seen = [chunk async for chunk in chunks]
                assert [c.is_final for c in seen] == [False] * (len(seen) - 1) + [True]
                assert seen[-1].input_tokens == client.usage.total_input_tokens
                return "".join(c.text for c in seen), client.usage.total_input_tokens
            except ToolLoopError as error:
                assert error.usage is not None
                return None, error.usage.input_tokens

    text, tokens = asyncio.run(run())
    made = min(len(script), limit)
    assert len(fake.requests) == made
    assert tokens == 10 * made
    assert text == ("done" if len(script) <= limit else None)
    for number, request in enumerate(fake.requests):
        expected: list[tuple[str, str | None]] = [("user", None)]
        for names in turns[:number]:
            expected.append(("assistant", None))
            expected += [("tool", f"c{i}") for i in range(len(names))]
        assert [(m.role, m.tool_call_id) for m in request.messages] == expected


async def test_what_a_tool_leaves_behind_holds_no_answer_of_its_run() -> None:
    left: list[asyncio.Task[Any]] = []
    given: list[weakref.ref[LLMResponse]] = []

    class Asked:
        async def complete(self, _: LLMRequest) -> LLMResponse:
            answer = saying("done") if given else calling(("connect", {}))
            given.append(weakref.ref(answer))
            return answer

    async def connect() -> str:
        left.append(asyncio.create_task(asyncio.sleep(3600)))
        return "connected"

    async with Aether(Asked()) as client:
        await client.ask("go", tools=[connect])
    gc.collect()
    assert not left[0].done()
    assert [answer() for answer in given] == [None, None]
    left[0].cancel()
