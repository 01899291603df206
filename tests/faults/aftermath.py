"""What must be true after each test of a fault: nothing left, nothing counted twice, nothing told.

A test that is marked with `row` gets this without asking: no task, thread, socket, file or turn of
a session is left, and the key is in no log. Of each client that it makes, every event that starts
something has one that ends it, the ledger has one entry for each request, settled, and the key is
in nothing that the client tells; a session's turn that fails leaves the history as it was. What is
not seen without being told says observing.py. To have the ledger compared with a server's own
count, another store's history watched, or the key looked for in an error, ask for the fixture:

    @pytest.mark.row("N4")
    async def test_...(aftermath):
        async with FaultServer(...) as server:
            client = aftermath.client(Aether(config=...api_key=aftermath.key...))
            aftermath.one_entry_per_request(client, server)
            await aftermath.keeps_history(store, "session")

The garbage collector is off while the test runs: what is released is released without it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import traceback
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol, cast

import pytest

from aether import Aether, SessionStore
from aether.events import EVENT_NAMES, Event
from aether.llm.contracts import Message
from tests.faults.observing import Observed, observe

KEY = "sk-canary-5f1d0c3b9a7e"
"""The key of every test of a fault: it must be found in no output."""

_SETTLING_TURNS = 20
_ENDINGS = {
    "request.start": ("request.complete", "request.error"),
    "stream.start": ("stream.complete", "stream.error"),
    "tool.start": ("tool.complete", "tool.error"),
}


class _Serving(Protocol):
    """A server that says how many requests it has got."""

    @property
    def count(self) -> int: ...


class Aftermath:
    """Collects what a test uses, and judges at its end. Each check can be made earlier, too."""

    key = KEY

    def __init__(self, observed: Observed | None = None) -> None:
        self._observed = Observed() if observed is None else observed
        self._clients: list[Aether] = []
        self._events: list[Event] = []
        self._counted: list[tuple[Aether, _Serving]] = []
        self._histories: list[tuple[SessionStore, str, list[Message]]] = []
        self._told: list[str] = []

    @property
    def events(self) -> list[Event]:
        """The events of the clients that were handed in, so far."""
        return self._events

    def listen_to_nobody(self) -> None:
        """Have no subscriber at the clients that are made from now on."""
        self._observed.listening = False

    def client(self, client: Aether) -> Aether:
        """Watch a client's events, and look for the key in all that it tells. Returns it."""
        self._clients.append(client)
        for name in EVENT_NAMES:
            client.on(name)(self._events.append)
        return client

    def one_entry_per_request(self, client: Aether, server: _Serving) -> None:
        """At the end the client's ledger has as many entries as the server got requests."""
        self._counted.append((client, server))

    async def keeps_history(self, store: SessionStore, session_id: str) -> None:
        """At the end the session's messages are what they are now."""
        self._histories.append((store, session_id, await store.load(session_id)))

    def told(self, text: object) -> None:
        """Look for the key in this too: an error, with all that led to it, or any object."""
        if isinstance(text, BaseException):
            shown = traceback.TracebackException.from_exception(text, capture_locals=False)
            self._told += ["".join(shown.format()), repr(vars(text))]
        self._told.append(repr(text))
        self._told.append(str(text))

    async def judge(self) -> None:
        """Assert all that can be asserted of what was handed in or seen."""
        _each_start_has_one_end(self._events)
        _each_start_has_one_end(self._observed.events)
        self._observed.judge()
        for client, server in self._counted:
            ledger = client.usage.ledger
            assert len(ledger) == server.count, (
                f"{len(ledger)} ledger entries for {server.count} requests: {ledger}"
            )
            assert all(entry.state != "pending" for entry in ledger), f"not settled: {ledger}"
        for store, session_id, before in self._histories:
            after = await store.load(session_id)
            assert after == before, f"the history of {session_id!r} changed: {before} -> {after}"

    def shows_no_key(self, log: str) -> None:
        """Assert that the key is in nothing that was logged, told or published."""
        events = [*self._events, *self._observed.events]
        texts = [log, *self._told, *map(repr, events)]
        for client in {*self._clients, *self._observed.clients}:
            texts += [repr(client), repr(client.usage)]
        errors = [event.error for event in events if event.error is not None]
        alike = {(type(error), str(error)): error for error in errors}
        for error in alike.values():  # to format thousands of them would take minutes
            texts += traceback.format_exception(error)
        shown = [text for text in texts if KEY in text]
        assert not shown, f"the key was shown: {shown[0][:500].replace(KEY, '<KEY>')}"


