"""Every built-in cache keeps what the port promises; room and time in each of them."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether.errors import ConfigurationError
from aether.extensions.caches import InMemoryCache, SQLiteCache
from aether.llm.caching import KIND, ResponseCache
from aether.registry import Registry
from aether.testing.caches import ResponseCacheConformance
from tests.llm.scripted import Clock


class TestInMemory(ResponseCacheConformance):
    def make_cache(self) -> ResponseCache:
        return InMemoryCache()


class TestSQLiteFile(ResponseCacheConformance):
    @pytest.fixture(autouse=True)
    def _use_a_file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "answers.sqlite"

    def make_cache(self) -> ResponseCache:
        return SQLiteCache(self.path)


class TestSQLiteInMemory(ResponseCacheConformance):
    def make_cache(self) -> ResponseCache:
        return SQLiteCache(":memory:")


def test_every_built_in_cache_is_enrolled() -> None:
    made = {type(case().make_cache()) for case in (TestInMemory, TestSQLiteInMemory)}
    registry = Registry()
    assert {registry.get(KIND, name) for name in registry.names(KIND)} <= made


def a_cache(kind: type[Any], *, clock: Clock | None = None, **options: Any) -> Any:
    options = options if clock is None else {**options, "clock": clock}
    return kind(**options) if kind is InMemoryCache else kind(":memory:", **options)


async def close(cache: Any) -> None:
    if isinstance(cache, SQLiteCache):
        await cache.aclose()


KINDS = pytest.mark.parametrize("kind", [InMemoryCache, SQLiteCache])


@KINDS
@pytest.mark.parametrize(
    "options",
    [
        {"max_bytes": 0},
        {"max_bytes": -1},
        {"max_bytes": 1.5},
        {"max_bytes": True},
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": float("nan")},
        {"ttl": float("inf")},
        {"ttl": "1"},
    ],
    ids=str,
)
def test_a_limit_that_cannot_be_is_refused(kind: type[Any], options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        a_cache(kind, **options)


@KINDS
async def test_the_least_recently_used_makes_room(kind: type[Any]) -> None:
    cache = a_cache(kind, max_bytes=30)
    for key in "abc":
        await cache.put(key, "x" * 9)
    assert await cache.get("a") is not None
    await cache.put("d", "x" * 9)
    assert [await cache.get(key) is not None for key in "abcd"] == [True, False, True, True]
    await close(cache)


@KINDS
async def test_a_value_larger_than_all_of_it_is_not_kept_and_costs_nothing_else(
    kind: type[Any],
) -> None:
    cache = a_cache(kind, max_bytes=30)
    await cache.put("a", "old")
    await cache.put("b", "x")
    await cache.put("a", "x" * 30)
    assert await cache.get("a") is None, "nor is the one before it, which is no longer right"
    assert await cache.get("b") == "x"
    await close(cache)


@KINDS
async def test_bytes_are_counted_not_characters(kind: type[Any]) -> None:
    cache = a_cache(kind, max_bytes=13)
    await cache.put("a", "\U0001f600" * 3)
    assert await cache.get("a") == "\U0001f600" * 3
    await cache.put("\u00e4", "\U0001f600" * 3)
    assert await cache.get("\u00e4") is None
    await close(cache)


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "get", "get", "delete", "clear"]),
        st.sampled_from("abcdef"),
        st.integers(0, 25),
    ),
    max_size=40,
)


@KINDS
@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_what_is_kept_is_what_a_plain_model_keeps(
    kind: type[Any], steps: list[tuple[str, str, int]]
) -> None:
    """Of 60 bytes, whatever is done: the same answers, and never more bytes."""

    async def run() -> None:
        cache = a_cache(kind, max_bytes=60)
        model: OrderedDict[str, str] = OrderedDict()
        for what, key, size in steps:
            if what == "put":
                await cache.put(key, "x" * size)
                model.pop(key, None)
                model[key] = "x" * size
                while sum(1 + len(value) for value in model.values()) > 60:
                    model.popitem(last=False)
            elif what == "get":
                assert await cache.get(key) == model.get(key)
                if key in model:
                    model.move_to_end(key)
            elif what == "delete":
                await cache.delete(key)
                model.pop(key, None)
            else:
                await cache.clear()
                model.clear()
            assert await _size(cache) == sum(1 + len(value) for value in model.values()) <= 60
        await close(cache)

    asyncio.run(run())


async def _size(cache: Any) -> int:
    if isinstance(cache, InMemoryCache):
        assert cache._bytes == sum(entry.size for entry in cache._entries.values())
        return cache._bytes

    def read() -> int:
        connection = cache._open()
        (told,) = connection.execute("SELECT bytes FROM total").fetchone()
        (real,) = connection.execute("SELECT coalesce(sum(size), 0) FROM answers").fetchone()
        assert told == real
        return int(told)

    size: int = await cache._run(read)
    return size


@KINDS
async def test_an_answer_expires(kind: type[Any]) -> None:
    clock = Clock()
    cache = a_cache(kind, ttl=10, clock=clock)
    await cache.put("a", "1")
    clock.now += 9.9
    assert await cache.get("a") == "1"
    clock.now += 0.1
    assert await cache.get("a") is None
    await cache.put("a", "2")
    assert await cache.get("a") == "2"
    await close(cache)


@KINDS
async def test_reading_does_not_prolong_the_time(kind: type[Any]) -> None:
    clock = Clock()
    cache = a_cache(kind, ttl=10, clock=clock)
    await cache.put("a", "1")
    for _ in range(4):
        clock.now += 2.4
        assert await cache.get("a") == "1"
    clock.now += 2.4
    assert await cache.get("a") is None
    await close(cache)


@KINDS
async def test_an_answer_from_the_future_has_expired(kind: type[Any]) -> None:
    """A clock that was put back keeps nothing for ever."""
    clock = Clock()
    cache = a_cache(kind, ttl=10, clock=clock)
    clock.now += 1_000_000
    await cache.put("a", "1")
    clock.now -= 1_000_000
    assert await cache.get("a") is None
    await cache.put("b", "2")
    clock.now += 1_000_000
    assert await cache.get("a") is None, "it does not come back when the clock is put on again"
    await close(cache)


@KINDS
async def test_without_a_time_nothing_expires_however_the_clock_jumps(kind: type[Any]) -> None:
    clock = Clock()
    cache = a_cache(kind, clock=clock)
    await cache.put("a", "1")
    for jump in (1e12, -2e12, 1e12):
        clock.now += jump
        assert await cache.get("a") == "1"
    await close(cache)


@KINDS
def test_threads_may_share_it(kind: type[Any]) -> None:
    cache = a_cache(kind, max_bytes=500)
    failed: list[BaseException] = []

    async def work(name: str) -> None:
        for number in range(60):
            key = f"{name}{number % 7}"
            await cache.put(key, key * 5)
            assert await cache.get(key) in (key * 5, None)

    def run(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as error:  # noqa: BLE001 - the test tells of it
            failed.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    asyncio.run(_check_bound(cache))


async def _check_bound(cache: Any) -> None:
    assert await _size(cache) <= 500
    await close(cache)


def test_what_it_is_told_by_its_repr() -> None:
    assert repr(InMemoryCache()) == "InMemoryCache(0 answers, 0 bytes)"
