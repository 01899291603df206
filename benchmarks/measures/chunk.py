"""A chunk of a stream that comes as fast as it can be read, so many in each read."""

from __future__ import annotations

from benchmarks.contracts import Figure, Values
from benchmarks.measures import check
from benchmarks.server import text_of
from benchmarks.setting import Setting, Times
from benchmarks.timing import cpu_us

CHUNKS = 1000


def figures(times: Times) -> tuple[Figure, ...]:
    """What it yields."""
    return (Figure("chunk", f"one chunk of a stream of {times(CHUNKS):,}", digits=1),)


async def measure(setting: Setting) -> Values:
    """The processor time of a stream, divided by its chunks."""
    chunks = setting.times(CHUNKS)
    async with setting.client(f"chunks={chunks}") as client:
        texts: list[str] = []
        await client.stream(texts.append)
        check("".join(texts) == text_of(chunks), texts)

        async def stream() -> None:
            texts.clear()
            await client.stream(texts.append)

        return {"chunk": await cpu_us(stream, times=setting.times(2), warm=1) / chunks}
