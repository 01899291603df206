"""Every built-in store keeps what the port promises; what SQLite adds to it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import aether.memory
from aether import Aether
from aether.errors import (
    ClientClosedError,
    ConfigurationError,
    InputError,
    SessionConflictError,
    SessionError,
)
from aether.extensions.memory.sqlite import SQLiteSessionStore
from aether.llm.contracts import Message
from aether.memory import InMemorySessionStore
from aether.memory.contracts import KIND, SessionStore
from aether.registry import Registry, default_registry
from aether.testing import FakeProvider
from aether.testing.stores import SessionStoreConformance

HELLO = [Message("user", "hello"), Message("assistant", "hi")]


class TestInMemory(SessionStoreConformance):
    def make_store(self) -> SessionStore:
        return InMemorySessionStore()


class TestSQLiteFile(SessionStoreConformance):
    @pytest.fixture(autouse=True)
    def _use_a_file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "sessions.sqlite"

    def make_store(self) -> SessionStore:
        return SQLiteSessionStore(self.path)


class TestSQLiteInMemory(SessionStoreConformance):
    def make_store(self) -> SessionStore:
        return SQLiteSessionStore(":memory:")


def test_every_built_in_store_is_enrolled() -> None:
    made = {type(case().make_store()) for case in (TestInMemory, TestSQLiteInMemory)}
    registry = Registry()
    assert {registry.get(KIND, name) for name in registry.names(KIND)} <= made


def test_the_in_memory_store_is_the_built_in_whatever_took_its_place() -> None:
    default_registry.add(KIND, "memory", SQLiteSessionStore)
    try:
        assert aether.memory.InMemorySessionStore is InMemorySessionStore
    finally:
        default_registry.remove(KIND, "memory")


async def test_what_has_no_utf8_is_refused_and_nothing_is_stored() -> None:
    async with SQLiteSessionStore(":memory:") as store:
        await store.save("a", HELLO)
        with pytest.raises(InputError, match="cannot be stored as JSON"):
            await store.save("a", [Message("user", "half a pair: \ud83d")])
        assert await store.load("a") == HELLO


async def test_writers_that_meet_wait_for_one_another(tmp_path: Path) -> None:
    """A transaction that has read before it writes would be told that the file is locked."""

    async def write(store: SQLiteSessionStore, name: str) -> None:
        length = 0
        for number in range(40):
            while True:
                try:
                    message = Message("user", f"{name}{number}")
                    await store.append("a", [message], expected_length=length)
                    break
                except SessionConflictError:
                    length = len(await store.load("a"))
            length += 1

    path = tmp_path / "s.sqlite"
    async with (
        SQLiteSessionStore(path, synchronous="NORMAL") as one,
        SQLiteSessionStore(path, synchronous="NORMAL") as other,
    ):
        await asyncio.gather(write(one, "a"), write(other, "b"))
        stored = [message.text for message in await one.load("a")]
    assert sorted(stored) == sorted(f"{name}{number}" for name in "ab" for number in range(40))


async def test_those_who_open_a_new_file_together_wait_for_one_another(tmp_path: Path) -> None:
    for number in range(15):
        path = tmp_path / f"{number}.sqlite"
        stores = [SQLiteSessionStore(path, synchronous="NORMAL") for _ in range(4)]
        await asyncio.gather(*(store.save(f"s{i}", HELLO) for i, store in enumerate(stores)))
        assert [await stores[0].load(f"s{i}") for i in range(4)] == [HELLO] * 4
        for store in stores:
            await store.aclose()


async def test_what_sqlite_stores_outlives_the_store(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    async with SQLiteSessionStore(path) as store:
        await store.append("a", HELLO, expected_length=0)
    async with SQLiteSessionStore(str(path)) as store:
        assert await store.load("a") == HELLO


async def test_a_file_that_is_no_database_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be taken for one" * 50)
    async with SQLiteSessionStore(path) as store:
        with pytest.raises(SessionError, match="not a database"):
            await store.load("a")
    assert path.read_text().startswith("not a database")


async def test_a_folder_that_does_not_exist_is_an_error_that_says_so(tmp_path: Path) -> None:
    async with SQLiteSessionStore(tmp_path / "no" / "s.sqlite") as store:
        with pytest.raises(SessionError, match="folder exists"):
            await store.save("a", HELLO)


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    async with SQLiteSessionStore(path) as store:
        with pytest.raises(SessionError, match="newer version"):
            await store.load("a")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"role": "user", "new_field": 1}', "there is no field new_field"),
        ('{"role": "pope"}', "role should be"),
        ("[]", "it should be a Message"),
        ("nonsense", "Invalid JSON"),
    ],
)
async def test_a_stored_message_that_cannot_be_read_is_an_error(
    tmp_path: Path, body: str, said: str
) -> None:
    path = tmp_path / "s.sqlite"
    async with SQLiteSessionStore(path) as store:
        await store.save("a", HELLO)
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("UPDATE messages SET body = ? WHERE seq = 1", (body,))
        connection.close()
        with pytest.raises(SessionError, match=f"Session 'a'.*: {said}"):
            await store.load("a")


async def test_a_locked_file_is_an_error_after_the_busy_timeout(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    async with SQLiteSessionStore(path, busy_timeout=0.01) as store:
        await store.save("a", HELLO)
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(SessionError, match="busy_timeout"):
            await store.save("a", [])
        connection.execute("ROLLBACK")
        connection.close()
        assert await store.load("a") == HELLO


async def test_a_cancelled_write_is_whole_or_absent_and_the_store_works_on(tmp_path: Path) -> None:
    async with SQLiteSessionStore(tmp_path / "s.sqlite") as store:
        for number in range(20):
            writing = asyncio.ensure_future(store.append(f"s{number}", HELLO, expected_length=0))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        for number in range(20):
            assert await store.load(f"s{number}") in ([], HELLO)


async def test_a_turn_that_is_cancelled_while_it_is_written_is_taken_back(tmp_path: Path) -> None:
    async with (
        SQLiteSessionStore(tmp_path / "s.sqlite") as store,
        Aether(FakeProvider("hi"), memory_store=store) as client,
    ):
        for number in range(40):
            session = client.session(f"s{number}", system="Be brief.")
            asking = asyncio.ensure_future(session.ask("hello"))
            await asyncio.sleep(number * 0.0001)
            asking.cancel()
            (outcome,) = await asyncio.gather(asking, return_exceptions=True)
            stored = await store.load(f"s{number}")
            assert stored[1:] == (HELLO if outcome == "hi" else [])
            assert await store.exists(f"s{number}") == bool(stored)


@pytest.mark.parametrize("name", ["a\0b", "x" * 1025, "\ud800"])
async def test_an_id_that_cannot_be_stored_is_refused(name: str) -> None:
    async with SQLiteSessionStore(":memory:") as store:
        with pytest.raises(InputError):
            await store.save(name, HELLO)


async def test_a_cancelled_close_closes_all_the_same() -> None:
    store = SQLiteSessionStore(":memory:")
    await store.save("a", HELLO)
    gate = threading.Event()
    busy = asyncio.ensure_future(store._run(gate.wait, "a"))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(store.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    gate.set()
    assert await busy
    for thread in threading.enumerate():
        if thread.name.startswith("aether-sqlite"):
            thread.join(10)
    assert store._connection is None
    await store.aclose()


async def test_a_closed_store_says_so() -> None:
    store = SQLiteSessionStore(":memory:")
    await store.aclose()
    with pytest.raises(ClientClosedError):
        await store.load("a")


def test_a_wrong_option_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        SQLiteSessionStore(":memory:", synchronous="OFF")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_that_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="path"):
        SQLiteSessionStore(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_store_used_before_a_fork_is_an_error_in_the_child_and_works_on_in_the_parent(
    tmp_path: Path,
) -> None:
    """In an interpreter of its own: a fork of this one would take other tests' threads along."""
    script = """
import asyncio, os, sys
from aether import Message
from aether.errors import SessionError
from aether.extensions.memory.sqlite import SQLiteSessionStore

used, unused = SQLiteSessionStore(sys.argv[1]), SQLiteSessionStore(sys.argv[1])
asyncio.run(used.save("a", [Message("user", "hi")]))

async def child():
    try:
        await used.load("a")
    except SessionError as error:
        assert "forked" in str(error)
        await used.aclose()
        return len(await unused.load("a"))

pid = os.fork()
if pid == 0:
    os._exit(asyncio.run(child()) or 99)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 1, status
assert len(asyncio.run(used.load("a"))) == 1
asyncio.run(used.aclose())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, tmp_path / "s.sqlite"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


WRITER = """
import asyncio, sys
from aether import Aether
from aether.extensions.memory.sqlite import SQLiteSessionStore
from aether.testing import FakeProvider

async def main(path, name):
    async with SQLiteSessionStore(path) as store:
        async with Aether(FakeProvider("ok"), memory_store=store) as client:
            session = client.session("shared", system="Be brief.")
            for number in range(30):
                await session.ask(f"{name}{number}")

asyncio.run(main(*sys.argv[1:]))
"""


def test_two_processes_on_one_session_lose_no_turn(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sqlite")
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, name], stderr=subprocess.PIPE)
        for name in ("a", "b")
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors.decode()

    async def load() -> list[Message]:
        async with SQLiteSessionStore(path) as store:
            return await store.load("shared")

    messages = asyncio.run(load())
    turns = [m for m in messages if m.role != "system"]
    assert {m.text for m in messages if m.role == "system"} == {"Be brief."}
    assert [m.role for m in turns] == ["user", "assistant"] * 60
    for name in ("a", "b"):
        own = [m.text for m in turns if m.text.startswith(name)]
        assert own == [f"{name}{number}" for number in range(30)]
