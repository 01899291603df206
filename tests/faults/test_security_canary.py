"""A key is in no output: not of an error, not of what can be printed, not of the whole suite."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from aether import Aether
from aether.errors import AetherError
from aether.extensions.memory.sqlite import SQLiteSessionStore
from aether.testing import FaultServer, faults
from tests.client.test_secrets import texts_within
from tests.faults import canary
from tests.faults.aftermath import KEY, Aftermath

ROOT = Path(__file__).parents[2]
PROTOCOLS = ["openai", "openai.responses", "anthropic", "gemini"]
TELLTALE = f"Incorrect API key provided: {KEY}"

ECHOED: dict[str, list[Any]] = {
    "refused with the key in its words": [faults.refuse("authentication", TELLTALE)],
    "failing": [faults.status(500, TELLTALE.encode())],
    "overloaded": [faults.error_event("overloaded", TELLTALE)],
    "breaking off with an error": [faults.error_event("overloaded", TELLTALE, after=2)],
    "a page": [faults.document(f"<p>{TELLTALE}</p>".encode())],
    "no HTTP": [faults.raw(f"HELLO {KEY}\r\n\r\n".encode())],
    "a redirect": [faults.redirect(f"http://127.0.0.1:1/?key={KEY}")],
    "an odd coding": [faults.headers(("content-encoding", KEY))],
}
"""Answers in which the server says the key."""
SILENT: dict[str, list[Any]] = {
    "refused": [faults.refuse("bad_request")],
    "nothing": [faults.document(b"")],
    "reset": [faults.reset()],
    "closed": [faults.close()],
    "cut": [faults.cut(events=1)],
    "an odd length": [faults.wrong_length(-5)],
    "an error": [faults.error_event("overloaded", after=1)],
    "no HTTP": [faults.raw(b"HELLO\r\n\r\n")],
}


@pytest.mark.row("X13")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_no_error_shows_the_key_that_the_server_says(
    protocol: str,
    transport: str,
    streamed: bool,
    aftermath: Aftermath,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # What httpx2 logs of the head of an answer, at the level DEBUG, it logs as the server said it.
    caplog.set_level(logging.INFO, logger="httpcore2")
    async for fault, error in failures(ECHOED, protocol, transport, streamed, aftermath):
        assert (fault, [text for text in shown(error) if KEY in text]) == (fault, [])


@pytest.mark.row("X13")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_no_error_shows_the_key_even_with_the_variables_of_all_functions(
    protocol: str, transport: str, streamed: bool, aftermath: Aftermath
) -> None:
    async for fault, error in failures(SILENT, protocol, transport, streamed, aftermath):
        formatted = traceback.TracebackException.from_exception(error, capture_locals=True).format()
        # What these tests have in their own functions is known.
        told = [text for text in formatted if Path(__file__).name not in text]
        assert len(told) > 1
        assert (fault, [text for text in (*told, *shown(error)) if KEY in text]) == (fault, [])


async def failures(
    wrong: Mapping[str, list[Any]],
    protocol: str,
    transport: str,
    streamed: bool,
    aftermath: Aftermath,
) -> AsyncIterator[tuple[str, BaseException]]:
    """What came of calls that go wrong. Some words of a server can be taken as they are."""
    async with FaultServer() as server:
        config = server.config(protocol, api_key=KEY, transport=transport)
        async with Aether(config=config, with_retry=False, with_circuit_breaker=False) as client:
            aftermath.client(client)
            for fault, answer in wrong.items():
                server.will(answer)
                try:
                    if streamed:
                        assert [text async for text in client.stream_text("hi")]
                    else:
                        assert await client.ask("hi")
                except AetherError as error:
                    yield fault, error
        assert all(KEY in "".join(sent.headers.values()) for sent in server.requests)
        assert server.count == len(wrong)


def shown(error: BaseException) -> Iterator[str]:
    """All that can be seen of an error and of what led to it."""
    for each in chain(error):
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)))
        yield from texts_within(vars(each))
    yield from traceback.format_exception(error)
    for make in (copy.copy, copy.deepcopy):
        yield repr(vars(make(error)))
    yield pickle.dumps(error).decode("latin-1")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error with all its causes and contexts, shown in tracebacks or not."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            waiting += [each.__cause__, each.__context__]
            waiting += getattr(each, "exceptions", ())
            yield each


@pytest.mark.row("X13")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_nothing_that_a_client_gives_or_keeps_shows_the_key(
    protocol: str, transport: str, aftermath: Aftermath, tmp_path: Path
) -> None:
    store = SQLiteSessionStore(tmp_path / "sessions.db")
    async with FaultServer() as server:
        config = server.config(protocol, api_key=KEY, transport=transport)
        async with Aether(config=config, memory_store=store) as client:
            aftermath.client(client)
            aftermath.one_entry_per_request(client, server)
            response = await client.complete("hi")
            await client.session("a").ask("hi")
            assert [chunk async for chunk in client.session("a").stream("hi")]
            seen = [repr(client), str(client), repr(vars(client)), repr(client.provider)]
            seen += [repr(client.usage), repr(client.usage.ledger), repr(config), str(config)]
            seen += [repr(response), response.model_dump_json(), repr(await store.load("a"))]
            seen += texts_within(client)
            seen += texts_within(aftermath.events)
        assert KEY in "".join(server.requests[0].headers.values())
    await store.aclose()
    seen += [path.read_bytes().decode("latin-1") for path in list_of(tmp_path)]
    assert len(seen) > 50
    assert [text for text in seen if KEY in text] == []


def list_of(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.mark.row("X13")
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_can_be_pickled_has_no_key_in_it(protocol: str) -> None:
    async with FaultServer() as server:
        config = server.config(protocol, api_key=KEY)
        async with Aether(config=config) as client:
            response = await client.complete("hi")
            for each in (client, client.provider, client.usage, response):
                try:
                    pickled = pickle.dumps(each)
                except (TypeError, AttributeError, pickle.PicklingError):
                    continue  # what has a lock or a function in it cannot be
                assert KEY.encode() not in pickled


LEAKING = """
import logging
import sys
import pytest

