"""Text is text: what a model, a user or a store says is never run, whatever it looks like."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aether import Aether, Message
from aether.errors import InputError
from aether.extensions.llm.fake import FakeProvider
from aether.extensions.memory import InMemorySessionStore
from aether.extensions.memory.sqlite import SQLiteSessionStore


def watched(what: str) -> list[str]:
    """What the interpreter was made to do."""
    script = Path(__file__).with_name("watched.py")
    command = [sys.executable, "-W", "error", str(script), what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.row("X21")
def test_nothing_that_a_model_or_a_store_says_is_evaluated_imported_or_opened() -> None:
    assert watched("calls") == []


@pytest.mark.row("X21")
def test_of_a_registered_function_its_annotations_are_evaluated_and_nothing_else() -> None:
    found = watched("annotations")
    assert {"compile int", "compile list[str]"} <= set(found)
    assert {each.partition(" ")[0] for each in found} <= {"compile", "exec"}
    assert not [each for each in found if "__import__" in each]


ALPHABET = st.text(
    st.sampled_from("ab/\\.%_*'\"; -é\u0301\u202e\N{SNOWMAN}A"), min_size=1, max_size=8
)


@pytest.mark.row("X19")
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@given(ids=st.lists(ALPHABET, min_size=2, max_size=5, unique=True))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
async def test_no_session_reads_what_another_was_told(kind: str, ids: list[str]) -> None:
    store = InMemorySessionStore() if kind == "memory" else SQLiteSessionStore(":memory:")
    provider = FakeProvider("noted")
    async with Aether(provider, memory_store=store) as client:
        for turn in range(2):
            for number, session_id in enumerate(ids):
                await client.session(session_id).ask(f"secret {number} of turn {turn}.")
        for number, session_id in enumerate(ids):
            told = [message.text for message in await client.session(session_id).history()]
            assert told == [
                f"secret {number} of turn 0.",
                "noted",
                f"secret {number} of turn 1.",
                "noted",
            ]
        await client.session(ids[0]).clear()
        assert await client.session(ids[0]).history() == []
        assert len(await client.session(ids[1]).history()) == 4
    for request in provider.requests:
        numbers = {
            message.text.split()[1] for message in request.messages if message.role == "user"
        }
        assert len(numbers) == 1
    if isinstance(store, SQLiteSessionStore):
        await store.aclose()


@pytest.mark.row("X19")
async def test_an_id_is_a_key_and_nothing_else(tmp_path: Path) -> None:
    store = SQLiteSessionStore(tmp_path / "sessions.db")
    await store.save("kept", [Message("user", "a")])
    for hostile in (
        "'; DROP TABLE messages; --",
        "../../etc/passwd",
        "%",
        "*",
        "kept' OR '1'='1",
        "KEPT",
        "kept ",
        f"{tmp_path}/x",
    ):
        assert await store.load(hostile) == []
        assert not await store.exists(hostile)
        await store.delete(hostile)
        await store.save(hostile, [Message("user", hostile)])
    with pytest.raises(InputError):
        await store.load("kept\0")
    assert await store.load("kept") == [Message("user", "a")]
    await store.aclose()
    assert names_in(tmp_path) == ["sessions.db"]


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.row("X19")
async def test_what_one_run_was_told_is_in_no_other_without_a_session() -> None:
    provider = FakeProvider("noted")
    async with Aether(provider) as client:
        await client.ask("The word is swordfish.")
        await client.ask("What is the word?")
    assert [[message.text for message in request.messages] for request in provider.requests] == [
        ["The word is swordfish."],
        ["What is the word?"],
    ]
