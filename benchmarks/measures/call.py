"""A call, one after another on one connection."""

from __future__ import annotations

from benchmarks.contracts import Figure, Values
from benchmarks.measures import check
from benchmarks.server import TEXT
from benchmarks.setting import Setting
from benchmarks.timing import cpu_us

FIGURES = (Figure("call", "one call"),)


async def measure(setting: Setting) -> Values:
    """The processor time of a call."""
    async with setting.client() as client:
        text = await client.call()
        check(text == TEXT, text)
        times = setting.times(150)
        return {"call": await cpu_us(client.call, times=times, warm=times // 2)}
