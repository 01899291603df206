from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from textwrap import dedent

import pytest

from aether.errors import ToolError
from aether.tools.threads import WorkerThreads


class Gate:
    """Work that blocks until it is let go, and says when it has begun."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._go = threading.Event()

    def __call__(self) -> str:
        self._loop.call_soon_threadsafe(self.begun.set)
        self._go.wait(60)
        return "through"

    def open(self) -> None:
        self._go.set()


async def abandon(
    threads: WorkerThreads, work_of: Callable[[Gate], Callable[[], object]] = lambda gate: gate
) -> Gate:
    """Leave one thread behind, hanging."""
    gate = Gate()
    task = asyncio.create_task(threads.run(work_of(gate)))
    await gate.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return gate


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread does after it has delivered, of which it tells nobody."""
    while not condition():  # noqa: ASYNC110 - see above
        await asyncio.sleep(0.001)


async def test_work_runs_in_a_daemon_thread_and_its_value_comes_back() -> None:
    threads = WorkerThreads()

    thread = await threads.run(threading.current_thread)

    assert thread is not threading.current_thread()
    assert thread.daemon


@pytest.mark.row("T2")
async def test_an_exception_comes_out_where_the_work_was_asked_for() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await WorkerThreads().run(fail)


async def test_an_idle_thread_is_used_again() -> None:
    threads = WorkerThreads()

    used = {await threads.run(threading.get_ident) for _ in range(200)}

    assert len(used) == 1


async def test_a_thread_with_nothing_to_do_ends() -> None:
    threads = WorkerThreads(idle_seconds=0.001)
    thread = await threads.run(threading.current_thread)

    await asyncio.get_running_loop().run_in_executor(None, thread.join, 10)

    assert not thread.is_alive()
    assert await threads.run(lambda: "again") == "again"


@pytest.mark.row("T5")
async def test_no_more_threads_run_than_the_limit_and_all_work_is_done() -> None:
    threads = WorkerThreads(limit=3)
    lock = threading.Lock()
    at_once = most = 0

    def work() -> int:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        with lock:
            at_once -= 1
        return threading.get_ident()

    idents = await asyncio.gather(*(threads.run(work) for _ in range(100)))

    assert most <= 3
    assert len(set(idents)) <= 3


@pytest.mark.row("T5")
async def test_work_beyond_the_limit_waits_while_threads_are_merely_busy() -> None:
    threads = WorkerThreads(limit=1)
    gate = Gate()
    first = asyncio.create_task(threads.run(gate))
    await gate.begun.wait()
    second = asyncio.create_task(threads.run(lambda: "done"))
    await asyncio.sleep(0)
    assert not second.done()

    gate.open()

    assert await first == "through"
    assert await second == "done"


@pytest.mark.row("T5")
async def test_a_thread_counts_as_abandoned_until_its_work_ends() -> None:
    threads = WorkerThreads(limit=2)
    gate = await abandon(threads)

    assert threads.abandoned == 1
    assert await threads.run(lambda: "another thread works") == "another thread works"

    gate.open()
    await until(lambda: threads.abandoned == 0)
    assert await threads.run(lambda: "again") == "again"


