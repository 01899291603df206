"""A cache of answers in an SQLite file, for one machine and any number of processes on it.

It must not know what it keeps. Text is written, and nothing else is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from aether.errors import AetherError, ClientClosedError, ConfigurationError
from aether.llm.wrapper import check_count, check_seconds

__all__ = ["SQLiteCache"]

T = TypeVar("T")

_log = logging.getLogger("aether.llm")

MAX_BYTES = 1024 * 1024 * 1024
APPLICATION = 0x41654361
"""Says in the file's head whose file it is."""
VERSION = 1
_MOST_TOUCHED = 10_000
_MOST_TOLD = 100
_making_files = threading.Lock()
_SCHEMA = """
CREATE TABLE answers (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    size INTEGER NOT NULL,
    made REAL NOT NULL,
    used INTEGER NOT NULL
);
CREATE INDEX answers_by_use ON answers (used);
CREATE INDEX answers_by_age ON answers (made);
CREATE TABLE total (bytes INTEGER NOT NULL);
INSERT INTO total VALUES (0);
"""


class SQLiteCache:
    """Keeps answers in one file, made on first use for its owner alone; `:memory:` is no file.

    At most `max_bytes` of keys and values are kept, each for `ttl` seconds or for good; the file
    is somewhat larger. Those least recently used make room, where uses are written down with the
    next value that is put. A value larger than all of it is not kept. `clock` is the time of day,
    in seconds: an entry from its future has expired. Event loops, threads and processes may share
    a file, each with a `ttl` of its own.

    A file that is no database, somebody else's or of a newer version raises `ConfigurationError`,
    as does one that cannot be opened; it is left as it is. Else a `get` or `put` that fails (a full
    disk, a file that others hold for longer than `busy_timeout` seconds, a damaged page) finds or
    keeps nothing, and is logged once; `delete` and `clear` raise `AetherError`. What was put
    outlives a crash of the process, and what a power failure takes is forgotten whole.

    All work is done in one thread, which `aclose` ends; a call after it raises
    `ClientClosedError`. Cancelling a call does not interrupt a write that has begun. The thread
    does not survive a fork: used before one, it finds and keeps nothing in the child.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        ttl: float | None = None,
        busy_timeout: float = 0.25,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = os.fsdecode(path)
        if not self._path or "\0" in self._path:
            raise ConfigurationError(
                "The path of a cache is a file's, or ':memory:'; it cannot be empty or hold a NUL: "
                f"{self._path!r}."
            )
        check_count("max_bytes", max_bytes)
        check_seconds("busy_timeout", busy_timeout)
        if ttl is not None:
            check_seconds("ttl", ttl, minimum=0.001)
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._busy_timeout = busy_timeout
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._touched: dict[str, None] = {}
        """What was used since it was last written down, in order."""
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="aether-cache")
        self._guard = threading.Lock()
        self._closed = False
        self._process: int | None = None
        self._told: set[str] = set()

    async def get(self, key: str) -> str | None:
        return await self._try(lambda: self._get(key), None)

    async def put(self, key: str, value: str) -> None:
        await self._try(lambda: self._put(key, value), None)

    async def delete(self, key: str) -> None:
        await self._run(lambda: self._delete(key))

    async def clear(self) -> None:
        await self._run(self._clear)

    async def aclose(self) -> None:
        """Finish what has begun, close the file, end the thread. Twice is fine.

        Cancelled, it stops waiting, and the file is closed all the same.
        """
        with self._guard:
            if self._closed:
                return
            self._closed = True
            if self._process != os.getpid():
                return  # it was never used; or the thread and the connection are the parent's
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
        return f"SQLiteCache({self._path!r})"

    async def _try(self, work: Callable[[], T], otherwise: T) -> T:
        """Do the work; where it fails, say so once and give something else."""
        try:
            return await self._run(work)
        except (ConfigurationError, ClientClosedError):
            raise
        except AetherError as error:
            told = str(error)
            if told not in self._told and len(self._told) < _MOST_TOLD:
                self._told.add(told)
                _log.warning("%s Calls go on without it.", told)
            return otherwise

    async def _run(self, work: Callable[[], T]) -> T:
        """Do the work in the cache's thread, with SQLite's errors as `AetherError`."""
        with self._guard:
            if self._closed:
                raise ClientClosedError(f"{self!r} is closed. Make a new one.")
            if self._is_forked():
                raise AetherError(
                    f"{self!r} was used before this process was forked. Make a new one here."
                )
            self._process = os.getpid()
            doing = self._worker.submit(work)
        try:
            return await asyncio.wrap_future(doing)
        except (sqlite3.Error, OSError, UnicodeError) as error:
            raise AetherError(f"{self!r} failed: {error}. {_what_to_do(error)}") from error

    def _is_forked(self) -> bool:
        return self._process not in (None, os.getpid())

    # Below this line: the cache's own thread.

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if self._path != ":memory:":
                self._check_file()
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

    def _check_file(self) -> None:
        """Refuse a file that is none of ours, before SQLite may write to it; make one of our own.

        Whoever makes the file may be in the middle of it: what looks wrong is looked at again.
        """
        # A file that is closed takes the locks along that SQLite holds on it in this process: so
        # nobody may open it here before it is closed, and SQLite itself looks at one that is there.
        with _making_files, contextlib.suppress(FileExistsError):
            try:
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            except FileExistsError:
                raise
            except OSError as error:
                raise ConfigurationError(
                    f"{self!r} cannot be made: {error.strerror}. See that the folder exists and "
                    "that this process may write there."
                ) from error
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                self._look_at_head()
            except ConfigurationError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _look_at_head(self) -> None:
        """Read what the file says of itself, without a lock and without leaving a trace."""
        file = Path(self._path).absolute()
        try:
            if file.exists() and not file.is_file():  # a pipe would be waited for
                raise ConfigurationError(
                    f"{self!r} is a folder, a pipe or a device. See that it is a file."
                )
            if file.is_file() and not file.stat().st_size:
                return
            address = f"{file.as_uri()}?mode=ro&immutable=1"
            with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
                if not _number(connection, "PRAGMA page_count"):
                    raise sqlite3.DatabaseError("file is too small")  # noqa: TRY301 - as SQLite says it of others
                self._check_owner(connection)
        except (sqlite3.OperationalError, OSError) as error:
            raise ConfigurationError(
                f"{self!r} cannot be opened: {error}. See that it is a file, and that this process "
                "may read and write it."
            ) from error
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(
                f"{self!r} is a file, but no database ({error}). Name another file."
            ) from error

    def _check_owner(self, connection: sqlite3.Connection) -> None:
        if _number(connection, "PRAGMA application_id") != APPLICATION:
            raise ConfigurationError(
                f"{self!r} is a database of something else, not a cache. Name another file."
            )
        if _number(connection, "PRAGMA user_version") > VERSION:
            raise ConfigurationError(
                f"{self!r} was written by a newer version of Aether. Upgrade this one, or name "
                "another file."
            )

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # Its mark is written before WAL begins, so that it stands in the file itself.
        if not _number(connection, "PRAGMA application_id"):
            with _transaction(connection):
                if not _number(connection, "PRAGMA application_id"):  # nobody else was faster
                    for statement in _SCHEMA.split(";\n"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {VERSION}")
        self._check_owner(connection)
        self._begin_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")

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
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            with _transaction(connection):
                self._write_uses(connection)
        except sqlite3.Error:
            pass  # which were used last is no more than a hint
        finally:
            connection.close()

    def _get(self, key: str) -> str | None:
        rows = self._open().execute("SELECT value, made FROM answers WHERE key = ?", (key,))
        value, made = rows.fetchone() or (None, None)
        if not isinstance(value, str) or not isinstance(made, float):
            return None
        if self._ttl is not None and not 0 <= self._clock() - made < self._ttl:
            return None
        self._touched.pop(key, None)
        self._touched[key] = None
        if len(self._touched) > _MOST_TOUCHED:
            del self._touched[next(iter(self._touched))]
        return value

    def _put(self, key: str, value: str) -> None:
        size = len(key.encode()) + len(value.encode())
        connection = self._open()
        now = self._clock()
        with _transaction(connection):
            self._write_uses(connection)
            self._forget(connection, "key = ?", key)
            if self._ttl is not None:
                self._forget(connection, "made <= ?", now - self._ttl)
                self._forget(connection, "made > ?", now)
            if size > self._max_bytes:
                return
            connection.execute(
                "INSERT INTO answers (key, value, size, made, used) VALUES (?, ?, ?, ?, ?)",
                (key, value, size, now, _next_use(connection)),
            )
            connection.execute("UPDATE total SET bytes = bytes + ?", (size,))
            while _number(connection, "SELECT bytes FROM total") > self._max_bytes:
                (oldest,) = connection.execute("SELECT min(used) FROM answers").fetchone()
                if oldest is None:  # the total was damaged
                    connection.execute("UPDATE total SET bytes = 0")
                    break
                self._forget(connection, "used = ?", oldest)

    def _delete(self, key: str) -> None:
        connection = self._open()
        with _transaction(connection):
            self._forget(connection, "key = ?", key)

    def _clear(self) -> None:
        connection = self._open()
        with _transaction(connection):
            connection.execute("DELETE FROM answers")
            connection.execute("UPDATE total SET bytes = 0")

    def _write_uses(self, connection: sqlite3.Connection) -> None:
        first = _next_use(connection)
        connection.executemany(
            "UPDATE answers SET used = ? WHERE key = ?",
            [(first + place, key) for place, key in enumerate(self._touched)],
        )
        self._touched.clear()

    @staticmethod
    def _forget(connection: sqlite3.Connection, which: str, value: float | str) -> None:
        """Delete the rows of a condition, and take them off the total."""
        found = f"FROM answers WHERE {which}"
        (size,) = connection.execute(f"SELECT sum(size) {found}", (value,)).fetchone()
        if size is not None:
            connection.execute(f"DELETE {found}", (value,))
            connection.execute("UPDATE total SET bytes = bytes - ?", (size,))


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _next_use(connection: sqlite3.Connection) -> int:
    return _number(connection, "SELECT coalesce(max(used), 0) + 1 FROM answers")


def _number(connection: sqlite3.Connection, query: str) -> int:
    row = connection.execute(query).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("database is malformed: a row is missing")
    return int(row[0])


def _what_to_do(error: Exception) -> str:
    text = str(error)
    if "locked" in text or "busy" in text:
        return "Another process holds it for long."
    if "malformed" in text or "not a database" in text:
        return "It is damaged: delete it."
    if "full" in text:
        return "Make room on the disk."
    return "See what the system says of the file."
