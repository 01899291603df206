"""A small soak finds nothing, and one in which something piles up finds what it is.

`run.py` beside this file is the long one.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from aether.errors import AetherError
from aether.http.contracts import Timeout
from aether.llm.contracts import LLMRequest
from aether.llm.usage import LedgerEntry
from tests.soak.crew import Crew
from tests.soak.figures import Figures
from tests.soak.filling import level, short_ledgers
from tests.soak.judging import KIB, MB, TEN_MINUTES, Bounds, growth
from tests.soak.operations import KINDS, Act, Doing
from tests.soak.phase import Phase, Plan
from tests.soak.saying import PLAIN, prompt, reply_to, said
from tests.soak.serving import served_apart

SMALL = Plan(
    operations=150,
    workers=40,
    parts=3,
    warm_up=0,
    rest=0.0,
    timeout=Timeout(connect=5.0, read=0.5, total=1.0),
    frames=1,
    # Of the ledgers, which fill: only a soak that is long can be strict.
    bounds=Bounds(resident=None, traced=50.0 * MB),
)
LEAKED = 50_000
"""Bytes after each operation."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served_apart(share=0.2, seed=7) as where:
        yield where


async def test_nothing_piles_up_in_a_small_soak_and_every_operation_ends_as_it_must(
    url: str,
) -> None:
    outcome = await Phase(url, SMALL).run()
    assert outcome.wrong == []
    assert outcome.operations >= SMALL.operations
    assert outcome.ends["answer"] > outcome.operations / 2
    assert {"left", "cancelled"} < outcome.ends.keys()


class Leaks:
    """Holds something more of each kind after each operation."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._files: list[int] = []
        self._memory: list[bytes] = []

    def leak(self) -> None:
        self._memory.append(bytes(LEAKED))
        if not self._tasks:
            self._tasks.append(asyncio.ensure_future(asyncio.sleep(3600)))
            self._files.append(os.open(os.devnull, os.O_RDONLY))
            threading.Thread(target=self._end.wait).start()

    async def mend(self) -> None:
        self._end.set()
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for file in self._files:
            os.close(file)


@pytest.fixture
async def leaks() -> AsyncIterator[Leaks]:
    leaks = Leaks()
    yield leaks
    await leaks.mend()


async def test_one_task_file_and_thread_that_are_left_are_noticed_and_so_is_memory(
    url: str, leaks: Leaks
) -> None:
    plan = replace(SMALL, operations=60)
    outcome = await Phase(url, plan, after_each=leaks.leak).run()
    found = "\n".join(outcome.wrong)
    for what in ("tasks: ", "descriptors: ", "threads: ", "traced memory grows by "):
        assert what in found
    assert len(outcome.wrong) == 4


async def wrong_text(doing: Doing) -> str:
    return "Something else."


async def foreign_error(doing: Doing) -> str:
    raise ZeroDivisionError


async def cancelled_by_itself(doing: Doing) -> str:
    raise asyncio.CancelledError


async def lost_task(doing: Doing) -> str:
    asyncio.ensure_future(foreign_error(doing))  # noqa: RUF006  # that it is lost is the fault
    await asyncio.sleep(0)
    return said(doing.tag)


async def aether_error(doing: Doing) -> str:
    raise AetherError


async def test_operations_that_end_otherwise_than_they_may_are_noticed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: dict[str, Act] = {
        "text": wrong_text,
        "foreign": foreign_error,
        "cancelled": cancelled_by_itself,
        "lost": lost_task,
        "aether": aether_error,
    }
    kinds = {kind: (1, act) for kind, act in ways.items()}
    monkeypatch.setattr("tests.soak.phase.KINDS", kinds)
    outcome = await Phase(url, Plan(operations=40, workers=4, parts=1, rest=0.0)).run()
    found = "\n".join(outcome.wrong)
    for sign in (
        "got 'Something else.'",
        ": ZeroDivisionError()",
        "was cancelled by nobody",
        "logged: Task exception was never retrieved",
    ):
        assert sign in found
    assert "AetherError" not in found
    assert outcome.ends["AetherError"] > 0


def figures(resident: float, traced: float, *, minutes: float) -> Figures:
    return Figures(
        seconds=minutes * 60,
        operations=round(minutes * 1000),
        tasks=1,
        descriptors=9,
        threads=1,
        workers=0,
        resident=round(resident),
        traced=round(traced),
    )


def line(resident: float, traced: float) -> list[Figures]:
    """Measured each minute of ten, with some unrest; it grows by so much from end to end."""
    samples = []
    for minute in range(11):
        unrest = 20_000 * (-1) ** minute
        share = minute * 60 / TEN_MINUTES
        samples.append(
            figures(5e7 + resident * share + unrest, 1e7 + traced * share, minutes=minute)
        )
    return samples


@pytest.mark.parametrize(
    ("resident", "traced", "wrong"),
    [
        (0.4 * MB, 60 * KIB, []),
        (-5 * MB, -500 * KIB, []),
        (0.6 * MB, 60 * KIB, ["resident"]),
        (0.4 * MB, 70 * KIB, ["traced"]),
        (9 * MB, 900 * KIB, ["resident", "traced"]),
    ],
)
def test_memory_that_grows_by_more_than_the_bound_is_noticed(
    resident: float, traced: float, wrong: list[str]
) -> None:
    told, found = growth(line(resident, traced), Bounds())
    assert [each.split()[0] for each in found] == wrong
    assert len(told) == 2


def test_memory_is_not_judged_by_two_samples_and_that_is_told() -> None:
    told, wrong = growth(line(9 * MB, 900 * KIB)[:2], Bounds())
    assert wrong == []
    assert all("not judged" in each for each in told)


async def test_ledgers_are_soon_full_and_sessions_empty_when_memory_is_measured(url: str) -> None:
    with short_ledgers():
        async with Crew.at(url) as crew:
            client = crew.clients[0]
            client.usage.add([LedgerEntry() for _ in range(501)], LLMRequest([]))
            assert len(client.usage.ledger) == 500
            session = client.session("session-0")
            await session.ask(prompt(f"{PLAIN}.s"))
            await level(crew)
            assert await session.history() == []


def test_the_process_begins_once_again_with_a_library_that_keeps_no_free_memory() -> None:
    code = "from tests.soak.figures import *; print('began'); keep_no_free_memory(); print('on')"
    began = subprocess.run(
        [sys.executable, "-uc", code],
        env={"PATH": os.defpath},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert began.stdout.split("\n") == ["began", "began", "on", ""]


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_knows_what_it_says_to_whom(kind: str) -> None:
    reply, found = reply_to(prompt(f"{kind}.1").encode())
    assert found == kind
    assert reply.calls or said(f"{kind}.1") in reply.text