@pytest.mark.row("T5")
async def test_a_thread_given_up_counts_once_though_its_caller_is_cancelled_too() -> None:
    threads = WorkerThreads()
    loop = asyncio.get_running_loop()
    begun, go = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        go.wait(60)

    time = loop.time()
    task = asyncio.create_task(threads.run(hang, until=time))
    await asyncio.sleep(0)  # now its time is up, at the next turn of the loop
    begun.wait(60)
    loop.call_at(math.nextafter(time, math.inf), task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert threads.abandoned == 1

    go.set()
    await until(lambda: threads.abandoned == 0)


async def test_when_all_threads_are_abandoned_new_work_fails_at_once() -> None:
    threads = WorkerThreads(limit=2)
    gates = [await abandon(threads), await abandon(threads)]

    with pytest.raises(ToolError, match="All 2 threads"):
        await threads.run(lambda: "never")

    for gate in gates:
        gate.open()


@pytest.mark.row("T5")
async def test_when_the_last_thread_is_abandoned_waiting_work_fails_at_once() -> None:
    threads = WorkerThreads(limit=1)
    gate = Gate()
    first = asyncio.create_task(threads.run(gate))
    await gate.begun.wait()
    waiting = [asyncio.create_task(threads.run(lambda: "never")) for _ in range(2)]
    await asyncio.sleep(0)

    first.cancel()

    for task in waiting:
        with pytest.raises(ToolError, match="All 1 threads"):
            await task
    gate.open()


@pytest.mark.row("T5")
async def test_work_that_is_cancelled_before_it_began_is_not_done() -> None:
    threads = WorkerThreads(limit=1)
    gate = Gate()
    first = asyncio.create_task(threads.run(gate))
    await gate.begun.wait()
    done: list[int] = []
    second = asyncio.create_task(threads.run(lambda: done.append(1)))
    await asyncio.sleep(0)

    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.open()

    assert await first == "through"
    assert await threads.run(lambda: "next") == "next"
    assert not done
    assert threads.abandoned == 0


@pytest.mark.row("T18")
async def test_each_piece_of_work_has_its_own_copy_of_the_context() -> None:
    threads = WorkerThreads(limit=1)
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    def look_and_change() -> str:
        seen = variable.get()
        variable.set("changed")
        return seen

    variable.set("first")
    assert await threads.run(look_and_change) == "first"
    variable.set("second")
    assert await threads.run(look_and_change) == "second"
    assert variable.get() == "second"


def test_event_loops_share_the_threads_one_after_another() -> None:
    threads = WorkerThreads(limit=1)

    assert [asyncio.run(threads.run(lambda: 1)) for _ in range(3)] == [1, 1, 1]


def test_work_that_outlives_its_loop_disturbs_nobody() -> None:
    threads = WorkerThreads(limit=2)

    gate = asyncio.run(abandon(threads))
    gate.open()

    assert asyncio.run(threads.run(lambda: "fine")) == "fine"
    asyncio.run(until(lambda: threads.abandoned == 0))


async def test_nothing_of_the_work_is_kept_alive() -> None:
    class Witness:
        def fail(self) -> None:
            raise ValueError

    threads = WorkerThreads()
    witness = Witness()
    alive = weakref.ref(witness)
    gc.disable()
    try:
        with pytest.raises(ValueError):
            await threads.run(witness.fail)
        del witness
        async with asyncio.timeout(5):  # its thread tells of its end before it has let go of all
            await until(lambda: alive() is None)
    finally:
        gc.enable()


async def test_a_thread_is_not_free_before_what_it_worked_with_is_gone() -> None:
    went: list[threading.Thread] = []
    gone = threading.Event()

    class Slow:
        def __init__(self, gate: Gate) -> None:
            self.gate = gate

        def __call__(self) -> None:
            self.gate()

        def __del__(self) -> None:
            went.append(threading.current_thread())
            if went[0] is not threading.main_thread():
                gone.wait(60)

    threads = WorkerThreads(limit=2)
    (await abandon(threads, Slow)).open()
    try:
        await until(lambda: bool(went))
        assert went[0] is not threading.main_thread()
        assert await asyncio.wait_for(threads.run(threading.current_thread), 5) is not went[0]
        assert threads.abandoned == 1
    finally:
        gone.set()
    await until(lambda: threads.abandoned == 0)


async def test_work_that_hangs_keeps_nobody_alive_who_waited_for_it() -> None:
    class Witness:
        pass

    async def wait(work: Gate) -> None:
        witness = Witness()
        alive.append(weakref.ref(witness))
        await threads.run(work)

    threads = WorkerThreads()
    alive: list[weakref.ref[Witness]] = []
    gate = Gate()
    task = asyncio.create_task(wait(gate))
    ended = weakref.ref(task)
    await gate.begun.wait()
    gc.disable()
    try:
        task.cancel()
        await asyncio.wait([task])
        del task
        await asyncio.sleep(0)
        assert alive[0]() is None
        assert ended() is None
    finally:
        gc.enable()
        gate.open()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_starts_with_threads_of_its_own() -> None:
    script = dedent("""
        import asyncio, os, warnings
        warnings.simplefilter("ignore")  # newer Pythons warn of forking with threads
        from aether.tools.threads import worker_threads
        asyncio.run(worker_threads.run(int))
        child = os.fork()
        if child == 0:
            async def again():
                async with asyncio.timeout(5):
                    await worker_threads.run(int)
            asyncio.run(again())
            os._exit(0)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)

    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


@pytest.mark.row("T5")
def test_a_tool_that_hangs_does_not_keep_the_interpreter_from_exiting() -> None:
    script = dedent("""
        import asyncio, threading
        from aether.tools import build_tool, dispatch_tool
        from aether.llm.messages import ToolCall
        hang = build_tool(lambda: threading.Event().wait(), name="hang", timeout=0.01)
        print(asyncio.run(dispatch_tool(ToolCall("1", "hang"), tools=[hang])).error_type)
    """)

    ended = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=30, capture_output=True, text=True
    )

    assert ended.stdout == "TimeoutError\n"
    assert ended.stderr == ""
