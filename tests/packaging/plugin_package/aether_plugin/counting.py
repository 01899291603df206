"""A session store. It must not know a session."""

from __future__ import annotations

from collections.abc import Sequence

from aether import Message


class CountingSessionStore:
    """Keeps messages in a dictionary, and counts how often they were saved."""

    def __init__(self) -> None:
        self.saved = 0
        self._messages: dict[str, list[Message]] = {}

    async def load(self, session_id: str) -> list[Message]:
        return list(self._messages.get(session_id, []))

    async def save(self, session_id: str, messages: Sequence[Message]) -> None:
        self.saved += 1
        self._messages[session_id] = list(messages)

    async def delete(self, session_id: str) -> None:
        self._messages.pop(session_id, None)

    async def exists(self, session_id: str) -> bool:
        return session_id in self._messages