def _each_start_has_one_end(events: list[Event]) -> None:
    counts = Counter((event.name, event.run_id, event.turn, event.call_id) for event in events)
    starts = ends = 0
    for (name, run, turn, call), count in counts.items():
        if name in _ENDINGS:
            ended = sum(counts[end, run, turn, call] for end in _ENDINGS[name])
            assert ended == count == 1, f"{count} times {name}, and {ended} ends: {counts}"
            starts += count
        elif name != "stream.chunk":
            ends += count
    assert starts == ends, f"{starts} starts, but {ends} ends: {counts}"


class _Log(logging.Handler):
    """Everything that anybody logs, at every level."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.args!r} {record.exc_text}")
        if record.exc_info:
            self.lines += traceback.format_exception(*record.exc_info)


@pytest.fixture
async def aftermath(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Aftermath]:
    """See the module. It comes before every other fixture of the test, and so judges after them."""
    observed = observe(monkeypatch)
    collected = Aftermath(observed)
    log, root = _Log(), logging.getLogger()
    level = root.level
    tasks, files, threads = asyncio.all_tasks(), _open_files(), _threads()
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield collected
        await collected.judge()
        tasks.add(cast("asyncio.Task[Any]", asyncio.current_task()))
        await _settle(tasks, files, threads)
        left = asyncio.all_tasks() - tasks
        assert not left, f"tasks were left: {left}"
        open_now = _open_files()
        opened = {number: open_now[number] for number in open_now.keys() - files.keys()}
        assert not opened, f"sockets or files were left open: {opened}"
        assert _threads() <= threads, f"threads were left: {_threads() - threads}"
        for queue in observed.queues:
            assert queue._current is None, "a session's turn was not given back"
            assert not queue._waiting, "somebody still waits for a session's turn"
    finally:
        if collecting:
            gc.enable()
        root.removeHandler(log)
        root.setLevel(level)
    collected.shows_no_key("\n".join(log.lines))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever shows a row of the matrix is judged afterwards, too."""
    for item in items:
        if item.get_closest_marker("row") is not None:
            names: list[str] = getattr(item, "fixturenames", [])
            if "aftermath" in names:
                names.remove("aftermath")
            names.insert(0, "aftermath")


async def _settle(tasks: set[asyncio.Task[Any]], files: dict[int, str], threads: set[str]) -> None:
    """Give what was told to end a few turns of the loop, and a thread a moment, to do so."""
    for turn in range(_SETTLING_TURNS):
        if (
            asyncio.all_tasks() <= tasks
            and _open_files().keys() <= files.keys()
            and _threads() <= threads
        ):
            return
        await asyncio.sleep(0 if turn < _SETTLING_TURNS / 2 else 0.01)


def _open_files() -> dict[int, str]:
    """What this process has open, by number."""
    found: dict[int, str] = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except OSError:  # the folder's own, closed by now
            continue
    return found


def _threads() -> set[str]:
    """The threads that somebody must end. Workers that idle for a while end by themselves, and
    those in which a loop looks up names with the loop.
    """
    return {
        thread.name
        for thread in threading.enumerate()
        if not thread.name.startswith(("aether-tool", "asyncio_"))
    }
