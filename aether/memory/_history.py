"""What is stored of one session: reading it, checking it, and adding whole turns to it.

It must not know how an answer comes about, nor who waits for whom.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass

from aether._finishing import finish
from aether.errors import SessionConflictError, SessionError, SessionSaveError
from aether.llm.messages import LLMResponse, Message
from aether.memory.contracts import SessionStore

__all__ = ["History", "Stored"]

MAX_TRIES = 50
LONGEST_PAUSE_SECONDS = 0.02
"""Writers that met once would meet again and again if they all came back at once."""
TAKE_BACK_SECONDS = 1.0
"""So long, at most, a cancelled turn waits until what was stored of it has been taken back."""

_log = logging.getLogger("aether.memory")
_warned: set[type] = set()


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store held. A system message stands first, whatever place the store keeps it at."""

    length: int = 0
    system: Message | None = None
    rest: tuple[Message, ...] = ()

    def messages(self, system: Message | None) -> list[Message]:
        """All of them, with `system` for a system message."""
        return [*self.rest] if system is None else [system, *self.rest]

    def continues(self, before: Stored) -> bool:
        """Whether nothing but turns was added since: no turn was taken away or rewritten."""
        return self.rest[: len(before.rest)] == before.rest


class History:
    """The stored messages of one session."""

    def __init__(self, store: SessionStore, session_id: str) -> None:
        self._store = store
        self._session_id = session_id
        self._append = getattr(store, "append", None)
        self._replace = getattr(store, "replace", None)
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
        turn: tuple[Message, ...],
        *,
        system: Message | None,
        before: Stored,
        response: LLMResponse,
    ) -> None:
        """Store a turn whose answer was made from `before`, with `system` for a system message.

        Turns that others stored meanwhile stay, and this one comes behind them. Raises
        `SessionConflictError` if that did not succeed in `MAX_TRIES` tries, or if stored turns
        have gone: the session was cleared. A store that appends compares lengths, so it cannot
        tell turns that were cleared from as many new ones. A turn that the store kept although it
        was cancelled is taken back, however often it is cancelled.
        """
        if system == before.system:
            system = None  # so that a newer one of somebody else stays
        # A length does not tell that a session was cleared and has grown again: what rewrites the
        # whole must not rest on what was read before the model was asked.
        rewrites = self._append is None or (system is not None and before.length > 0)
        current = await self._reload(before, response) if rewrites else before
        conflict: SessionConflictError | None = None
        for attempt in range(MAX_TRIES):
            if attempt:
                await asyncio.sleep(random.random() * LONGEST_PAUSE_SECONDS)  # noqa: S311
                current = await self._reload(before, response)
            try:
                await self._put(current, turn, system, response)
            except SessionConflictError as error:
                conflict = error
            except asyncio.CancelledError:
                await finish(self._take_back(current, turn), within=TAKE_BACK_SECONDS)
                raise
            else:
                return
        raise SessionConflictError(
            f"Others kept writing to {self._label}: after {MAX_TRIES} tries this turn is not "
            "stored. The answer is in error.response; ask again to take the turn anew.",
            response=response,
        ) from conflict

    async def _put(
        self,
        current: Stored,
        turn: tuple[Message, ...],
        system: Message | None,
        response: LLMResponse,
    ) -> None:
        try:
            await self._write(current, turn, system)
        except SessionConflictError:
            raise
        except Exception as error:
            # A store may fail to report what it did do, and then all of the turn is there.
            if not await self._has(turn, current, response):
                raise SessionSaveError(
                    f"The model answered, but storing the turn in {self._label} failed: "
                    f"{_reason(error)} The answer is in error.response; history is as before.",
                    response=response,
                ) from error

    async def _write(
        self, current: Stored, turn: tuple[Message, ...], system: Message | None
    ) -> None:
        system = system or current.system
        head = [] if system is None or system == current.system else [system]
        whole = [*current.messages(system), *turn]
        if self._append is None:
            self._warn_once()
            await self._store.save(self._session_id, whole)
        elif head and current.length and self._replace is not None:
            await self._replace(self._session_id, whole, expected_length=current.length)
        else:
            await self._append(self._session_id, [*head, *turn], expected_length=current.length)

    async def _take_back(self, current: Stored, turn: tuple[Message, ...]) -> None:
        """Undo a write that was cancelled after all, unless somebody has written behind it."""
        before = current.messages(current.system)
        try:
            now = await self.load()
            if now.rest != current.rest + turn:
                return
            if self._replace is not None:
                await self._replace(self._session_id, before, expected_length=now.length)
            elif self._append is not None:
                _log.warning("a cancelled turn stays in %s, which has no replace()", self._label)
            elif before:
                await self._store.save(self._session_id, before)
            else:
                await self._store.delete(self._session_id)
        except asyncio.CancelledError:
            _log.warning("a cancelled turn may stay in %s, which took too long", self._label)
            raise
        except Exception as error:  # noqa: BLE001 - the cancellation is what the caller gets
            _log.warning("a cancelled turn may stay in %s: %r", self._label, _reason(error))

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
        """Whether the turn is stored, as far as can be told: if not, that is raised."""
        try:
            now = await self.load()
        except SessionError as error:
            raise self._unsure(f"reading did, too. {error}", response) from error
        start = len(current.rest)
        if now.rest[start : start + len(turn)] == turn:
            return True
        if not now.continues(current):  # it may have been cleared away with the others
            raise self._unsure("turns were removed.", response)
        return False

    def _unsure(self, why: str, response: LLMResponse) -> SessionSaveError:
        return SessionSaveError(
            f"The model answered, but storing the turn in {self._label} failed, and meanwhile "
            f"{why} The turn may or may not be stored; the answer is in error.response.",
            response=response,
        )

    def _warn_once(self) -> None:
        kind = type(self._store)
        if kind not in _warned:
            _warned.add(kind)
            _log.warning(
                "%s has no append(): where two writers share a session, turns may be lost",
                kind.__name__,
            )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).rstrip('.')}."


def _shown(session_id: str) -> str:
    text = repr(session_id)
    return text if len(text) <= 80 else f"{text[:80]}..."
