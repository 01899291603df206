"""What a turn writes into a store's file: its own messages, and none that stand there already."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from aether.extensions.memory import SQLiteSessionStore
from tests.costs.counting import Answering, build_client

PROMPT = "What is 17 + 25?"
NOTE_EACH_WRITE = """
CREATE TABLE written (how TEXT);
CREATE TRIGGER added AFTER INSERT ON messages BEGIN INSERT INTO written VALUES ('added'); END;
CREATE TRIGGER changed AFTER UPDATE ON messages BEGIN INSERT INTO written VALUES ('changed'); END;
CREATE TRIGGER removed AFTER DELETE ON messages BEGIN INSERT INTO written VALUES ('removed'); END;
"""


async def test_a_turn_adds_two_rows_and_touches_no_other(tmp_path: Path) -> None:
    path = tmp_path / "chats.sqlite"
    async with SQLiteSessionStore(path) as store:
        session = build_client(Answering(), memory_store=store).session("s", system="Be brief.")
        await session.ask(PROMPT)
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(NOTE_EACH_WRITE)
        for _ in range(5):
            await session.ask(PROMPT)
        with closing(sqlite3.connect(path)) as connection:
            written = [how for (how,) in connection.execute("SELECT how FROM written")]
    assert written == ["added"] * 10
