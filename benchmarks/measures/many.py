"""A call while a thousand are under way: each answer takes the server 20 ms."""

from __future__ import annotations

import asyncio
from time import process_time

from benchmarks.contracts import CannotMeasureError, Client, Figure, Values
from benchmarks.machine import open_files
from benchmarks.setting import Setting

AT_ONCE = 1000
FIGURES = (Figure("many", f"one call, {AT_ONCE:,} in flight"),)


async def measure(setting: Setting) -> Values:
    """The processor time of a call, on connections that are open already."""
    at_once = setting.times(AT_ONCE)
    if (allowed := open_files(at_once + 100)) < at_once + 100:
        raise CannotMeasureError(f"{at_once:,} connections need more than {allowed:,} open files")
    async with setting.client("wait=20") as client:
        await _calls(client, at_once, each=1, pause=0.001)
        started = process_time()
        await _calls(client, at_once, each=3)
        return {"many": (process_time() - started) / (3 * at_once) * 1e6}


async def _calls(client: Client, at_once: int, *, each: int, pause: float = 0.0) -> None:
    """So many callers, each with so many calls; one starts so many seconds after another."""

    async def caller(number: int) -> None:
        await asyncio.sleep(number * pause)
        for _ in range(each):
            await client.call()

    async with asyncio.TaskGroup() as callers:
        for number in range(at_once):
            callers.create_task(caller(number))
