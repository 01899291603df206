"""A stream of 200,000 chunks and one of 100,000: it must take twice the time, no more."""

from __future__ import annotations

from time import process_time

from benchmarks.contracts import Figure, Values
from benchmarks.measures import check
from benchmarks.server import text_of
from benchmarks.setting import Setting, Times

CHUNKS = 100_000


def figures(times: Times) -> tuple[Figure, ...]:
    """What it yields."""
    once = times(CHUNKS)
    return (
        Figure("long", f"one chunk of a stream of {once:,}", digits=1),
        Figure("long_ratio", f"a stream of {2 * once:,} to one of {once:,}", "times", 2),
    )


async def measure(setting: Setting) -> Values:
    """The processor time of a chunk of the shorter one, and the ratio of the two streams."""
    async with setting.client("chunks=100") as client:
        await client.stream(len)  # what is loaded by the first stream is no part of the ratio
    once = setting.times(CHUNKS)
    taken = {once: 0.0, 2 * once: 0.0}
    for chunks in taken:
        async with setting.client(f"chunks={chunks}") as client:
            texts: list[str] = []
            started = process_time()
            await client.stream(texts.append)
            taken[chunks] = process_time() - started
            check("".join(texts) == text_of(chunks), len(texts))
    return {"long": taken[once] / once * 1e6, "long_ratio": taken[2 * once] / taken[once]}
