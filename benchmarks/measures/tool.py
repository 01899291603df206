"""A question that takes two turns: the model calls a tool, and answers with its result."""

from __future__ import annotations

from benchmarks.contracts import Figure, Values
from benchmarks.measures import check
from benchmarks.server import TEXT
from benchmarks.setting import Setting
from benchmarks.timing import cpu_us

FIGURES = (Figure("tool", "a tool flow of two turns"),)


async def measure(setting: Setting) -> Values:
    """The processor time of both turns and the tool."""
    async with setting.client() as client:
        text = await client.tool()
        check(text == TEXT, text)
        times = setting.times(60)
        return {"tool": await cpu_us(client.tool, times=times, warm=times // 2)}
