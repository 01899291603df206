"""Memory over many calls, every other one a short stream: what a process keeps of each.

The first calls are not counted: a ledger of costs keeps the last 10,000 entries, and fills first.
"""

from __future__ import annotations

import gc

from benchmarks.contracts import Client, Figure, Values
from benchmarks.machine import resident
from benchmarks.measures import check
from benchmarks.server import TEXT, text_of
from benchmarks.setting import Setting
from benchmarks.timing import slope

BEFORE, PART, WHOLE = 12_000, 20_000, 100_000
CHUNKS = 10
_POINTS, _LEAST = 20, 500
"""So often is memory read, but after so many calls at the earliest."""
FIGURES = (
    Figure("memory_calls", "while memory was read, every other one a stream", "calls"),
    Figure("memory", "the same, memory kept for each call", "B", 1),
    Figure("memory_size", "the same, memory of the process in the end", "MB", 1),
)


async def measure(setting: Setting) -> Values:
    """The slope of the line through the resident memory, as it is from time to time."""
    calls = setting.times(WHOLE if setting.is_whole else PART)
    async with setting.client(f"chunks={CHUNKS}") as client:
        await _ask(client, setting.times(BEFORE))
        points: list[tuple[float, float]] = []
        each = min(calls, max(_LEAST, calls // _POINTS))
        for done in range(0, calls + 1, each):
            gc.collect()
            points.append((done, resident()))
            await _ask(client, each)
    return {
        "memory_calls": calls,
        "memory": slope(points),
        "memory_size": points[-1][1] / 1e6,
    }


async def _ask(client: Client, times: int) -> None:
    texts: list[str] = []
    for number in range(times):
        texts.clear()
        if number % 2:
            await client.stream(texts.append)
        else:
            texts.append(await client.call())
        said = "".join(texts)
        check(said == (text_of(CHUNKS) if number % 2 else TEXT), said)
