"""Failures that reach nobody: those that are only logged or printed are no less wrong in a soak."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["watching"]

Tell = Callable[[str], None]


@contextmanager
def watching(tell: Tell) -> Iterator[None]:
    """Tell of what an event loop logs, a thread dies of, and of errors and warnings that nobody can
    be raised to, as of a coroutine that is never awaited.
    """
    log = logging.getLogger("asyncio")
    handler = _Telling(tell)
    hooks = sys.unraisablehook, threading.excepthook
    log.addHandler(handler)
    sys.unraisablehook = lambda lost: tell(f"unraisable: {lost.exc_value!r} in {lost.object!r}")
    threading.excepthook = lambda lost: tell(f"a thread died: {lost.exc_value!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        sys.unraisablehook, threading.excepthook = hooks
        log.removeHandler(handler)


class _Telling(logging.Handler):
    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        self._tell(f"logged: {record.getMessage()} {cause!r}")
