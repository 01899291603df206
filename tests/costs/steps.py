"""Counting all that is done, whoever's code does it: functions in Python and in C, instructions.

What the tests do themselves is left out of functions, and is part of the instructions.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

__all__ = ["Steps", "instructions", "mark", "steps"]

Work = Callable[[], Awaitable[object]]
_WARM = 3
"""So often is it done before: what is loaded, built or remembered once is no part of it."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What was called in this thread while some work ran once."""

    python: Counter[str] = field(default_factory=Counter)
    """Functions entered in Python, as `module:name`; a generator each time that it goes on."""
    c: Counter[str] = field(default_factory=Counter)
    """Functions called in C, by the type that they belong to, if any: `Pattern.search`, `len`."""

    def __sub__(self, other: Steps) -> Steps:
        return Steps(self.python - other.python, self.c - other.c)


async def steps(work: Work) -> Steps:
    """The functions that are called by `work`, once warmed up."""
    for _ in range(_WARM):
        await work()
    found = Steps()

    def note(frame: FrameType, what: str, called: Any) -> None:
        module = frame.f_globals.get("__name__", "?")
        if module.startswith("tests."):
            return
        if what == "call":
            found.python[f"{module}:{frame.f_code.co_name}"] += 1
        elif what == "c_call":
            found.c[_name_of(called)] += 1

    with _without_collector():
        sys.setprofile(note)
        try:
            await work()
        finally:
            sys.setprofile(None)
    return found


async def instructions(work: Work) -> list[int]:
    """How many instructions of Python's virtual machine were run by the time of each `mark`, and
    by the end of `work`, once warmed up.

    What a function in C does is one instruction, however long it takes.
    """
    for _ in range(_WARM):
        await work()
    with _without_collector():
        return await (_monitored(work) if sys.version_info >= (3, 12) else _traced(work))


async def _traced(work: Work) -> list[int]:
    count = 0
    found: list[int] = []

    def note(_: FrameType, what: str, __: object) -> Callable[..., Any]:
        nonlocal count
        count += what == "opcode"
        return note

    def enter(frame: FrameType, _: str, __: object) -> Callable[..., Any]:
        if frame.f_code is mark.__code__:
            found.append(count)
        frame.f_trace_opcodes = True
        return note

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        await work()
    finally:
        sys.settrace(before)
    return [*found, count]


async def _monitored(work: Work) -> list[int]:
    """The same from Python 3.12 on, where tracing misses functions that were called before."""
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
    count = 0
    found: list[int] = []

    def note(*_: object) -> None:
        nonlocal count
        count += 1

    def enter(*_: object) -> None:
        found.append(count)

    tool = monitoring.OPTIMIZER_ID  # the one that no coverage or profiler takes
    events = monitoring.events
    monitoring.use_tool_id(tool, "steps")
    try:
        monitoring.register_callback(tool, events.INSTRUCTION, note)
        monitoring.register_callback(tool, events.PY_START, enter)
        monitoring.set_local_events(tool, mark.__code__, events.PY_START)
        monitoring.set_events(tool, events.INSTRUCTION)
        await work()
    finally:
        monitoring.set_local_events(tool, mark.__code__, 0)
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    return [*found, count]


def mark() -> None:
    """Where `instructions` is to look how far it is."""


@contextmanager
def _without_collector() -> Iterator[None]:
    """It would finalize now and then what others have left."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _name_of(called: Any) -> str:
    owner = getattr(called, "__self__", None)
    if owner is None or type(owner).__name__ == "module":
        return str(called.__name__)
    return f"{type(owner).__name__}.{called.__name__}"
