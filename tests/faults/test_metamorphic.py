"""Changes that must make no difference: to text, history, usage or cost.

Runs are generated, of one or more turns in a session, with tools that are pure: streamed or whole,
in pieces of any size, with subscribers, with retries, in sequence, from two clients on one store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether import Aether, Agent
from aether.events import EVENT_NAMES, Event
from aether.extensions.llm import CircuitBreakerProvider, CostTrackingProvider, RetryingProvider
from aether.extensions.memory import InMemorySessionStore
from aether.llm.contracts import (
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Message,
    StreamChunk,
    ToolCall,
)
from aether.llm.streaming import final_chunk
from tests.faults.ways import SESSION, Way, calling, get_answer, saying

MODEL = "gpt-4o-mini"
"""One with a price."""

TEXTS = ("", "It is 42.", "a\nb", "💥 €", "one two three four five six seven")


async def twice(number: int) -> int:
    await asyncio.sleep(number / 1000)
    return 2 * number


def joined(words: list[str]) -> str:
    return " ".join(words)


async def fails(reason: str) -> None:
    await asyncio.sleep(0)
    raise ValueError(reason)


def tools() -> list[Any]:
    return [twice, joined, fails, Agent("echo", instructions="echo").as_tool()]


def any_call(random: Random, number: int) -> ToolCall:
    calls: Sequence[tuple[str, Mapping[str, Any]]] = (
        ("twice", {"number": random.randrange(4)}),
        ("joined", {"words": ["a", "b"][: random.randrange(3)]}),
        ("fails", {"reason": "no"}),
        ("twice", {"number": "many"}),
        ("nobody", {}),
        ("echo", {"task": "say it"}),
    )
    name, arguments = random.choice(calls)
    return ToolCall(f"c{number}", name, dict(arguments))


def any_conversation(seed: int) -> dict[str, list[LLMResponse]]:
    """Prompts of a session, each with what the model answers, turn by turn."""
    random = Random(seed)
    conversation = {}
    for number in range(random.randrange(1, 4)):
        turns = []
        for turn in range(random.choice((0, 1, 1, 2))):
            many = random.randrange(1, 4)
            calls = [any_call(random, 10 * turn + each) for each in range(many)]
            turns.append(_counted(calling(*calls, text=random.choice(TEXTS), model=MODEL), random))
        last = saying(random.choice(TEXTS[1:]), model=MODEL, reasoning=random.choice((None, "hm")))
        conversation[f"prompt {number}"] = [*turns, _counted(last, random)]
    return conversation


def _counted(response: LLMResponse, random: Random) -> LLMResponse:
    counts = {
        "input_tokens": random.randrange(1, 10**6),
        "output_tokens": random.randrange(10**5),
        "cache_read_tokens": random.choice((None, 0, 1)),
    }
    return response.model_copy(update=counts)


class Model:
    """Answers each prompt as it is planned, whoever asks; streams in pieces of so many letters."""

    default_model = MODEL

    def __init__(self, conversation: Mapping[str, list[LLMResponse]], piece: int = 5) -> None:
        self.conversation = conversation
        self.piece = piece

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        await asyncio.sleep(0)
        return self._answer(request)

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        response = self._answer(request)
        if response.reasoning:
            yield StreamChunk(reasoning=response.reasoning)
        for start in range(0, len(response.text), self.piece):
            await asyncio.sleep(0)
            yield StreamChunk(text=response.text[start : start + self.piece])
        yield final_chunk(response)

    def _answer(self, request: LLMRequest) -> LLMResponse:
        messages = request.messages
        if messages[0].text == "echo":
            return saying(f"echo: {messages[-1].text}", model=MODEL)
        start = max(place for place, message in enumerate(messages) if message.role == "user")
        turn = sum(message.role == "assistant" for message in messages[start:])
        return self.conversation[messages[start].text][turn]


@dataclass(frozen=True)
class Setting:
    """How a conversation is held."""

    way: Way = "session"
    piece: int = 5
    stack: Callable[[LLMProvider], LLMProvider] = lambda model: model
    prepare: Callable[[Aether], object] = lambda client: None
    parallel: bool = True
    clients: int = 1


@dataclass
class Outcome:
    """What came of it."""

    texts: list[str]
    transcripts: list[list[Message]]
    history: list[Message]
    usage: Mapping[str, Any]
    cost: float
    attempts: list[Any]


def held(conversation: Mapping[str, list[LLMResponse]], how: Setting) -> Outcome:
    """Hold the conversation, from one prompt to the next; clients take turns."""
    seen: list[LLMRequest] = []
    store = InMemorySessionStore()

    class Watched(Model):
        def _answer(self, request: LLMRequest) -> LLMResponse:
            seen.append(request)
            return super()._answer(request)

    async def hold() -> Outcome:
        clients = [
            Aether(how.stack(Watched(conversation, how.piece)), memory_store=store)
            for _ in range(how.clients)
        ]
        for client in clients:
            how.prepare(client)
        texts = []
        for number, prompt in enumerate(conversation):
            client = clients[number % len(clients)]
            response = await get_answer(
                client, how.way, prompt, tools=tools(), parallel_tools=how.parallel
            )
            texts.append(response.text)
        usages = [client.usage for client in clients]
        entries = [entry for usage in usages for entry in usage.ledger]
        return Outcome(
            texts=texts,
            transcripts=sorted(([*request.messages] for request in seen), key=repr),
            history=await store.load(SESSION),
            usage={
                name: sum(getattr(usage, name) for usage in usages)
                for name in ("total_requests", "total_input_tokens", "total_output_tokens")
            },
            cost=round(sum(usage.total_cost_usd for usage in usages), 12),
            attempts=sorted(
                (entry.state, entry.model, entry.input_tokens, entry.output_tokens)
                for entry in entries
            ),
        )

    return asyncio.run(hold())


def with_subscribers(client: Aether) -> None:
    """Those that do all sorts of things, at every event."""
    heard: list[str] = []

    def counts(event: Event) -> None:
        heard.append(event.name)

    async def waits(event: Event) -> None:
        await asyncio.sleep(0)

    def breaks(event: Event) -> None:
        raise ValueError("of a subscriber")

    def spoils(event: Event) -> None:
        if event.call is not None:
            event.call.arguments.clear()
        if event.response is not None:
            event.response.tool_calls.clear()
        if event.request is not None:
            for message in event.request.messages:
                message.tool_calls.clear()

    for name in EVENT_NAMES:
        for subscriber in (counts, waits, breaks, spoils):
            client.on(name)(subscriber)


def with_retries(model: LLMProvider) -> LLMProvider:
    return RetryingProvider(model)


def with_everything(model: LLMProvider) -> LLMProvider:
    return CostTrackingProvider(CircuitBreakerProvider(RetryingProvider(model)))


PLAIN = Setting()
CHANGES = {
    "streamed": Setting(way="session stream"),
    "with subscribers": Setting(prepare=with_subscribers),
    "streamed with subscribers": Setting(way="session stream", prepare=with_subscribers),
    "with retries": Setting(stack=with_retries),
    "with the whole stack": Setting(stack=with_everything),
    "in sequence": Setting(parallel=False),
    "from two clients": Setting(clients=2),
    "streamed from two clients": Setting(way="session stream", clients=2),
    "all at once": Setting("session stream", 1, with_everything, with_subscribers, False, 3),
}
"""What must make no difference."""


@pytest.mark.row("T13", "E1", "E5")
@pytest.mark.parametrize("name", CHANGES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=12, deadline=None)
def test_a_change_that_should_make_no_difference_makes_none(name: str, seed: int) -> None:
    conversation = any_conversation(seed)
    plain, changed = held(conversation, PLAIN), held(conversation, CHANGES[name])
    assert changed == plain
    assert plain.texts == [turns[-1].text for turns in conversation.values()]
    assert plain.history == [
        message
        for prompt, turns in conversation.items()
        for message in (Message("user", prompt), Message("assistant", turns[-1].text))
    ]
    assert plain.cost > 0


@given(seed=st.integers(0, 2**32), piece=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_pieces_of_any_size_make_the_same_answer(seed: int, piece: int) -> None:
    conversation = any_conversation(seed)
    streamed = Setting(way="session stream")
    assert held(conversation, replace(streamed, piece=piece)) == held(conversation, streamed)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_asked_without_a_session_each_turn_is_answered_as_whole_as_streamed(seed: int) -> None:
    conversation = any_conversation(seed)
    ways: tuple[Way, ...] = ("ask", "stream", "agent", "agent stream")
    first, *others = [held(conversation, Setting(way=way)) for way in ways]
    assert all(other == first for other in others)


@given(seed=st.integers(0, 2**32), piece=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_deltas_of_a_stream_join_to_what_its_turns_say(seed: int, piece: int) -> None:
    conversation = any_conversation(seed)

    async def read() -> None:
        client = Aether(Model(conversation, piece))
        for prompt, turns in conversation.items():
            chunks = [chunk async for chunk in client.stream(prompt, tools=tools())]
            assert "".join(chunk.text for chunk in chunks) == "".join(t.text for t in turns)
            assert [chunk.is_final for chunk in chunks].count(True) == 1
            final = chunks[-1]
            assert final.finish_reason == "stop"
            assert final.input_tokens == sum(turn.input_tokens or 0 for turn in turns)

    asyncio.run(read())
