"""Turns come one at a time, first come, first served, whatever happens to who waits."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import Any

import pytest

from aether.memory._turns import Turn, TurnQueue

NOBODY = lambda: None  # noqa: E731 - the shortest owner


async def pass_turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def is_free(queue: TurnQueue) -> bool:
    """Whether a turn can be had at once."""
    taking = asyncio.ensure_future(queue.take(NOBODY))
    await pass_turns(2)
    free = taking.done()
    taking.cancel()
    for turn in await asyncio.gather(taking, return_exceptions=True):
        if isinstance(turn, Turn):
            turn.end()
    return free


async def test_a_free_turn_is_given_without_giving_way() -> None:
    taking = TurnQueue().take(NOBODY)
    with pytest.raises(StopIteration) as taken:
        taking.send(None)
    taken.value.value.end()


async def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    queue, order = TurnQueue(), []

    async def go(number: int) -> None:
        with await queue.take(NOBODY):
            order.append(number)
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*(go(number) for number in range(100)))
    assert order == [number for number in range(100) for _ in range(2)]


async def test_an_error_ends_the_turn() -> None:
    queue = TurnQueue()
    with pytest.raises(ValueError, match="mine"), await queue.take(NOBODY):
        raise ValueError("mine")
    assert await is_free(queue)


async def test_ending_twice_ends_no_other_turn() -> None:
    queue = TurnQueue()
    first = await queue.take(NOBODY)
    first.end()
    with await queue.take(NOBODY):
        first.end()
        assert not await is_free(queue)
    assert await is_free(queue)


async def test_who_is_cancelled_while_waiting_leaves_the_queue() -> None:
    queue = TurnQueue()
    first = await queue.take(NOBODY)
    waiting = [asyncio.ensure_future(queue.take(NOBODY)) for _ in range(3)]
    await pass_turns()
    waiting[0].cancel()
    waiting[1].cancel()
    await pass_turns()
    first.end()
    await pass_turns()
    assert [task.cancelled() for task in waiting] == [True, True, False]
    assert waiting[2].done()
    waiting[2].result().end()
    assert await is_free(queue)


@pytest.mark.parametrize("ticks", [0, 1])
async def test_cancelled_just_as_the_turn_comes_it_is_passed_on(
    ticks: int, caplog: pytest.LogCaptureFixture
) -> None:
    queue = TurnQueue()
    first = await queue.take(NOBODY)
    second = asyncio.ensure_future(queue.take(NOBODY))
    third = asyncio.ensure_future(queue.take(NOBODY))
    await pass_turns()
    first.end()  # from here the turn is the second's, who does not know it yet
    for _ in range(ticks):
        await asyncio.sleep(0)
    second.cancel()
    (await third).end()
    assert second.cancelled()
    assert await is_free(queue)
    assert not caplog.records, "no callback failed"


async def test_a_dropped_turn_ends_without_the_collector() -> None:
    queue = TurnQueue()
    gc.disable()
    try:
        turn = await queue.take(NOBODY)
        assert not await is_free(queue)
        del turn
        assert await is_free(queue)
    finally:
        gc.enable()


async def test_a_turn_belongs_to_its_owner_until_it_ends() -> None:
    queue = TurnQueue()
    task = asyncio.current_task()
    assert task is not None
    assert not queue.belongs_to(task)
    with await queue.take(weakref.ref(task)):
        assert queue.belongs_to(task)
        assert not queue.belongs_to(None)
        other = asyncio.ensure_future(pass_turns())
        assert not queue.belongs_to(other)
        await other
    assert not queue.belongs_to(task)
    with await queue.take(NOBODY):
        assert not queue.belongs_to(task)
        assert not queue.belongs_to(None)


def test_it_serves_one_loop_after_another() -> None:
    queue = TurnQueue()

    async def contend() -> int:
        async def go() -> int:
            with await queue.take(NOBODY):
                await asyncio.sleep(0)
                return 1

        return sum(await asyncio.gather(*(go() for _ in range(5))))

    assert [asyncio.run(contend()) for _ in range(2)] == [5, 5]


def test_a_turn_whose_loop_was_closed_is_over() -> None:
    queue = TurnQueue()
    kept: list[Turn] = []

    async def hold() -> None:
        kept.append(await queue.take(NOBODY))

    async def next_one() -> None:
        with await asyncio.wait_for(queue.take(NOBODY), 1):
            kept[0].end()  # late, and without effect
            assert not await is_free(queue)

    asyncio.run(hold())
    asyncio.run(next_one())


def test_who_waited_in_a_loop_that_was_closed_is_passed_over() -> None:
    queue = TurnQueue()
    dead, alive = asyncio.new_event_loop(), asyncio.new_event_loop()
    first = alive.run_until_complete(queue.take(NOBODY))
    waiting: Any = queue.take(NOBODY)

    async def begin_to_wait() -> None:
        waiting.send(None)

    dead.run_until_complete(begin_to_wait())
    dead.close()

    async def go() -> None:
        third = asyncio.ensure_future(queue.take(NOBODY))
        await pass_turns()
        first.end()
        (await asyncio.wait_for(third, 1)).end()

    alive.run_until_complete(go())
    alive.close()
    waiting.close()


def test_threads_with_loops_of_their_own_take_turns() -> None:
    queue, inside, most = TurnQueue(), 0, 0

    async def go() -> None:
        nonlocal inside, most
        for _ in range(30):
            with await queue.take(NOBODY):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1
            await asyncio.sleep(0)

    threads = [threading.Thread(target=asyncio.run, args=(go(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert (inside, most) == (0, 1)


def test_a_loop_that_sleeps_in_another_thread_is_woken() -> None:
    queue, loop = TurnQueue(), asyncio.new_event_loop()
    first = loop.run_until_complete(queue.take(NOBODY))

    async def take() -> None:
        (await queue.take(NOBODY)).end()

    thread = threading.Thread(target=asyncio.run, args=(take(),), daemon=True)
    thread.start()
    while not queue._waiting:
        time.sleep(0.001)
    time.sleep(0.01)  # it goes to sleep now; sooner or later is both fine
    first.end()
    thread.join(10)
    assert not thread.is_alive()
    loop.close()
