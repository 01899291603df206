"""What is done in a soak, by kind. Each returns what came, or `None` if it was left in between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import pydantic

from aether import Aether, Agent, Tool
from aether.llm.call import CallContext
from aether.llm.contracts import LLMRequest, Message
from aether.llm.streaming import open_stream
from tests.soak.crew import MODELS, Crew
from tests.soak.saying import RESULT, prompt, said

__all__ = ["BLOCKING", "KINDS", "Act", "Doing", "clear_sessions", "new_tool", "new_type"]

_SESSIONS = 6
"""So many has each client, used again and again."""
_NEW = 0.2
"""So often a tool, or a type, is one that was not there before."""


@dataclass(frozen=True, slots=True)
class Doing:
    """One operation: whose it is, with which client, and what is left to chance."""

    tag: str
    client: Aether
    crew: Crew
    chance: random.Random
    pool: Executor
    """For calls that block."""

    @property
    def prompt(self) -> str:
        return prompt(self.tag)

    @property
    def model(self) -> str:
        """Mostly one of a few; now and then one of very many."""
        return self.chance.choice(MODELS if self.chance.random() < 0.1 else MODELS[:4])

    async def in_thread(self, work: Callable[[], str | None]) -> str | None:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.pool, work)


class Typed(pydantic.BaseModel):
    """What a model is asked to answer in."""

    said: str


def new_type() -> type[Typed]:
    """One that was not there before."""
    return pydantic.create_model("Typed", __base__=Typed)


async def add(a: int, b: int) -> str:
    """Add two numbers."""
    return f"{RESULT}{a + b}"


def new_tool() -> Callable[..., Any]:
    """A function that was not there before."""

    async def add_anew(a: int, b: int) -> str:
        """Add two numbers."""
        return f"{RESULT}{a + b}"

    add_anew.__name__ = "add"
    return add_anew


def add_slowly(a: int, b: int) -> str:
    """Add two numbers, in a thread."""
    return f"{RESULT}{a + b}"


_HELPER = Agent("ask_helper", instructions="Help.")
_BOSS = Agent("boss", instructions="Have it done.", tools=[_HELPER.as_tool(max_depth=1), add])


async def _ask(doing: Doing) -> str:
    return await doing.client.ask(doing.prompt, model=doing.model)


async def _stream(doing: Doing) -> str:
    texts = [text async for text in doing.client.stream_text(doing.prompt, model=doing.model)]
    return "".join(texts)


async def _leave(doing: Doing) -> None:
    """Leave a stream after some texts, by a plain break, or with its block."""
    stream = doing.client.stream(doing.prompt, model=doing.model)
    left = doing.chance.randrange(4)
    if doing.chance.random() < 0.5:
        async for _ in stream:
            left -= 1
            if left < 0:
                break
        return
    async with stream:
        async for _ in stream:
            left -= 1
            if left < 0:
                break


async def _deadline(doing: Doing) -> str:
    """A call of the stack, by hand, that has to end in time."""
    due = asyncio.get_running_loop().time() + doing.chance.uniform(0.0, 0.1)
    asked = [Message("user", doing.prompt)]
    request = LLMRequest(asked, doing.model, context=CallContext(deadline=due))
    if doing.chance.random() < 0.5:
        return (await doing.client.provider.complete(request)).text
    async with open_stream(doing.client.provider, request) as chunks:
        return "".join([chunk.text async for chunk in chunks])


async def _turn(doing: Doing) -> str:
    """A turn of a session, which is cleared now and then; and all that is remembered is whole."""
    session = doing.client.session(f"session-{doing.chance.randrange(_SESSIONS)}", "Be brief.")
    if doing.chance.random() < 0.1:
        await session.clear()
    if doing.chance.random() < 0.1:
        _check(await session.history())
    if doing.chance.random() < 0.5:
        return await session.ask(doing.prompt, model=doing.model)
    return "".join([text async for text in session.stream_text(doing.prompt, model=doing.model)])


async def clear_sessions(client: Aether) -> None:
    """Those that are used again and again: how long each is at a moment is left to chance."""
    for number in range(_SESSIONS):
        await client.session(f"session-{number}").clear()


async def _one_turn(doing: Doing) -> str:
    """A session of its own, of one turn."""
    session = doing.client.session(doing.tag)
    try:
        return await session.ask(doing.prompt)
    finally:
        await session.clear()


def _check(history: list[Message]) -> None:
    """Whole turns: each question with what was said to it."""
    told = [message for message in history if message.role != "system"]
    asked, answered = told[::2], told[1::2]
    assert len(asked) == len(answered), f"half a turn is remembered: {told}"
    for question, answer in zip(asked, answered, strict=True):
        tag = question.text.partition("]")[0].removeprefix("[")
        assert answer.text == said(tag), f"{question.text!r} is remembered with {answer.text!r}"


async def _tool(doing: Doing) -> str:
    """A tool, known before; now and then one that is new."""
    tools = [new_tool() if doing.chance.random() < _NEW else add]
    if doing.chance.random() < 0.5:
        return await doing.client.ask(doing.prompt, tools=tools)
    stream = doing.client.stream_text(doing.prompt, tools=tools)
    return "".join([text async for text in stream])


async def _block(doing: Doing) -> str:
    """A tool that blocks, in one of the threads for tools."""
    return await doing.client.ask(doing.prompt, tools=[_ADD_SLOWLY])


async def _boss(doing: Doing) -> str:
    """A task that is delegated to another agent."""
    scoped = Agent("boss", tools=_BOSS.tools, client=doing.client)
    return (await scoped.run(doing.prompt)).text


async def _typed(doing: Doing) -> str:
    """An answer of a type; now and then of one that is new."""
    kind = new_type() if doing.chance.random() < _NEW else Typed
    return (await doing.client.ask(doing.prompt, output=kind)).said


async def _listen(doing: Doing) -> str:
    """Somebody listens for as long as this takes."""
    heard: list[str] = []
    end = doing.client.events.subscribe("stream.chunk", lambda event: heard.append(event.name))
    try:
        return await _stream(doing)
    finally:
        end()


async def _sync(doing: Doing) -> str | None:
    """A blocking call, or a stream that is read so."""
    blocking, model = doing.client.sync, doing.model
    way = doing.chance.randrange(3)

    def work() -> str | None:
        if way == 0:
            return blocking.ask(doing.prompt, model=model)
        with blocking.stream_text(doing.prompt, model=model) as texts:
            return "".join(texts) if way == 1 else (next(iter(texts)), None)[1]

    return await doing.in_thread(work)


async def _brief(doing: Doing) -> str:
    """A client that is made for one question."""
    config = doing.chance.choice(doing.crew.configs)
    async with Aether(config=config) as client:
        return await client.ask(doing.prompt)


async def _brief_sync(doing: Doing) -> str | None:
    """The same, blocking."""
    config = doing.chance.choice(doing.crew.configs)

    def work() -> str:
        with Aether(config=config).sync as client:
            return client.ask(doing.prompt)

    return await doing.in_thread(work)


_ADD_SLOWLY = Tool(
    "add_slowly",
    "Add two numbers.",
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
    add_slowly,
)

Act = Callable[[Doing], Awaitable[str | None]]
KINDS: Mapping[str, tuple[int, Act]] = {
    "ask": (20, _ask),
    "stream": (20, _stream),
    "leave": (12, _leave),
    "deadline": (6, _deadline),
    "turn": (14, _turn),
    "once": (2, _one_turn),
    "tool": (6, _tool),
    "block": (3, _block),
    "boss": (4, _boss),
    "typed": (4, _typed),
    "listen": (3, _listen),
    "sync": (4, _sync),
    "brief": (1, _brief),
    "briefsync": (1, _brief_sync),
}
"""With its weight: so often is it chosen."""

BLOCKING = frozenset({"sync", "briefsync"})
"""Those that run in a thread, and so cannot be cancelled."""
