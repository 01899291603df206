"""A chunk that comes alone, one each millisecond: each is a read of its own."""

from __future__ import annotations

from benchmarks.contracts import Figure, Values
from benchmarks.measures import check
from benchmarks.server import text_of
from benchmarks.setting import Setting
from benchmarks.timing import cpu_us

CHUNKS = 200
FIGURES = (Figure("paced", "one chunk each millisecond"),)


async def measure(setting: Setting) -> Values:
    """The processor time of a stream, waking up for each chunk included, divided by its chunks."""
    chunks = setting.times(CHUNKS)
    async with setting.client(f"chunks={chunks},pause=1") as client:
        texts: list[str] = []
        await client.stream(texts.append)
        check("".join(texts) == text_of(chunks), texts)
        return {"paced": await cpu_us(lambda: client.stream(texts.append), times=1) / chunks}
