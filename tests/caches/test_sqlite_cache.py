"""What a file adds to a cache: others on it, what it may be instead, and what breaks."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import aether.extensions.caches
from aether.errors import AetherError, ClientClosedError, ConfigurationError
from aether.extensions.caches.sqlite import APPLICATION, SQLiteCache
from tests.llm.scripted import Clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


def rows(path: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def content(path: Path) -> dict[str, bytes]:
    """What is in the folder of the file."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


async def test_what_was_put_outlives_the_cache(path: Path) -> None:
    async with SQLiteCache(path) as cache:
        await cache.put("a", "1")
    async with SQLiteCache(str(path)) as cache:
        assert await cache.get("a") == "1"


async def test_nothing_is_made_before_it_is_used(path: Path) -> None:
    before = set(threading.enumerate())
    async with SQLiteCache(path):
        assert not content(path)
    assert set(threading.enumerate()) <= before
    assert not content(path)


@pytest.mark.skipif(os.name == "nt", reason="rights are another matter there")
async def test_the_file_is_its_owners_alone(path: Path) -> None:
    async with SQLiteCache(path) as cache:
        await cache.put("a", "1")
        rights = {name: stat.S_IMODE((path.parent / name).stat().st_mode) for name in content(path)}
        assert set(rights.values()) == {0o600}, rights


async def test_two_caches_share_a_file(path: Path) -> None:
    async with SQLiteCache(path) as one, SQLiteCache(path) as other:
        await one.put("a", "1")
        assert await other.get("a") == "1"
        await other.put("a", "2")
        assert await one.get("a") == "2"
        await one.clear()
        assert await other.get("a") is None


async def test_those_who_open_a_new_file_together_wait_for_one_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(15):
        path = tmp_path / f"{number}.sqlite"
        caches = [SQLiteCache(path, busy_timeout=5) for _ in range(4)]
        await asyncio.gather(*(cache.put(f"k{i}", "x") for i, cache in enumerate(caches)))
        assert [await caches[0].get(f"k{i}") for i in range(4)] == ["x"] * 4
        for cache in caches:
            await cache.aclose()
    assert not caplog.records


WRITER = """
import asyncio, sys
from aether.extensions.caches import SQLiteCache

async def main(path, name):
    async with SQLiteCache(path, busy_timeout=10, max_bytes=3_000) as cache:
        for number in range(150):
            key = f"{name}{number % 20}"
            await cache.put(key, key * 10)
            assert await cache.get(key) in (key * 10, None)
            other = await cache.get(f"a{number % 20}")
            assert other in (f"a{number % 20}" * 10, None), other

asyncio.run(main(*sys.argv[1:]))
"""


def test_processes_share_a_file_and_its_bound(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name], stderr=subprocess.PIPE, text=True
        )
        for name in "abc"
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
        assert not errors
    ((total,),) = rows(path, "SELECT bytes FROM total")
    ((real,),) = rows(path, "SELECT sum(length(key) + length(value)) FROM answers")
    assert total == real <= 3_000
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


async def test_each_reader_has_its_own_time(path: Path) -> None:
    clock = Clock()
    async with (
        SQLiteCache(path, ttl=5, clock=clock) as short,
        SQLiteCache(path, ttl=50, clock=clock) as long,
    ):
        await long.put("a", "1")
        clock.now += 10
        assert await short.get("a") is None
        assert await long.get("a") == "1"


async def test_what_has_expired_leaves_the_file_with_the_next_value(path: Path) -> None:
    clock = Clock()
    async with SQLiteCache(path, ttl=5, clock=clock) as cache:
        await cache.put("a", "secret")
        clock.now += 5
        await cache.put("b", "1")
        assert rows(path, "SELECT key FROM answers") == [("b",)]


async def test_uses_are_written_down_when_it_closes(path: Path) -> None:
    async with SQLiteCache(path) as cache:
        await cache.put("a", "x" * 9)
        await cache.put("b", "x" * 9)
    async with SQLiteCache(path) as cache:
        assert await cache.get("a")
    async with SQLiteCache(path, max_bytes=20) as cache:
        await cache.put("c", "x" * 9)
        assert [bool(await cache.get(key)) for key in "abc"] == [True, False, True]


