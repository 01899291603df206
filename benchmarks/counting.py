"""Counting calls of functions, exactly: whatever the machine does, the numbers are the same."""

from __future__ import annotations

import sys
import sysconfig
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from benchmarks.machine import ROOT

_STDLIB = sysconfig.get_path("stdlib")
_GENERATED = "generated code (dataclasses and the like)"
_OWN = str(ROOT) + "/"


@dataclass
class Counted:
    """How often each function was called."""

    python: Counter[CodeType] = field(default_factory=Counter)
    """Functions in Python, a generator each time that it goes on."""
    builtin: Counter[str] = field(default_factory=Counter)
    """Functions in C, by the module that called them."""

    @property
    def total(self) -> int:
        """Calls of functions in Python."""
        return self.python.total()


async def counted(do: Callable[[], Awaitable[object]]) -> Counted:
    """Do it once and count the calls in this thread."""
    found = Counted()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            found.python[frame.f_code] += 1
        elif event == "c_call":
            found.builtin[module_of(frame.f_code.co_filename)] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        await do()
    finally:
        sys.setprofile(before)
    return found


def package_of(filename: str) -> str:
    """The package that a file of code belongs to: `aether`, `aiohttp`, `asyncio` and so on."""
    return module_of(filename).split(".")[0]


def module_of(filename: str) -> str:
    """The module that a file of code is: `aether.engine.loop`."""
    if filename == "<string>":
        return _GENERATED
    if filename.startswith("<"):
        return filename
    for folder in (*_site_packages(filename), _OWN, _STDLIB + "/"):
        if folder in filename:
            path = filename.rpartition(folder)[2]
            return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return Path(filename).stem


def _site_packages(filename: str) -> tuple[str, ...]:
    return ("site-packages/",) if "site-packages/" in filename else ()
