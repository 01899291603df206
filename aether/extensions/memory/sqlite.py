"""A session store in an SQLite file, for one machine and any number of processes on it.

It must not know who stores. Messages are rows; a session's messages are numbered from 0 without
gaps. Nothing but JSON is written, and nothing else is read.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import PathLike
from types import TracebackType
from typing import Literal, Self, TypeVar

from pydantic import ValidationError

from aether.errors import (
    AetherError,
    ClientClosedError,
    ConfigurationError,
    InputError,
    SessionConflictError,
    SessionError,
)
from aether.llm.data import problems_in
from aether.llm.messages import Message

__all__ = ["SQLiteSessionStore"]

T = TypeVar("T")

_VERSION = 1
_MAX_ID_BYTES = 1024
_SCHEMA = f"""
CREATE TABLE sessions (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE messages (
    session INTEGER NOT NULL REFERENCES sessions (id),
    seq INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (session, seq)
) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""


class SQLiteSessionStore:
    """Sessions in one file, which is made on first use; `:memory:` keeps them in this store.

    With `synchronous="FULL"`, the default, a turn that was stored outlives a power failure; with
    `"NORMAL"`, which is faster, it outlives a crash of the process only. Another writer is waited
    for up to `busy_timeout` seconds. Event loops, threads and processes may share a file; within a
    process, one store is enough for all of them.

    All work is done in one thread, which `aclose` ends. Cancelling a call does not interrupt a
    write that has begun: it is done whole. That thread does not survive a fork: a store that was
    used before one raises `SessionError` in the child.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        busy_timeout: float = 5.0,
    ) -> None:
        if synchronous not in ("FULL", "NORMAL"):
            raise ConfigurationError(f"synchronous is 'FULL' or 'NORMAL', not {synchronous!r}.")
        self._path = os.fspath(path)
        if not self._path or "\0" in self._path:
            raise ConfigurationError(
                "The path of a session store is a file's, or ':memory:'; it cannot be empty or "
                f"hold a NUL: {self._path!r}."
            )
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._connection: sqlite3.Connection | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="aether-sqlite")
        self._guard = threading.Lock()
        self._closed = False
        self._process: int | None = None

    async def load(self, session_id: str) -> list[Message]:
        return await self._run(lambda: self._load(session_id), session_id)

    async def save(self, session_id: str, messages: Sequence[Message]) -> None:
        bodies = _render(messages)
        await self._run(lambda: self._save(session_id, bodies), session_id)

    async def append(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        bodies = _render(messages)
        await self._run(lambda: self._append(session_id, bodies, expected_length), session_id)

    async def replace(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        bodies = _render(messages)
        await self._run(lambda: self._replace(session_id, bodies, expected_length), session_id)

    async def delete(self, session_id: str) -> None:
        await self._run(lambda: self._delete(session_id), session_id)

    async def exists(self, session_id: str) -> bool:
        return await self._run(lambda: self._find(self._open(), session_id) is not None, session_id)

    async def aclose(self) -> None:
        """Finish what has begun, close the file, end the thread. Twice is fine.

        Cancelled, it stops waiting, and the file is closed all the same.
        """
        with self._guard:
            if self._closed:
                return
            self._closed = True
            if self._is_forked():
                return  # the thread and the connection are the parent's
            closing = self._worker.submit(self._close)
            self._worker.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closing))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"SQLiteSessionStore({self._path!r})"

    async def _run(self, work: Callable[[], T], session_id: str) -> T:
        """Do the work in the store's thread, with SQLite's errors as `SessionError`."""
        _check_id(session_id)
        with self._guard:
            if self._closed:
                raise ClientClosedError(f"{self!r} is closed. Make a new one.")
            if self._is_forked():
                raise SessionError(
                    f"{self!r} was used before this process was forked. Make a new one here."
                )
            self._process = os.getpid()
            doing = self._worker.submit(work)
        try:
            return await asyncio.wrap_future(doing)
        except AetherError:
            raise
        except (sqlite3.Error, OSError) as error:
            raise SessionError(
                f"{self!r} failed: {error}. {_what_to_do(error)} Nothing of this was stored."
            ) from error

    def _is_forked(self) -> bool:
        return self._process not in (None, os.getpid())

    # Below this line: the store's own thread.

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self._path,
                timeout=self._busy_timeout,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._begin_wal(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        if _version_of(connection) < _VERSION:
            with _transaction(connection):
                if _version_of(connection) < _VERSION:  # nobody else was faster
                    for statement in _SCHEMA.split(";\n"):
                        connection.execute(statement)
        elif _version_of(connection) > _VERSION:
            raise SessionError(
                f"{self!r} was written by a newer version of Aether. Upgrade this one, or use "
                "another file."
            )

    def _begin_wal(self, connection: sqlite3.Connection) -> None:
        # Of those who open a new file together SQLite lets one change its mode, and tells the
        # others at once that it is locked: it does not wait for this as it does for a write.
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                return

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _load(self, session_id: str) -> list[Message]:
        rows = self._open().execute(
            "SELECT body FROM messages JOIN sessions ON sessions.id = session"
            " WHERE name = ? ORDER BY seq",
            (session_id,),
        )
        try:
            return [Message.model_validate_json(body) for (body,) in rows]
        except ValidationError as error:
            raise SessionError(
                f"Session {session_id[:80]!r} in {self!r} holds a message that this version of "
                f"Aether cannot read: {'; '.join(problems_in(error))}."
            ) from None

    def _save(self, session_id: str, bodies: Sequence[str]) -> None:
        connection = self._open()
        with _transaction(connection):
            number = self._make(connection, session_id)
            connection.execute("DELETE FROM messages WHERE session = ?", (number,))
            self._insert(connection, number, 0, bodies)

    def _append(self, session_id: str, bodies: Sequence[str], expected_length: int) -> None:
        connection = self._open()
        with _transaction(connection):
            self._expect(connection, session_id, expected_length)
            number = self._make(connection, session_id)
            self._insert(connection, number, expected_length, bodies)

    def _replace(self, session_id: str, bodies: Sequence[str], expected_length: int) -> None:
        connection = self._open()
        with _transaction(connection):
            self._expect(connection, session_id, expected_length)
            self._forget(connection, session_id)
            if bodies:
                self._insert(connection, self._make(connection, session_id), 0, bodies)

    def _delete(self, session_id: str) -> None:
        connection = self._open()
        with _transaction(connection):
            self._forget(connection, session_id)

    def _forget(self, connection: sqlite3.Connection, session_id: str) -> None:
        number = self._find(connection, session_id)
        connection.execute("DELETE FROM messages WHERE session = ?", (number,))
        connection.execute("DELETE FROM sessions WHERE id = ?", (number,))

    @staticmethod
    def _expect(connection: sqlite3.Connection, session_id: str, expected_length: int) -> None:
        (length,) = connection.execute(
            "SELECT coalesce(max(seq) + 1, 0) FROM messages"
            " WHERE session = (SELECT id FROM sessions WHERE name = ?)",
            (session_id,),
        ).fetchone()
        if length != expected_length:
            raise SessionConflictError(
                f"The session has {length} messages, not {expected_length}: somebody else wrote to "
                "it. Nothing was stored."
            )

    @staticmethod
    def _find(connection: sqlite3.Connection, session_id: str) -> int | None:
        row = connection.execute("SELECT id FROM sessions WHERE name = ?", (session_id,)).fetchone()
        return None if row is None else int(row[0])

    def _make(self, connection: sqlite3.Connection, session_id: str) -> int:
        connection.execute("INSERT OR IGNORE INTO sessions (name) VALUES (?)", (session_id,))
        number = self._find(connection, session_id)
        if number is None:
            raise SessionError(f"{self!r} lost a session while writing it.")
        return number

    @staticmethod
    def _insert(
        connection: sqlite3.Connection, number: int, first: int, bodies: Sequence[str]
    ) -> None:
        connection.executemany(
            "INSERT INTO messages (session, seq, body) VALUES (?, ?, ?)",
            [(number, first + offset, body) for offset, body in enumerate(bodies)],
        )


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _render(messages: Sequence[Message]) -> list[str]:
    try:
        return [message.model_dump_json() for message in messages]
    except ValueError as error:  # half a surrogate pair, which UTF-8 does not have
        raise InputError(f"A message cannot be stored as JSON: {error}.") from error


def _check_id(session_id: str) -> None:
    try:
        encoded = session_id.encode()
    except UnicodeEncodeError:
        raise InputError("A session id must be valid Unicode.") from None
    if b"\0" in encoded or len(encoded) > _MAX_ID_BYTES:
        raise InputError(f"A session id has no NUL and at most {_MAX_ID_BYTES} bytes.")


def _what_to_do(error: Exception) -> str:
    text = str(error)
    if "locked" in text or "busy" in text:
        return "Another process holds it for long: raise busy_timeout."
    if "not a database" in text or "malformed" in text:
        return "Use another file, or restore this one from a copy."
    if "readonly" in text or "unable to open" in text:
        return "See that the folder exists and that this process may write to it."
    if "full" in text:
        return "Make room on the disk."
    return "See what the system says of the file."