async def test_uses_that_are_not_written_yet_are_bounded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aether.extensions.caches.sqlite._MOST_TOUCHED", 3)
    async with SQLiteCache(path) as cache:
        for key in "abcdef":
            await cache.put(key, "x")
        for key in "abcdef":
            await cache.get(key)
        assert list(cache._touched) == ["d", "e", "f"]


# What a file may be instead.


@pytest.mark.parametrize("text", ["x", "not a database, but long enough for one" * 50, "\0" * 4096])
async def test_a_file_that_is_no_database_is_an_error_and_is_left_as_it_is(
    path: Path, text: str
) -> None:
    write(path, text.encode())
    before = content(path)
    async with SQLiteCache(path, busy_timeout=0.01) as cache:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"no database.*another file"):
                await cache.get("a")
        with pytest.raises(ConfigurationError, match="no database"):
            await cache.put("a", "1")
    assert content(path) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
async def test_a_pipe_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    async with SQLiteCache(path, busy_timeout=0.01) as cache, asyncio.timeout(5):
        with pytest.raises(ConfigurationError, match="a pipe"):
            await cache.get("a")


@pytest.mark.parametrize("mode", ["delete", "wal"])
async def test_a_database_of_something_else_is_an_error_and_is_left_as_it_is(
    path: Path, mode: str
) -> None:
    theirs = sqlite3.connect(path)
    theirs.execute(f"PRAGMA journal_mode = {mode}")
    theirs.execute("CREATE TABLE answers (key TEXT, value TEXT)")
    theirs.execute("INSERT INTO answers VALUES ('a', '1')")
    theirs.commit()
    before = content(path)
    async with SQLiteCache(path, busy_timeout=0.01) as cache:
        with pytest.raises(ConfigurationError, match="something else"):
            await cache.get("a")
        with pytest.raises(ConfigurationError, match="something else"):
            await cache.clear()
    assert content(path) == before
    theirs.close()


async def test_a_session_store_is_no_cache(path: Path) -> None:
    from aether.extensions.memory.sqlite import SQLiteSessionStore
    from aether.llm.contracts import Message

    async with SQLiteSessionStore(path) as store:
        await store.save("s", [Message("user", "hi")])
        async with SQLiteCache(path, busy_timeout=0.01) as cache:
            with pytest.raises(ConfigurationError, match="something else"):
                await cache.put("a", "1")
        assert await store.load("s") == [Message("user", "hi")]


async def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    async with SQLiteCache(path) as cache:
        await cache.put("a", "1")
    rows(path, "PRAGMA user_version = 99")
    rows(path, "PRAGMA journal_mode = DELETE")
    before = content(path)
    async with SQLiteCache(path, busy_timeout=0.01) as cache:
        with pytest.raises(ConfigurationError, match="newer version"):
            await cache.get("a")
    assert content(path) == before


async def test_an_empty_file_becomes_a_cache(path: Path) -> None:
    write(path, b"")
    async with SQLiteCache(path) as cache:
        await cache.put("a", "1")
        assert await cache.get("a") == "1"
    assert rows(path, "PRAGMA application_id") == [(APPLICATION,)]


async def test_a_mark_stands_in_the_file_itself_before_anything_else(path: Path) -> None:
    """A crash right after the first write leaves a file that is known for what it is."""
    async with SQLiteCache(path) as cache:
        await cache.get("a")
        assert int.from_bytes(content(path)[path.name][68:72]) == APPLICATION


async def test_a_file_that_another_process_is_making_is_looked_at_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    look = SQLiteCache._look_at_head

    def see(cache: SQLiteCache) -> None:
        looks.append(1)
        if len(looks) < 3:
            raise ConfigurationError("half of it is there")
        look(cache)

    monkeypatch.setattr(SQLiteCache, "_look_at_head", see)
    async with SQLiteCache(path, busy_timeout=5) as cache:
        await cache.put("a", "1")
        assert await cache.get("a") == "1"
    assert len(looks) == 3


