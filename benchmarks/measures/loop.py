"""A tool loop over ever more turns: what one turn costs when many went before it.

Each turn sends all turns before it, as the protocol has it, so a turn costs more the later it is.
The functions that Python calls for a turn are counted beside that: they grow with the messages that
are sent, by a few for each of them, and must not grow faster.
"""

from __future__ import annotations

from benchmarks.contracts import Figure, Values
from benchmarks.counting import counted
from benchmarks.measures import check
from benchmarks.server import TEXT
from benchmarks.setting import Setting, Times
from benchmarks.timing import cpu_us

FEW, MANY = 8, 64


def figures(times: Times) -> tuple[Figure, ...]:
    """What it yields."""
    many = _many(times)
    return (
        Figure("loop_few", f"a turn of a tool loop of {FEW}"),
        Figure("loop_many", f"a turn of a tool loop of {many}"),
        Figure("loop_few_calls", f"functions called in a turn of {FEW}", "calls", 1),
        Figure("loop_many_calls", f"functions called in a turn of {many}", "calls", 1),
    )


def _many(times: Times) -> int:
    return max(FEW, times(MANY))


async def measure(setting: Setting) -> Values:
    """The processor time and the calls of a whole loop, divided by its turns."""
    values: Values = {}
    for key, turns in (("loop_few", FEW), ("loop_many", _many(setting.times))):
        async with setting.client(f"calls={turns - 1}") as client:
            text = await client.tool(turns)
            check(text == TEXT, text)

            async def loop() -> None:
                await client.tool(turns)  # noqa: B023 - it is called before the next

            values[key] = await cpu_us(loop, times=max(1, setting.times(128) // turns)) / turns
            values[f"{key}_calls"] = (await counted(loop)).total / turns
    return values
