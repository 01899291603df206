"""Finishing what must be finished, although whoever asked for it is cancelled, however often.

It must not know what the work is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

__all__ = ["GRACE_SECONDS", "Finishing", "finish"]

GRACE_SECONDS = 1.0
"""So long, at most, a cancellation waits for the work."""


class Finishing(asyncio.Task[None]):
    """The task of such work. Cancelled, as all tasks of a loop that is shut down, it goes on, and
    is cancelled if it has not ended `GRACE_SECONDS` later.
    """

    def cancel(self, msg: Any | None = None) -> bool:
        self.get_loop().call_later(GRACE_SECONDS, super().cancel, msg)
        return False

    def give_up(self) -> None:
        """Cancel it now."""
        super().cancel()


async def finish(work: Coroutine[Any, Any, None], *, within: float = math.inf) -> None:
    """Do the work in a task of its own, and wait for its end. Raises what it raises.

    Cancelling this does not cancel the work: the cancellation comes out when the work has ended.
    From the first one on it has `GRACE_SECONDS`, and it has `within` seconds in all; then it is
    cancelled too, and not waited for.
    """
    loop = asyncio.get_running_loop()
    task = Finishing(work, loop=loop)
    deadline = loop.time() + within
    cancelled: asyncio.CancelledError | None = None
    while not task.done() and (left := deadline - loop.time()) > 0:
        try:
            await asyncio.wait({task}, timeout=None if left == math.inf else left)
        except asyncio.CancelledError as error:
            if cancelled is None:
                cancelled = error
                deadline = min(deadline, loop.time() + GRACE_SECONDS)
    if not task.done():
        task.give_up()
    failed = task.done() and not task.cancelled() and task.exception() is not None
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled  # else it would hold this frame, and the frame it
    if failed:
        task.result()