async def test_who_reads_does_not_wait_for_who_writes(path: Path) -> None:
    async with SQLiteCache(path, busy_timeout=0.01) as cache:
        await cache.put("a", "1")
        assert rows(path, "PRAGMA journal_mode") == [("wal",)]
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        assert await cache.get("a") == "1"
        other.execute("ROLLBACK")
        other.close()


async def test_a_folder_that_does_not_exist_is_an_error_that_says_so(tmp_path: Path) -> None:
    async with SQLiteCache(tmp_path / "no" / "s.sqlite", busy_timeout=0.01) as cache:
        with pytest.raises(ConfigurationError, match="folder exists"):
            await cache.get("a")


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    async with SQLiteCache(tmp_path, busy_timeout=0.01) as cache:
        with pytest.raises(ConfigurationError, match="is a file"):
            await cache.get("a")


@pytest.mark.parametrize("name", ["a b", "a#b", "a?mode=rwc", "a%41", "\u00e4\u2603"])
async def test_a_path_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    async with SQLiteCache(tmp_path / name) as cache:
        await cache.put("a", "1")
    async with SQLiteCache(tmp_path / name) as cache:
        assert await cache.get("a") == "1"
    assert list(content(tmp_path / name)) == [name]


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_that_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="path"):
        SQLiteCache(path)


def test_a_wrong_busy_timeout_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="busy_timeout"):
        SQLiteCache(":memory:", busy_timeout=-1)


# What breaks while it is used.


async def test_a_locked_file_finds_but_keeps_nothing_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with SQLiteCache(path, busy_timeout=0.01) as cache:
        await cache.put("a", "1")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with caplog.at_level(logging.WARNING, "aether.llm"):
            await cache.put("b", "2")
            await cache.put("c", "3")
        assert await cache.get("a") == "1"
        for forgetting in (cache.clear(), cache.delete("a")):
            with pytest.raises(AetherError, match="locked"):
                await forgetting
        other.execute("ROLLBACK")
        other.close()
        assert await cache.get("b") is None
        await cache.put("b", "2")
        assert await cache.get("b") == "2"
    assert len(caplog.records) == 1
    assert "locked" in caplog.text


async def test_a_new_file_that_another_holds_is_tried_again(path: Path) -> None:
    write(path, b"")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with SQLiteCache(path, busy_timeout=0.01) as cache:
        await cache.put("a", "1")
        assert await cache.get("a") is None
        other.execute("ROLLBACK")
        other.close()
        await cache.put("a", "1")
        assert await cache.get("a") == "1"


async def test_a_full_disk_keeps_nothing_new_and_loses_nothing_old(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with SQLiteCache(path) as cache:
        await cache.put("a", "1")
        pages = await cache._run(lambda: cache._open().execute("PRAGMA page_count").fetchone()[0])
        await cache._run(lambda: cache._open().execute(f"PRAGMA max_page_count = {pages}"))
        with caplog.at_level(logging.WARNING, "aether.llm"):
            for number in range(3):
                await cache.put(f"k{number}", "x" * 100_000)
        assert await cache.get("k1") is None
        assert await cache.get("a") == "1"
        assert "full" in caplog.text
        assert "Make room" in caplog.text
        assert len(caplog.records) == 1
        await cache._run(lambda: cache._open().execute("PRAGMA max_page_count = 100000"))
        await cache.put("k1", "x" * 100_000)
        assert await cache.get("k1") == "x" * 100_000
    ((total,),) = rows(path, "SELECT bytes FROM total")
    assert rows(path, "SELECT sum(size) FROM answers") == [(total,)]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE answers SET value = x'ff00'",
        "UPDATE answers SET made = 'then'",
        "UPDATE answers SET value = CAST(x'ff' AS TEXT)",
        "DROP TABLE answers",
    ],
)
async def test_a_damaged_row_is_not_found(path: Path, damage: str) -> None:
    async with SQLiteCache(path, ttl=10) as cache:
        await cache.put("a", "1")
    rows(path, damage)
    async with SQLiteCache(path, ttl=10) as cache:
        assert await cache.get("a") is None
        await cache.put("a", "2")


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM total", "UPDATE total SET bytes = 1000000", "UPDATE total SET bytes = -9"],
)
async def test_a_damaged_total_ends(path: Path, damage: str) -> None:
    async with SQLiteCache(path, max_bytes=100) as cache:
        await cache.put("a", "1")
        rows(path, damage)
        await cache.put("b", "2")
        await cache.clear()
        await cache.put("c", "3")
        assert await cache.get("a") is None


