"""The port to session stores. It must not know a store, nor what a session does with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from aether.llm.messages import Message
from aether.registry import declare_builtins

__all__ = ["KIND", "AppendingSessionStore", "ReplacingSessionStore", "SessionStore"]

KIND = "session_store"


@runtime_checkable
class SessionStore(Protocol):
    """Keeps the messages of sessions. Any error it raises reaches the caller as `SessionError`.

    It keeps and hands out copies: a list or a message that is changed afterwards changes nothing
    that is stored.
    """

    async def load(self, session_id: str) -> list[Message]:
        """The session's messages in order; an empty list if there is no such session."""
        ...

    async def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """Put these in place of all messages of the session, whole or not at all."""
        ...

    async def delete(self, session_id: str) -> None:
        """Forget the session. An unknown one is fine."""
        ...

    async def exists(self, session_id: str) -> bool:
        """Whether the session has been saved and not deleted."""
        ...


@runtime_checkable
class AppendingSessionStore(SessionStore, Protocol):
    """A store that can add messages only if nobody else did since they were loaded."""

    async def append(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        """Add `messages`, if the session holds exactly `expected_length` messages now.

        Else raise `SessionConflictError` and change nothing. One atomic step, also between
        processes. Only when it returns are the messages stored.
        """
        ...


@runtime_checkable
class ReplacingSessionStore(AppendingSessionStore, Protocol):
    """A store that can also rewrite a session only if nobody else wrote to it.

    Without it a new system prompt is appended, and the last one counts; and a turn whose storing
    was cancelled too late to be prevented stays stored.
    """

    async def replace(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        """Put `messages` in place of all, if the session holds exactly `expected_length` now.

        Else raise `SessionConflictError` and change nothing. No messages: forget the session. One
        atomic step, also between processes.
        """
        ...


declare_builtins(
    KIND,
    {
        "memory": "aether.extensions.memory.in_memory:InMemorySessionStore",
        "sqlite": "aether.extensions.memory.sqlite:SQLiteSessionStore",
    },
)
