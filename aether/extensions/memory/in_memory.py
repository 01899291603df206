"""A session store in this process's memory: gone with it.

It must not know who stores.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from aether.errors import SessionConflictError
from aether.llm.messages import Message

__all__ = ["InMemorySessionStore"]


class InMemorySessionStore:
    """Keeps copies of messages in a dictionary. Threads and event loops may share it."""

    def __init__(self) -> None:
        self._sessions: dict[str, list[Message]] = {}
        self._lock = threading.Lock()

    async def load(self, session_id: str) -> list[Message]:
        with self._lock:
            return _copies(self._sessions.get(session_id, []))

    async def save(self, session_id: str, messages: Sequence[Message]) -> None:
        copies = _copies(messages)
        with self._lock:
            self._sessions[session_id] = copies

    async def append(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        copies = _copies(messages)
        with self._lock:
            present = self._sessions.get(session_id, [])
            if len(present) != expected_length:
                raise SessionConflictError(
                    f"The session has {len(present)} messages, not {expected_length}: somebody "
                    "else wrote to it. Nothing was stored."
                )
            self._sessions[session_id] = [*present, *copies]

    async def delete(self, session_id: str) -> None:
        with self._lock:
            self._sessions.pop(session_id, None)

    async def exists(self, session_id: str) -> bool:
        return session_id in self._sessions

    def __repr__(self) -> str:
        return f"InMemorySessionStore({len(self._sessions)} sessions)"


def _copies(messages: Sequence[Message]) -> list[Message]:
    # Messages are frozen, but the lists and dictionaries in them are not.
    return [message.model_copy(deep=True) for message in messages]
