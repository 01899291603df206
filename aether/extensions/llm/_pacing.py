"""What all calls to one model share when they are retried: the gate, its queue, the budget.

It must not know an error, a request or a provider.
"""

from __future__ import annotations

import threading

__all__ = ["RETRY_BUDGET", "Pace"]

RETRY_BUDGET = 20


class Pace:
    """Keeps the calls to one model from starting too early, and from being retried too often.

    The gate is closed until a time that a server named. The budget holds at most `RETRY_BUDGET`
    retries: each takes one, and a call that was served puts back what it took, or a tenth of a
    retry if it took none. Threads may share it.
    """

    __slots__ = ("_lock", "_queue", "_tenths", "closed_until")

    def __init__(self) -> None:
        self.closed_until = 0.0
        """The time at which the gate opens; 0 if it is open."""
        self._queue = 0
        self._tenths = RETRY_BUDGET * 10  # whole numbers: ten tenths as floats are less than 1
        self._lock = threading.Lock()

    def close(self, until: float) -> None:
        """Close the gate until then, if it is not closed for longer."""
        with self._lock:
            self.closed_until = max(self.closed_until, until)

    def reopen(self, time: float) -> None:
        """Somebody has waited until `time`: open the gate, if it was to be closed no longer."""
        with self._lock:
            if self.closed_until <= time:
                self.closed_until = 0.0

    def join_queue(self) -> bool:
        """Whether others wait at the gate already. Whoever joins must leave."""
        with self._lock:
            self._queue += 1
            return self._queue > 1

    def leave_queue(self) -> None:
        with self._lock:
            self._queue -= 1

    def take_retry(self) -> bool:
        """Whether there was a retry left to take."""
        with self._lock:
            if self._tenths < 10:
                return False
            self._tenths -= 10
            return True

    def give_back(self) -> None:
        """A retry that was taken was not made."""
        with self._lock:
            self._tenths = min(RETRY_BUDGET * 10, self._tenths + 10)

    def put_back(self, retries: int) -> None:
        """A call that took so many was served."""
        if self._tenths < RETRY_BUDGET * 10:
            with self._lock:
                self._tenths = min(RETRY_BUDGET * 10, self._tenths + (retries * 10 or 1))
