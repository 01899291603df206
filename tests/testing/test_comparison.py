"""The comparison with other libraries: its probes do what they are called, its table counts right.

The other libraries are in `make compare` alone; what it says of Aether holds here, too.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aether import Aether
from aether.errors import AetherError
from aether.testing import FaultServer
from aether.testing.faults import Fault
from comparison.probes import (
    AFTER_THE_FIRST_TEXT,
    REPLY,
    Probe,
    failures,
    probes,
    right_answers,
    wrong_answers,
)
from comparison.running import Compared, Outcome
from comparison.table import LINES, NAMES, classes, details, table
from comparison.worker import connections, tick
from tests.testing.plain_peer import WIRES, plain_peer, taken_apart

PROTOCOLS = tuple(WIRES)
ROOT = Path(__file__).parents[2]
REASONS = (b'"finish_reason": "', b"response.completed", b'"stop_reason": "', b"finishReason")


async def body_of(probe: Probe) -> bytes:
    reply: Any = probe.reply
    if isinstance(reply, Fault):
        reply = [REPLY, reply]
    async with FaultServer(reply=reply) as server, plain_peer(server) as peer:
        await peer.send(probe.protocol, streaming=probe.do == "stream")
        if probe.name == "the connection closed after it":
            assert await peer.until_end() == "fin"
        else:
            await peer.pieces()
    answer = taken_apart(peer.data)
    assert answer.status == 200
    assert answer.ended
    return answer.body


def is_answer(body: bytes) -> bool:
    try:
        return "error" not in json.loads(body)
    except ValueError:
        return False


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_no_wrong_answer_says_why_it_ended(protocol: str) -> None:
    found = list(wrong_answers(protocol))
    for probe in found:
        body = await body_of(probe)
        if probe.do == "stream":
            assert not any(reason in body for reason in REASONS), probe
        else:
            assert not is_answer(body), probe
    assert len({(probe.do, probe.name) for probe in found}) == len(found)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_each_right_answer_says_why_it_ended(protocol: str) -> None:
    for probe in right_answers(protocol):
        body = await body_of(probe)
        if probe.do == "ask" and protocol == "openai.responses":
            assert json.loads(body)["status"] == "completed"
        else:
            assert any(reason in body for reason in REASONS), probe


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_half_of_a_calls_arguments_come(protocol: str) -> None:
    cut = [probe for probe in wrong_answers(protocol) if probe.tool]
    for probe in cut:
        body = await body_of(probe)
        assert b"get_weather" in body
        assert b"the one" in body
        assert b"France" not in body
    assert len(cut) == (protocol != "gemini")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_is_probed_alike(protocol: str) -> None:
    groups = {probe.group for probe in probes(protocol)}
    assert groups >= {"wrong, streamed", "wrong, whole", "right", "failure", "break", "redirect"}
    assert len(list(failures(protocol))) == 13


async def take_wrong_answers(protocol: str, transport: str) -> int:
    """Let a client have each of them. Returns how many there were."""
    count = 0
    for probe in wrong_answers(protocol):
        reply: Any = probe.reply
        async with (
            FaultServer(reply=[REPLY, reply] if isinstance(reply, Fault) else reply) as server,
            Aether(config=server.config(protocol, transport=transport), with_retry=False) as client,
        ):
            with pytest.raises(AetherError):
                await (client.ask("Hi") if probe.do == "ask" else read(client))
        count += 1
    return count


async def read(client: Aether) -> str:
    return "".join([text async for text in client.stream_text("Hi", tools=[get_weather])])


def get_weather(city: str) -> str:
    raise AssertionError(f"called for {city}")


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_aether_takes_no_wrong_answer_for_right(transport: str) -> None:
    counts = [await take_wrong_answers(protocol, transport) for protocol in PROTOCOLS]
    assert counts == [12, 10, 12, 9]


async def leave(client: Aether) -> None:
    async for _ in client.stream_text("Hi"):
        break


async def fail(client: Aether) -> None:
    with suppress(ZeroDivisionError):
        async for _ in client.stream_text("Hi"):
            raise ZeroDivisionError


async def cancel(client: Aether, *, times: int = 1) -> None:
    heard = asyncio.Event()

    async def read() -> None:
        async for _ in client.stream_text("Hi"):
            heard.set()

    task = asyncio.create_task(read())
    await heard.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with suppress(asyncio.CancelledError):
        await task


WAYS: dict[str, Callable[[Aether], Awaitable[None]]] = {
    "break": leave,
    "raise": fail,
    "cancel": cancel,
    "cancel twice": partial(cancel, times=2),
}


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.usefixtures("no_collector")
async def test_aether_leaves_no_socket_open(protocol: str, transport: str, way: str) -> None:
    """32 streams each: 1,024 in all."""
    async with (
        FaultServer(reply=[REPLY, AFTER_THE_FIRST_TEXT]) as server,
        Aether(config=server.config(protocol, transport=transport)) as client,
    ):
        for _ in range(32):
            await WAYS[way](client)
        await tick()
        assert connections(server.url) == 0
        assert server.count == 32


def outcome(group: str, protocol: str = "openai", **fields: Any) -> Outcome:
    said = fields.pop("said", {"text": "Hi", "finish": "stop"})
    requests = fields.pop("requests", 1)
    name = fields.pop("name", "one")
    return Outcome(Probe(group, name, protocol, "ask"), said, requests, **fields)


def line(title: str, *outcomes: Outcome) -> str:
    return dict(LINES)[title](Compared("aether", "1", ["openai"], list(outcomes)))


ERROR = {"error": "builtins.KeyError", "typed": False, "message": ""}


class TestTable:
    def test_a_wrong_answer_is_taken_for_right_if_there_is_no_error(self) -> None:
        title = "wrong answers in a stream that are taken for right"
        taken = outcome("wrong, streamed", said={"text": "", "finish": None})
        told = outcome("wrong, streamed", said={"text": "", "finish": "error"})
        refused = outcome("wrong, streamed", said=ERROR)
        waiting = outcome("wrong, streamed", said={"waiting": True})
        assert line(title, taken, told, refused, waiting) == "1 of 4"
        assert line("of these, with a reason that says finished", taken) == "0 of 1"
        assert line(title) == "-"

    def test_an_error_of_the_librarys_own_is_not_of_another_class(self) -> None:
        own = outcome("failure", said={**ERROR, "typed": True})
        title = "errors of another class than the library's own"
        assert line(title, own, outcome("failure", said=ERROR)) == "1 of 2"

    def test_one_value_stands_for_all_protocols_that_share_it(self) -> None:
        title = "requests in an outage (503), one call"
        same = [outcome("outage", protocol, requests=3) for protocol in PROTOCOLS]
        assert line(title, *same) == "3"
        other = outcome("outage", "gemini", requests=1, said={"waiting": True})
        assert line(title, *same[:2], other) == "3 (chat, responses); 1, still waiting (gemini)"

    @pytest.mark.parametrize(
        ("arrivals", "cell"), [([0.0], "not sent again"), ([0.0, 0.5], "no"), ([1.0, 2.0], "yes")]
    )
    def test_a_wait_is_from_one_request_to_the_next(self, arrivals: list[float], cell: str) -> None:
        waited = outcome("in a second", arrivals=arrivals)
        assert line("waits for a `Retry-After` of a second", waited) == cell

    def test_the_details_say_who_took_what(self) -> None:
        taken = outcome("wrong, whole", name="nothing")
        refused = outcome("wrong, whole", "gemini", name="nothing", said=ERROR)
        harmless = outcome("failure", name="429", said=ERROR)
        found = [Compared("aether", "1", [], [taken, refused, harmless])]
        assert details(found).splitlines()[2:] == ["| nothing (no stream) | taken (chat) |"]
        assert classes(found) == "- Aether: `builtins.KeyError` (2)"
        assert len(table(found).splitlines()) == len(LINES) + 2


def test_each_library_has_a_file_and_an_environment() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"COMPARED := {' '.join(NAMES)}\n" in makefile
    for name in NAMES:
        assert (ROOT / "comparison" / "peers" / f"{name}.py").is_file()
        assert name == "aether" or (ROOT / "comparison" / "environments" / f"{name}.txt").is_file()


def test_the_page_has_a_place_for_each_part() -> None:
    page = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    for part in ("figures", "details", "classes"):
        assert page.index(f"<!-- {part} -->") < page.index(f"<!-- end of {part} -->")
