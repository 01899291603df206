"""What is stored of one session: reading it, checking it, and adding whole turns to it.

It must not know how an answer comes about, nor who waits for whom.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from aether.errors import SessionConflictError, SessionError, SessionSaveError
from aether.llm.messages import LLMResponse, Message
from aether.memory.contracts import SessionStore

__all__ = ["History", "Stored"]

MAX_TRIES = 50
LONGEST_PAUSE_SECONDS = 0.02
"""Writers that met once would meet again and again if they all came back at once."""

_log = logging.getLogger("aether.memory")
_warned: set[type] = set()


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store held. A system message stands first, whatever place the store keeps it at."""

    length: int = 0
    system: Message | None = None
    rest: tuple[Message, ...] = ()

    def continues(self, before: Stored) -> bool:
        """Whether nothing but turns was added since: no turn was taken away or rewritten."""
        return self.rest[: len(before.rest)] == before.rest


class History:
    """The stored messages of one session."""

    def __init__(self, store: SessionStore, session_id: str) -> None:
        self._store = store
        self._session_id = session_id
        self._append = getattr(store, "append", None)
        self._label = f"session {_shown(session_id)} ({type(store).__name__})"

    async def load(self) -> Stored:
        """What is stored. What cannot be read, or is no list of messages, is a `SessionError`."""
        try:
            messages = await self._store.load(self._session_id)
        except SessionError:
            raise
        except Exception as error:
            raise SessionError(f"Loading {self._label} failed: {_reason(error)}") from error
        if not isinstance(messages, list) or not all(isinstance(m, Message) for m in messages):
            raise SessionError(
                f"The store of {self._label} returned something else than a list of Message: "
                "its load() must be mended."
            )
        systems = [message for message in messages if message.role == "system"]
        if not systems:
            return Stored(len(messages), None, tuple(messages))
        # A store that only ever adds keeps an older system message in its place: the last counts.
        rest = tuple(message for message in messages if message.role != "system")
        return Stored(len(messages), systems[-1], rest)

    async def delete(self) -> None:
        """Forget the session."""
        try:
            await self._store.delete(self._session_id)
        except SessionError:
            raise
        except Exception as error:
            raise SessionError(f"Clearing {self._label} failed: {_reason(error)}") from error

    async def add(
        self,
        turn: Sequence[Message],
        *,
        system: Message | None,
        before: Stored,
        response: LLMResponse,
    ) -> None:
        """Store a turn whose answer was made from `before`, and `system` if it is another now.

        Turns that others stored meanwhile stay, and this one comes behind them. Raises
        `SessionConflictError` if that did not succeed in `MAX_TRIES` tries, or if stored turns
        have gone: the session was cleared. Cancelling waits until the store has answered.
        """
        await _to_its_end(self._add(tuple(turn), system, before, response))

    async def _add(
        self,
        turn: tuple[Message, ...],
        system: Message | None,
        before: Stored,
        response: LLMResponse,
    ) -> None:
        current = before if self._append is not None else await self._reload(before, response)
        conflict: SessionConflictError | None = None
        for attempt in range(MAX_TRIES):
            if attempt:
                await asyncio.sleep(random.random() * LONGEST_PAUSE_SECONDS)  # noqa: S311
                current = await self._reload(before, response)
            try:
                await self._put(current, turn, system)
            except SessionConflictError as error:
                conflict = error
            except Exception as error:
                # A store may fail to report what it did do, and then all of the turn is there.
                if await self._has(turn, current, response):
                    return
                raise SessionSaveError(
                    f"The model answered, but storing the turn in {self._label} failed: "
                    f"{_reason(error)} The answer is in error.response; history is as before.",
                    response=response,
                ) from error
            else:
                return
        raise SessionConflictError(
            f"Others kept writing to {self._label}: after {MAX_TRIES} tries this turn is not "
            "stored. The answer is in error.response; ask again to take the turn anew.",
            response=response,
        ) from conflict

    async def _put(
        self, current: Stored, turn: tuple[Message, ...], system: Message | None
    ) -> None:
        if system == current.system:
            system = None
        head = () if system is None else (system,)
        if self._append is not None:
            await self._append(self._session_id, (*head, *turn), expected_length=current.length)
            return
        self._warn_once()
        if not head and current.system is not None:
            head = (current.system,)
        await self._store.save(self._session_id, [*head, *current.rest, *turn])

    async def _reload(self, before: Stored, response: LLMResponse) -> Stored:
        try:
            current = await self.load()
        except SessionError as error:
            raise SessionSaveError(
                f"The model answered, but {error} The turn is not stored; the answer is in "
                "error.response.",
                response=response,
            ) from error
        if not current.continues(before):
            raise SessionConflictError(
                f"Turns of {self._label} were removed while the model answered, so this one is "
                "not stored. The answer is in error.response.",
                response=response,
            )
        return current

    async def _has(self, turn: tuple[Message, ...], current: Stored, response: LLMResponse) -> bool:
        try:
            now = await self.load()
        except SessionError as error:
            raise SessionSaveError(
                f"The model answered, but storing the turn in {self._label} failed, and then "
                f"reading did: it may or may not be stored. {error} The answer is in "
                "error.response.",
                response=response,
            ) from error
        start = len(current.rest)
        return now.continues(current) and now.rest[start : start + len(turn)] == turn

    def _warn_once(self) -> None:
        kind = type(self._store)
        if kind not in _warned:
            _warned.add(kind)
            _log.warning(
                "%s has no append(): where two writers share a session, turns may be lost",
                kind.__name__,
            )


async def _to_its_end(work: Awaitable[None]) -> None:
    """Await it, and raise a cancellation that came meanwhile only afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    task.result()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}."


def _shown(session_id: str) -> str:
    text = repr(session_id)
    return text if len(text) <= 80 else f"{text[:80]}..."
