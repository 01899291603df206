"""An agent with one tool, built over a client that is there."""

from __future__ import annotations

import gc
import tracemalloc

from benchmarks.contracts import CannotMeasureError, Figure, Values
from benchmarks.setting import Setting
from benchmarks.timing import cpu_us

FIGURES = (
    Figure("agent", "an agent, built", digits=1),
    Figure("agent_size", "the same, its memory", "KiB", 1),
)


async def measure(setting: Setting) -> Values:
    """The processor time and Python's memory for one agent, of many that are kept."""
    async with setting.client() as client:
        if client.agent() is None:
            raise CannotMeasureError("it has no agents")

        async def build() -> None:
            client.agent()

        times = setting.times(500)
        taken = await cpu_us(build, times=times, warm=times // 10)
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            kept = [client.agent() for _ in range(100)]
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        return {"agent": taken, "agent_size": (after - before) / len(kept) / 1024}
