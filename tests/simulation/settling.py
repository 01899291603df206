"""What must be true of an operation that is over (I6, I7, I14), whatever became of it."""

from __future__ import annotations

import asyncio
from typing import Any

from aether.errors import (
    AetherError,
    ProviderError,
    SessionConflictError,
    SessionError,
    SessionSaveError,
)
from tests.simulation.calls import Call, Operation
from tests.simulation.judging import EARLY, named
from tests.simulation.world import World

__all__ = ["OwnError", "settle"]

LONGEST_CANCELLATION = 2.1
"""Seconds: one of grace for tools, and one for a store that is to take a turn back."""


class OwnError(Exception):
    """A user's own, raised while it reads a stream."""


def settle(world: World, operation: Operation, task: asyncio.Task[Any]) -> BaseException | None:
    """Say how an operation has ended, and check it. Returns its error."""
    error = None if task.cancelled() else task.exception()
    if task.cancelled():
        operation.outcome = "cancelled"
    elif error is None:
        operation.text = task.result()
        operation.outcome = "left" if operation.text is None else "returned"
    elif isinstance(error, OwnError):
        operation.outcome = "left"
    elif isinstance(error, TimeoutError) and not isinstance(error, AetherError):
        operation.outcome = "timeout"
    else:
        operation.outcome = type(error).__name__
    world.judge.note(f"done {operation.tag} {operation.kind} {operation.outcome} {named(error)}")
    _Settling(world, operation, error).check()
    return error


class _Settling:
    def __init__(self, world: World, operation: Operation, error: BaseException | None) -> None:
        self._world = world
        self._operation = operation
        self._error = error
        self._calls: list[Call] = world.calls.get(operation.tag, [])

    def check(self) -> None:
        operation = self._operation
        self._check_error()
        self._check_cancellation()
        if operation.text is not None:
            answered = bool(self._calls) and _reply(self._calls[-1]) == operation.text
            self._check(answered, "I7: returned %r", operation.text)
        if operation.streamed:
            self._check_stream()
        if operation.session is not None:
            self._world.turns.settled(
                operation, self._error, can_take_back=self._world.can_take_back
            )

    def _check_error(self) -> None:
        """Each error is Aether's, and has a cause."""
        operation, error = self._operation, self._error
        if error is None or operation.outcome in ("left", "timeout"):
            return
        self._check(isinstance(error, AetherError), "ended with %r", error)
        if isinstance(error, SessionConflictError):
            shrunk = self._world.turns.shrunk_at[operation.session.session_id]
            self._check(shrunk >= operation.started, "met nobody, and %r", error)
        elif isinstance(error, SessionSaveError) or type(error) is SessionError:
            self._check(operation.store_faults, "was not failed by its store, but %r", error)

    def _check_cancellation(self) -> None:
        operation = self._operation
        if operation.cancelled_at is None:
            return
        out = operation.outcome == "cancelled"
        self._check(out, "I14: was cancelled, and ended with %r", self._error)
        took = self._world.loop.time() - operation.cancelled_at
        in_time = took <= LONGEST_CANCELLATION + EARLY or self._world.slow
        self._check(in_time, "I14: took %s s to be cancelled", took)

    def _check_stream(self) -> None:
        """What was read is what one attempt of each call said, and of the last a beginning."""
        operation, calls = self._operation, self._calls
        read = "".join(operation.shown)
        for call in calls[:-1]:
            text = _reply(call)
            self._check(read.startswith(text), "I6: %r is not all of %r", text, read)
            read = read[len(text) :]
        said = [exchange.plan.reply.text for exchange in calls[-1].exchanges] if calls else []
        prefix = not read or any(text.startswith(read) for text in said)
        self._check(prefix, "I6: read %r, of %s", read, said)
        if operation.text is not None:
            self._check(read == operation.text, "I7: read %r, not the whole", read)
        partial = getattr(self._error, "partial", None)
        if partial is not None and isinstance(self._error, ProviderError):
            self._check(partial.text == read, "I6: %r is told of %r", partial.text, read)

    def _check(self, holds: object, violated: str, *about: object) -> None:
        operation = self._operation
        self._world.judge.check(holds, f"{operation.tag} ({operation.kind}) {violated}", *about)


def _reply(call: Call) -> str:
    return call.exchanges[-1].plan.reply.text if call.exchanges else ""
