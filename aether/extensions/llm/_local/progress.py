"""What the user sees while a model is fetched and loaded: a line or two on stderr.

It must not know what goes on meanwhile.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["FetchProgress", "loading_line"]

_WIDTH = 24
_MEGABYTE = 1_000_000


def _write(text: str) -> None:
    if sys.stderr is not None:  # None under pythonw
        sys.stderr.write(text)
        sys.stderr.flush()


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def loading_line(
    name: str, *, wanted: bool | None, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """`Loading <name> ... done in 1.2 s`; with `wanted=None` only where stderr is a terminal."""
    if wanted is False or (wanted is None and not _is_terminal()):
        yield
        return
    _write(f"Loading {name} ... ")
    started = clock()
    try:
        yield
    except BaseException:
        _write("failed\n")
        raise
    _write(f"done in {clock() - started:.1f} s\n")


class FetchProgress:
    """A bar on a terminal, else a line for each quarter of the file; nothing if not `wanted`."""

    def __init__(self, name: str, size: int, *, wanted: bool | None) -> None:
        self._name = name
        self._size = size
        self._shown = wanted is not False
        self._bar = self._shown and _is_terminal()
        self._last = -1

    def update(self, done: int) -> None:
        """Show that `done` bytes are here. Cheap to call for every block."""
        if not self._shown:
            return
        percent = 100 * done // self._size if self._size else 100
        step = percent if self._bar else percent // 25
        if step == self._last:
            return
        self._last = step
        amount = f"{done / _MEGABYTE:.0f} of {self._size / _MEGABYTE:.0f} MB"
        if self._bar:
            filled = _WIDTH * percent // 100
            bar = "#" * filled + "." * (_WIDTH - filled)
            _write(f"\rFetching {self._name} [{bar}] {percent:3}% {amount} ")
        else:
            _write(f"Fetching {self._name}: {percent}%, {amount}\n")

    def end(self) -> None:
        """Leave the bar's line."""
        if self._bar and self._last >= 0:
            _write("\n")