KEY = "sk-canary-0123"

def test_prints_it():
    print(KEY)

def test_prints_it_as_an_error():
    print(KEY, file=sys.stderr)

def test_logs_it():
    logging.getLogger("any").debug("with %s", KEY)

def test_logs_it_as_a_name():
    logging.getLogger(KEY).debug("x")

def test_logs_an_error_with_it():
    try:
        raise ValueError(KEY)
    except ValueError:
        logging.getLogger("any").exception("failed")

def test_logs_it_where_another_level_is_set(caplog):
    caplog.set_level(logging.ERROR, logger="other")
    logging.getLogger("any").debug(KEY)

def test_skips_with_it():
    pytest.skip(KEY)

def test_leaves_it_to_the_end(request):
    request.addfinalizer(lambda: print(KEY))

def test_shows_none():
    print("<key>")
    logging.getLogger("any").warning("used")
    assert KEY
"""


@pytest.mark.row("X13")
def test_a_test_that_shows_a_key_fails(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(LEAKING)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-c", os.devnull]
    done = subprocess.run(
        [*command, "-p", canary.__name__, "-p", "no:cacheprovider", str(tmp_path)],
        cwd=ROOT,
        # Other plugins take longer to import than all of this to run.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, set[str]] = {}
    for outcome, name in re.findall(r"^([A-Z]+) \S+::(\w+)", done.stdout, re.MULTILINE):
        found.setdefault(name, set()).add(outcome)
    assert found.pop("test_shows_none") == {"PASSED"}
    assert found.keys() == set(re.findall(r"def (\w+)", LEAKING)) - {"test_shows_none"}
    assert {name for name, outcome in found.items() if not outcome & {"FAILED", "ERROR"}} == set()


@pytest.mark.row("X13")
def test_this_run_listens_for_keys(request: pytest.FixtureRequest) -> None:
    assert request.config.pluginmanager.has_plugin(canary.__name__)
    assert canary.MARK in KEY
