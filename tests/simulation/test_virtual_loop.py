"""The loop of the simulations: no time passes, and chance says who goes first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.simulation.loop import Stuck, VirtualLoop


def test_the_loop_jumps_to_the_next_timer() -> None:
    async def sleep() -> float:
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(60))
        return asyncio.get_running_loop().time()

    assert run(sleep(), seed=0) == 3600


def test_the_loop_shows_who_is_stuck() -> None:
    async def wait_for_godot() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck, match="wait_for_godot"):
        run(wait_for_godot(), seed=0)


def test_the_loop_draws_who_goes_first() -> None:
    async def race() -> tuple[int, ...]:
        order: list[int] = []

        async def arrive(number: int) -> None:
            order.append(number)

        await asyncio.gather(*map(arrive, range(4)))
        return tuple(order)

    orders = [run(race(), seed=seed) for seed in range(50)]
    assert len(set(orders)) > 10
    assert orders == [run(race(), seed=seed) for seed in range(50)]


def run(work: Coroutine[Any, Any, Any], *, seed: int) -> Any:
    loop = VirtualLoop(random.Random(seed))
    try:
        return loop.run_until_complete(work)
    finally:
        loop._ready.clear()
        loop.close()
