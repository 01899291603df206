"""What a process holds, at a moment when nothing is under way."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import threading
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Figures", "descriptors", "keep_no_free_memory", "measure", "threads"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_KEEPING_NOTHING = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {"arena_max": 1, "tcache_count": 0, "mmap_threshold": 16 * 1024}.items()
)
_WORKERS = "aether-tool"
"""So are threads for tools called. Without work they end by themselves, after some seconds."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One measurement."""

    seconds: float
    """Since the phase began."""
    operations: int
    """Since then."""
    tasks: int
    """Of all loops and threads, those that have ended, but are still held, included."""
    descriptors: int
    threads: int
    """Without those of `workers`."""
    workers: int
    """Threads for tools."""
    resident: int
    """Bytes, after the C library has given back what it had free."""
    traced: int
    """Bytes that Python has allocated since the tracing began; 0 without tracing."""

    @property
    def held(self) -> tuple[int, int, int]:
        """What must be the same at each quiet moment."""
        return self.tasks, self.descriptors, self.threads


def keep_no_free_memory() -> None:
    """Begin this process again, unless that was done, with a C library that keeps no more free
    memory than it must.

    glibc keeps some in an arena for each of many threads; some more for each thread in a cache of
    small blocks, by size, that takes hours to fill and that trimming does not reach; and more of it
    the longer a process lives in which large buffers come and go between small ones that stay.
    Nobody holds it, and it would hide what somebody does hold. So there is one arena, there are no
    caches, and a large buffer has pages of its own. Only a process that begins can be told so.
    Other C libraries take no notice.
    """
    if os.environ.get("GLIBC_TUNABLES") != _KEEPING_NOTHING:
        os.environ["GLIBC_TUNABLES"] = _KEEPING_NOTHING
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def measure(seconds: float = 0.0, operations: int = 0) -> Figures:
    """Collect garbage, let the C library give back what is free, and then count. Linux only."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return Figures(
        seconds=seconds,
        operations=operations,
        tasks=sum(isinstance(each, asyncio.Task) for each in gc.get_objects()),
        descriptors=descriptors(),
        threads=threads(),
        workers=threading.active_count() - threads(),
        resident=int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE,
        traced=tracemalloc.get_traced_memory()[0],
    )


def descriptors() -> int:
    """Open files, the one included in which they are counted."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def threads() -> int:
    """Threads but for workers."""
    return sum(not thread.name.startswith(_WORKERS) for thread in threading.enumerate())
