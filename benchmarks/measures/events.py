"""Events: what they cost where nobody listens, and where somebody listens to all of them."""

from __future__ import annotations

from aether.events import EVENT_NAMES, Event
from benchmarks.contracts import Figure, Values
from benchmarks.counting import Counted, counted
from benchmarks.measures import check
from benchmarks.server import TEXT, text_of
from benchmarks.setting import Setting, Times
from benchmarks.subjects.aether import client
from benchmarks.timing import cpu_us

CHUNKS = 1000


def figures(times: Times) -> tuple[Figure, ...]:
    """What it yields."""
    built = f"built by a call and a stream of {times(CHUNKS):,}, no subscriber"
    return (
        Figure("events_unheard", built, "events"),
        Figure("events_heard", "the same, with one", "events"),
        Figure("events_call", "one call, a subscriber to each event"),
        Figure("events_chunk", "one chunk, a subscriber to each event", digits=1),
    )


async def measure(setting: Setting) -> Values:
    """The events that are built, and the processor time with a subscriber that does nothing."""
    chunks = setting.times(CHUNKS)
    one = client(setting.url(f"chunks={chunks}"))

    async def stream() -> None:
        await one.stream(len)

    async def both() -> None:
        text = await one.call()
        texts: list[str] = []
        await one.stream(texts.append)
        check((text, "".join(texts)) == (TEXT, text_of(chunks)), (text, texts))

    try:
        await both()
        unheard = _events(await counted(both))
        for name in EVENT_NAMES:
            one.aether.on(name)(_hear)
        heard = _events(await counted(both))
        times = setting.times(100)
        call = await cpu_us(one.call, times=times, warm=times // 2)
        chunk = await cpu_us(stream, times=setting.times(2)) / chunks
    finally:
        await one.close()
    return {
        "events_unheard": unheard,
        "events_heard": heard,
        "events_call": call,
        "events_chunk": chunk,
    }


def _events(found: Counted) -> int:
    return found.python[Event.__init__.__code__]


def _hear(event: Event) -> None:
    """Listen to everything, and do nothing about it."""
