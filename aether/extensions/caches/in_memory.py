"""A cache of answers in this process's memory: gone with it.

It must not know what it keeps.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from aether.llm.wrapper import check_count, check_seconds

__all__ = ["InMemoryCache"]

MAX_BYTES = 64 * 1024 * 1024


class InMemoryCache:
    """Keeps at most `max_bytes` of keys and values in UTF-8, each for `ttl` seconds or for good.

    The least recently used make room; a value larger than all of it is not kept. Threads and event
    loops may share it. `clock` is monotonic, in seconds; an entry from its future has expired.
    """

    def __init__(
        self,
        max_bytes: int = MAX_BYTES,
        *,
        ttl: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_count("max_bytes", max_bytes)
        if ttl is not None:
            check_seconds("ttl", ttl, minimum=0.001)
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    async def get(self, key: str) -> str | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if self._ttl is not None and not 0 <= self._clock() - entry.made < self._ttl:
                self._drop(key)
                return None
            self._entries.move_to_end(key)
        return entry.value.decode("utf-8", "surrogatepass")

    async def put(self, key: str, value: str) -> None:
        encoded = value.encode("utf-8", "surrogatepass")
        size = len(encoded) + len(key.encode("utf-8", "surrogatepass"))
        with self._lock:
            self._drop(key)
            if size > self._max_bytes:
                return
            self._entries[key] = _Entry(encoded, size, self._clock())
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    async def delete(self, key: str) -> None:
        with self._lock:
            self._drop(key)

    async def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def __repr__(self) -> str:
        return f"InMemoryCache({len(self._entries)} answers, {self._bytes} bytes)"

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size


class _Entry(NamedTuple):
    value: bytes
    size: int
    made: float
