"""The time until the first text of a stream is there, from a server that answers at once."""

from __future__ import annotations

from time import perf_counter

from benchmarks.contracts import Figure, Values
from benchmarks.measures import check
from benchmarks.server import text_of
from benchmarks.setting import Setting

CHUNKS = 5
FIGURES = (Figure("first", "until the first text of a stream (by the clock)"),)


async def measure(setting: Setting) -> Values:
    """The time by the clock, the server's included, that a tenth of the streams does not take.

    The rest may have waited for what else runs on the machine.
    """
    heard: list[float] = []
    waited: list[float] = []
    async with setting.client(f"chunks={CHUNKS}") as client:
        texts: list[str] = []
        await client.stream(texts.append)
        check("".join(texts) == text_of(CHUNKS), texts)
        for _ in range(setting.times(150)):
            heard.clear()
            started = perf_counter()
            await client.stream(lambda _: heard.append(perf_counter()))
            waited.append((heard[0] - started) * 1e6)
    return {"first": sorted(waited)[len(waited) // 10]}
