"""Processor time: of what is measured, and of a piece of work that never changes.

The time is that of this process and all its threads, the system's work for it included; the server
is another process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import process_time

BLOCKS = 5


def reference_us() -> float:
    """How long this machine takes just now for a fixed piece of pure Python, in µs."""
    return min(_reference_us() for _ in range(3))


def _reference_us() -> float:
    started = process_time()
    lengths: dict[str, int] = {}
    for number in range(10_000):
        key = f"number {number % 89}"
        lengths[key] = lengths.get(key, 0) + len(key.split(" ")[1])
    return (process_time() - started) * 1e6


async def cpu_us(do: Callable[[], Awaitable[object]], *, times: int, warm: int = 0) -> float:
    """The processor time of doing it once, in µs: the least of some blocks of so many times.

    What else runs on the machine can make a block slower, and nothing makes it faster.
    """
    for _ in range(warm):
        await do()
    blocks = []
    for _ in range(BLOCKS):
        started = process_time()
        for _ in range(times):
            await do()
        blocks.append((process_time() - started) / times * 1e6)
    return min(blocks)


def slope(points: list[tuple[float, float]]) -> float:
    """How steep the line is that lies nearest to these points."""
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