async def test_a_page_that_is_overwritten_is_nobodys_answer(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with SQLiteCache(path) as cache:
        for number in range(50):
            await cache.put(f"k{number}", "x" * 500)
    whole = content(path)[path.name]
    for page in range(1, len(whole) // 4096):
        write(path, whole[: page * 4096] + b"\xa5" * 4096 + whole[(page + 1) * 4096 :])
        async with SQLiteCache(path) as cache:
            for number in range(50):
                assert await cache.get(f"k{number}") in (None, "x" * 500)
            await cache.put("new", "1")
    assert "delete it" in caplog.text


@pytest.mark.parametrize("value", ["half a pair: \ud83d"])
async def test_what_has_no_utf8_is_not_kept(value: str) -> None:
    async with SQLiteCache(":memory:") as cache:
        await cache.put("a", value)
        assert await cache.get("a") is None
        await cache.put(value, "1")
        assert await cache.get(value) is None


# How it ends.


async def test_a_cancelled_write_is_whole_or_absent_and_the_cache_works_on(path: Path) -> None:
    async with SQLiteCache(path) as cache:
        for number in range(20):
            writing = asyncio.ensure_future(cache.put(f"k{number}", "x"))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        for number in range(20):
            assert await cache.get(f"k{number}") in (None, "x")


async def test_a_closed_cache_says_so(path: Path) -> None:
    cache = SQLiteCache(path)
    await cache.put("a", "1")
    await cache.aclose()
    await cache.aclose()
    for call in (cache.get("a"), cache.put("a", "1"), cache.delete("a"), cache.clear()):
        with pytest.raises(ClientClosedError):
            await call
    assert list(content(path)) == [path.name]


async def test_a_cancelled_close_closes_all_the_same() -> None:
    cache = SQLiteCache(":memory:")
    await cache.put("a", "1")
    gate = threading.Event()
    busy = asyncio.ensure_future(cache._run(gate.wait))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(cache.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    gate.set()
    assert await busy
    for thread in threading.enumerate():
        if thread.name.startswith("aether-cache"):
            thread.join(10)
    assert cache._connection is None


async def test_closing_works_while_another_holds_the_file(path: Path) -> None:
    cache = SQLiteCache(path, busy_timeout=0.01)
    await cache.put("a", "1")
    await cache.get("a")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await cache.aclose()
    other.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_cache_used_before_a_fork_finds_nothing_in_the_child_and_works_on_in_the_parent(
    path: Path,
) -> None:
    """In an interpreter of its own: a fork of this one would take other tests' threads along."""
    script = """
import asyncio, os, sys
from aether.errors import AetherError
from aether.extensions.caches import SQLiteCache

used, unused = SQLiteCache(sys.argv[1]), SQLiteCache(sys.argv[1])
asyncio.run(used.put("a", "1"))

async def child():
    assert await used.get("a") is None
    await used.put("a", "2")
    try:
        await used.clear()
    except AetherError as error:
        assert "forked" in str(error)
        await used.aclose()
        return int(await unused.get("a"))

pid = os.fork()
if pid == 0:
    os._exit(asyncio.run(child()) or 99)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 1, status
assert asyncio.run(used.get("a")) == "1"
asyncio.run(used.aclose())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, path],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_it_is_imported_when_it_is_asked_for() -> None:
    assert aether.extensions.caches.SQLiteCache is SQLiteCache
    with pytest.raises(AttributeError, match="Other"):
        _ = aether.extensions.caches.Other
    assert repr(SQLiteCache("a.sqlite")) == "SQLiteCache('a.sqlite')"
