"""The conformance suite of caches of answers: what every `ResponseCache` must do, as tests.

It must not know where a cache keeps what it is given. Run your own through it:

    from aether.testing.caches import ResponseCacheConformance

    class TestMyCache(ResponseCacheConformance):
        def make_cache(self):
            return MyCache(...)     # an empty one, with room for some hundred kilobytes

pytest collects the inherited tests; they need pytest-asyncio, in any mode, or its like.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from aether.llm.caching import ResponseCache
from aether.testing._asynchronous import AsynchronousTests

__all__ = ["ResponseCacheConformance"]

_RICH = '["\N{SNOWMAN} \U0001f600 \\u0000 \u2028 \x00 \r\n\t \\" "]'


class ResponseCacheConformance(AsynchronousTests):
    """Inherit from it, and say how to make the cache."""

    def make_cache(self) -> ResponseCache | Awaitable[ResponseCache]:
        """A new, empty cache."""
        raise NotImplementedError("say how to make the cache")

    async def test_nothing_is_found_under_an_unknown_key(self) -> None:
        async with self._cache() as cache:
            assert await cache.get("unknown") is None
            await cache.delete("unknown")
            await cache.clear()

    @pytest.mark.parametrize("value", ["", "[]", _RICH, "x" * 100_000])
    async def test_what_was_put_is_found_as_it_was(self, value: str) -> None:
        async with self._cache() as cache:
            await cache.put("a", value)
            assert await cache.get("a") == value
            assert await cache.get("a") == value

    async def test_putting_again_replaces(self) -> None:
        async with self._cache() as cache:
            await cache.put("a", "1")
            await cache.put("a", "2")
            assert await cache.get("a") == "2"

    async def test_what_was_deleted_is_gone(self) -> None:
        async with self._cache() as cache:
            await cache.put("a", "1")
            await cache.put("b", "2")
            await cache.delete("a")
            assert await cache.get("a") is None
            assert await cache.get("b") == "2"

    async def test_clearing_forgets_everything(self) -> None:
        async with self._cache() as cache:
            for number in range(10):
                await cache.put(str(number), "x")
            await cache.clear()
            assert [await cache.get(str(number)) for number in range(10)] == [None] * 10
            await cache.put("1", "again")
            assert await cache.get("1") == "again"

    @pytest.mark.parametrize(
        "name", ["A", "a ", "%", "*", "'; --", "a/../a", "\U0001f600", "x" * 500]
    )
    async def test_a_key_means_itself_alone(self, name: str) -> None:
        async with self._cache() as cache:
            await cache.put("a", "1")
            assert await cache.get(name) is None
            await cache.put(name, "2")
            assert await cache.get("a") == "1"
            await cache.delete(name)
            assert await cache.get("a") == "1"

    async def test_many_at_once_do_not_mix(self) -> None:
        async with self._cache() as cache:
            await asyncio.gather(*(cache.put(f"k{n}", f"v{n}") for n in range(50)))
            found = await asyncio.gather(*(cache.get(f"k{n}") for n in range(50)))
        assert found == [f"v{n}" for n in range(50)]

    async def test_closing_twice_is_fine(self) -> None:
        async with self._cache() as cache:
            await cache.put("a", "1")
            await _close(cache)

    def test_it_works_in_one_loop_after_another(self) -> None:
        made = self.make_cache()
        if inspect.isawaitable(made):
            return  # it belongs to the loop that makes it

        async def once(number: int) -> str | None:
            await made.put(f"k{number}", "x")
            return await made.get("k0")

        assert [asyncio.run(once(number)) for number in range(3)] == ["x"] * 3
        asyncio.run(_close(made))

    @asynccontextmanager
    async def _cache(self) -> AsyncIterator[ResponseCache]:
        made = self.make_cache()
        cache = await made if inspect.isawaitable(made) else made
        assert isinstance(cache, ResponseCache), (
            f"{type(cache).__name__} lacks one of get(), put(), delete() and clear()"
        )
        try:
            yield cache
        finally:
            await _close(cache)


async def _close(cache: ResponseCache) -> None:
    close = getattr(cache, "aclose", None)
    if close is not None:
        await close()
