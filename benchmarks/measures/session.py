"""A turn of a session: what it costs, and what its store is told, however long the session is."""

from __future__ import annotations

from collections.abc import Sequence

from aether import Aether, Message
from aether.config import ProviderConfig
from aether.extensions.memory import InMemorySessionStore
from benchmarks.contracts import KEY, MODEL, PROMPT, Figure, Values
from benchmarks.measures import check
from benchmarks.server import TEXT
from benchmarks.setting import Setting, Times
from benchmarks.timing import cpu_us

SHORT, LONG = 10, 1000


def figures(times: Times) -> tuple[Figure, ...]:
    """What it yields."""
    return (
        Figure("session_short", f"a turn of a session after {SHORT} messages"),
        Figure("session_long", f"a turn of a session after {_long(times):,} messages"),
        Figure("session_added", "what a turn adds to the store", "messages"),
        Figure("session_rewritten", "what a turn writes again", "messages"),
    )


def _long(times: Times) -> int:
    """Questions and answers, so an even number."""
    return max(SHORT, times(LONG) // 2 * 2)


class CountingStore(InMemorySessionStore):
    """Counts the messages that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.added = 0
        self.rewritten = 0

    async def save(self, session_id: str, messages: Sequence[Message]) -> None:
        self.rewritten += len(messages)
        await super().save(session_id, messages)

    async def append(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        self.added += len(messages)
        await super().append(session_id, messages, expected_length=expected_length)

    async def replace(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        self.rewritten += len(messages)
        await super().replace(session_id, messages, expected_length=expected_length)


async def measure(setting: Setting) -> Values:
    """The processor time of a turn, each in a session of that length, and what is stored for it."""
    values: Values = {}
    for key, length in (("session_short", SHORT), ("session_long", _long(setting.times))):
        store = CountingStore()
        past = [Message("user", PROMPT), Message("assistant", TEXT)] * (length // 2)
        config = ProviderConfig("openai", model=MODEL, base_url=setting.url(), api_key=KEY)
        async with Aether(config=config, memory_store=store) as client:
            turns = 0

            async def turn() -> None:
                nonlocal turns
                name = f"session {turns}"
                turns += 1
                text = await client.session(name).ask(PROMPT)
                check(text == TEXT, text)

            times = setting.times(8)
            for number in range(5 * times + 1):
                await InMemorySessionStore.save(store, f"session {number}", past)
            values[key] = await cpu_us(turn, times=times, warm=1)
            values["session_added"] = store.added / turns
            values["session_rewritten"] = store.rewritten / turns
    return values
