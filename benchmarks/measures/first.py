"""The time until the first text of a stream is there, from a server that answers at once."""

from __future__ import annotations

from statistics import median
from time import perf_counter

from benchmarks.contracts import Figure, Values
from benchmarks.setting import Setting

FIGURES = (Figure("first", "until the first text of a stream (by the clock)"),)


async def measure(setting: Setting) -> Values:
    """The median time by the clock, the server's included."""
    heard: list[float] = []
    waited: list[float] = []
    async with setting.client("chunks=5") as client:
        for _ in range(setting.times(150)):
            heard.clear()
            started = perf_counter()
            await client.stream(lambda _: heard.append(perf_counter()))
            waited.append((heard[0] - started) * 1e6)
    return {"first": median(waited[len(waited) // 5 :])}
