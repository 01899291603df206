"""When an answer is late, and of how many late ones another may be asked for.

It must not know a request, nor what is done about a late answer.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import deque

__all__ = ["LEAST_SEEN", "SAVED_CALLS", "Latencies", "Share"]

WINDOW = 100
LEAST_SEEN = 20
"""Of fewer calls nothing is concluded: with 20, the 95th percentile is the second longest."""
SAVED_CALLS = 200
"""What the share of so many calls has brought may be saved up, so that a bad minute after a good
day does not double the load."""
_UNIT = 1_000_000_000


class Latencies:
    """How long the latest `WINDOW` calls to one model took, in seconds. Threads may share it."""

    __slots__ = ("_latest", "_lock", "_sorted")

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        with self._lock:
            if len(self._latest) == WINDOW:
                del self._sorted[bisect_left(self._sorted, self._latest.popleft())]
            self._latest.append(seconds)
            insort(self._sorted, seconds)

    def late(self) -> float | None:
        """95 of 100 calls had brought something by then; `None` before `LEAST_SEEN` calls."""
        with self._lock:
            count = len(self._sorted)
            return None if count < LEAST_SEEN else self._sorted[-(-95 * count // 100) - 1]

    def least(self) -> float:
        """The shortest of them; 0 where there is none."""
        with self._lock:
            return self._sorted[0] if self._sorted else 0.0


class Share:
    """Leave for a share of the calls: each call brings a part of one, of which `SAVED_CALLS` calls'
    can be saved up. At no time more were taken than the share of the calls so far. Threads may
    share it.
    """

    __slots__ = ("_left", "_lock", "_most", "_part")

    def __init__(self, share: float) -> None:
        self._part = int(share * _UNIT + 0.5)  # whole numbers: tenths as floats do not add up
        self._most = max(_UNIT, self._part * SAVED_CALLS)
        self._left = 0
        self._lock = threading.Lock()

    def count_call(self) -> bool:
        """A call is made. Whether there is one to take."""
        with self._lock:
            self._left = min(self._most, self._left + self._part)
            return self._left >= _UNIT

    def take(self) -> bool:
        """Whether there was one to take."""
        with self._lock:
            if self._left < _UNIT:
                return False
            self._left -= _UNIT
            return True

    def give_back(self) -> None:
        """What was taken was not used."""
        with self._lock:
            self._left = min(self._most, self._left + _UNIT)
