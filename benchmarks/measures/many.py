"""A call while a thousand are under way: each answer takes the server 20 ms."""

from __future__ import annotations

import asyncio
from time import process_time

from benchmarks.contracts import PROMPT, CannotMeasureError, Client, Figure, Values
from benchmarks.machine import open_files
from benchmarks.measures import check
from benchmarks.server import TEXT
from benchmarks.setting import Setting, Times

AT_ONCE, _EACH = 1000, 3
_WAIT = 20
"""So many ms takes the server for an answer."""


def figures(times: Times) -> tuple[Figure, ...]:
    """What it yields."""
    return (Figure("many", f"one call, {times(AT_ONCE):,} in flight"),)


async def measure(setting: Setting) -> Values:
    """The processor time of a call, on connections that are open already."""
    at_once = setting.times(AT_ONCE)
    if (allowed := open_files(at_once + 100)) < at_once + 100:
        raise CannotMeasureError(f"{at_once:,} connections need more than {allowed:,} open files")
    async with setting.client(f"wait={_WAIT},together={at_once}") as client:
        await _open(client, at_once)

        async def caller() -> None:
            for _ in range(_EACH):
                check((text := await client.call()) == TEXT, text)

        started = process_time()
        async with asyncio.TaskGroup() as callers:
            for _ in range(at_once):
                callers.create_task(caller())
        return {"many": (process_time() - started) / (_EACH * at_once) * 1e6}


async def _open(client: Client, count: int) -> None:
    """Have so many calls under way at once, so that there are so many connections.

    They are answered when all are there; one starts when the one before is on its way, so that no
    connection waits for its turn in this process or in the system's queue.
    """
    await client.call()
    started = process_time()
    await client.call()
    pause = 3 * (process_time() - started)
    async with asyncio.TaskGroup() as calls:
        for number in range(count):
            calls.create_task(client.call(f"{PROMPT} mark={number:05}"))
            await asyncio.sleep(pause)
