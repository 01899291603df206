"""A session store in this process's memory: gone with it.

It must not know who stores.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import deepcopy

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
            present = self._present(session_id, expected_length)
            self._sessions[session_id] = [*present, *copies]

    async def replace(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        copies = _copies(messages)
        with self._lock:
            self._present(session_id, expected_length)
            if copies:
                self._sessions[session_id] = copies
            else:
                self._sessions.pop(session_id, None)

    async def delete(self, session_id: str) -> None:
        with self._lock:
            self._sessions.pop(session_id, None)

    async def exists(self, session_id: str) -> bool:
        return session_id in self._sessions

    def _present(self, session_id: str, expected_length: int) -> list[Message]:
        present = self._sessions.get(session_id, [])
        if len(present) != expected_length:
            raise SessionConflictError(
                f"The session has {len(present)} messages, not {expected_length}: somebody else "
                "wrote to it. Nothing was stored."
            )
        return present

    def __repr__(self) -> str:
        return f"InMemorySessionStore({len(self._sessions)} sessions)"


def _copies(messages: Sequence[Message]) -> list[Message]:
    return [_copy(message) for message in messages]


def _copy(message: Message) -> Message:
    """A copy that shares nothing that can change: a message is frozen, what it holds is not."""
    if message.tool_calls or not isinstance(message.content, str):
        return message.model_copy(deep=True)
    # Nearly all messages are text: a small part of what a deep copy of the model costs.
    state = deepcopy(message.provider_state) if message.provider_state else {}
    return message.model_copy(update={"tool_calls": [], "provider_state": state})
