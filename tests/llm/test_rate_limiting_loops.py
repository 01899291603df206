"""One limiter serves several event loops, one after another or in threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from aether.extensions.llm.fake import FakeProvider
from aether.extensions.llm.rate_limiting import RateLimitingProvider
from aether.llm.policies import RateLimit
from tests.llm.scripted import MODEL, a_request

PATIENCE = 5.0


def until(met: Callable[[], bool]) -> None:
    """Wait in real time for what another thread does."""
    end = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_loops_in_threads_share_the_rate() -> None:
    inner = FakeProvider()
    provider = RateLimitingProvider(inner, RateLimit(6000))  # 100 at once, then one in 10 ms
    barrier = threading.Barrier(4)
    counts: list[int] = []

    def work() -> None:
        async def calls() -> None:
            barrier.wait(PATIENCE)
            answers = await asyncio.gather(*(provider.complete(a_request()) for _ in range(26)))
            counts.append(len(answers))

        asyncio.run(calls())

    started = time.monotonic()
    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert counts == [26] * 4
    assert len(inner.requests) == 104
    assert time.monotonic() - started >= 0.0399
    assert provider.waiting(MODEL) == 0


class Frozen:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_cancelled_head_lets_another_loop_go_on() -> None:
    clock = Frozen()
    inner = FakeProvider()
    provider = RateLimitingProvider(inner, RateLimit(1), clock=clock)
    release = threading.Event()

    def first() -> None:
        async def call() -> None:
            await provider.complete(a_request("starts"))
            head = asyncio.ensure_future(provider.complete(a_request("head")))
            await asyncio.get_running_loop().run_in_executor(None, release.wait, PATIENCE)
            clock.now = 60.0  # the time has come, but nobody has looked yet
            head.cancel()
            await asyncio.wait([head])

        asyncio.run(call())

    one = threading.Thread(target=first, daemon=True)
    one.start()
    until(lambda: provider.waiting(MODEL) == 1)
    two = threading.Thread(
        target=lambda: asyncio.run(provider.complete(a_request("behind"))), daemon=True
    )
    two.start()
    until(lambda: provider.waiting(MODEL) == 2)
    release.set()
    one.join(PATIENCE)
    two.join(PATIENCE)
    assert not one.is_alive()
    assert not two.is_alive()
    assert [request.messages[0].text for request in inner.requests] == ["starts", "behind"]


def test_who_waited_in_a_loop_that_was_closed_is_forgotten() -> None:
    clock = Frozen()
    provider = RateLimitingProvider(FakeProvider(), RateLimit(1), clock=clock)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(provider.complete(a_request()))
    left = loop.create_task(provider.complete(a_request()))
    loop.run_until_complete(asyncio.sleep(0))
    assert provider.waiting(MODEL) == 1
    loop.close()  # without a word to its tasks
    clock.now = 60.0
    answer = asyncio.run(asyncio.wait_for(provider.complete(a_request()), PATIENCE))
    assert answer.text == "hello"
    assert provider.waiting(MODEL) == 0
    left.get_coro().close()
    left._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_loop_that_ends_takes_its_calls_out_of_the_queue() -> None:
    clock = Frozen()
    provider = RateLimitingProvider(FakeProvider(), RateLimit(1), clock=clock)

    async def leave() -> None:
        await provider.complete(a_request())
        tasks = [asyncio.ensure_future(provider.complete(a_request())) for _ in range(3)]
        await asyncio.sleep(0)
        assert provider.waiting(MODEL) == 3
        del tasks

    asyncio.run(leave())
    assert provider.waiting(MODEL) == 0
    clock.now = 60.0
    asyncio.run(provider.complete(a_request()))


@pytest.mark.parametrize("runs", [3])
def test_loops_one_after_another_share_the_rate(runs: int) -> None:
    inner = FakeProvider()
    provider = RateLimitingProvider(inner, RateLimit(60_000 / 10))
    for _ in range(runs):
        asyncio.run(provider.complete(a_request()))
    assert len(inner.requests) == runs


def test_who_stands_behind_a_loop_that_is_blocked_does_not_look_again_and_again() -> None:
    """Its own time has come, but not its turn."""
    looks = 0

    def counted(seconds: float) -> asyncio.Timeout:
        nonlocal looks
        looks += 1
        return asyncio.timeout(seconds)

    inner = FakeProvider()  # 20 at once, then one in 50 ms
    provider = RateLimitingProvider(inner, RateLimit(1_200), timeout=counted)
    queued, release = threading.Event(), threading.Event()

    async def first() -> None:
        await asyncio.gather(*(provider.complete(a_request()) for _ in range(20)))
        head = asyncio.ensure_future(provider.complete(a_request()))
        await asyncio.sleep(0)
        queued.set()
        release.wait(PATIENCE)  # the loop stands still, and with it the head of the queue
        await head

    blocked = threading.Thread(target=asyncio.run, args=(first(),), daemon=True)
    blocked.start()
    assert queued.wait(PATIENCE)
    assert provider.waiting(MODEL) == 1

    async def behind() -> None:
        calls = [asyncio.ensure_future(provider.complete(a_request())) for _ in range(5)]
        await asyncio.sleep(0.18)
        assert provider.waiting(MODEL) == 6
        assert looks <= 2 + 2 * len(calls)
        release.set()
        await asyncio.gather(*calls)

    asyncio.run(behind())
    blocked.join(PATIENCE)
    assert len(inner.requests) == 26
    assert provider.waiting(MODEL) == 0
