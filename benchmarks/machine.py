"""This machine and this process: what they are, what they hold, and what they allow."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from benchmarks.contracts import CannotMeasureError

ROOT = Path(__file__).parents[1]
_STATM = Path("/proc/self/statm")


def described() -> str:
    """The machine, in one line."""
    system = f"{platform.system()} {platform.release()}"
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {system}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def resident() -> int:
    """The memory of this process that is in use, in bytes."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except OSError:
        raise CannotMeasureError("memory is read from /proc, which only Linux has") from None
    return pages * os.sysconf("SC_PAGE_SIZE")


def pin(cpu: int | None) -> None:
    """Run this process, and those that it starts, on one CPU, where the system can do that."""
    if cpu is not None and sys.platform == "linux":
        os.sched_setaffinity(0, {cpu})


def open_files(wanted: int) -> int:
    """Let this process open so many files, or as many as it may, and say how many that is."""
    try:
        import resource
    except ImportError:  # there is no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    allowed = min(allowed, 1 << 20)  # what systems refuse whose hard limit is infinite
    if soft != resource.RLIM_INFINITY and allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        return allowed
    return max(soft, allowed)
