"""Many streams at once, the small version: see many_streams.py for ten thousand."""

from __future__ import annotations

import pytest

from aether.testing import FaultServer, faults
from tests.faults.exchanges import each_transport
from tests.faults.many_streams import Crowd, ask_all, leave_all

STREAMS = 200
CHUNKS = 12


@pytest.mark.row("N18", "N13")
@each_transport
async def test_of_many_streams_at_once_none_is_lost_told_twice_or_mixed_up(transport: str) -> None:
    streams = STREAMS if transport == "aiohttp" else STREAMS // 4
    crowd = Crowd(streams, CHUNKS)
    async with FaultServer(reply=crowd.answer) as server:
        tally = await ask_all(server.url, streams, CHUNKS, transport=transport)
        assert server.accepted == streams
        await server.until_open(0)
    assert tally.wrong == []
    assert tally.ends == {"answer": streams, "ledger entries": streams}


@pytest.mark.row("N18", "N9", "N10")
async def test_of_many_streams_that_fail_each_ends_typed_with_what_it_said() -> None:
    crowd = Crowd(STREAMS, CHUNKS, share=0.2)
    async with FaultServer(reply=crowd.answer) as server:
        tally = await ask_all(server.url, STREAMS, CHUNKS, attempts=3)
        await server.until_open(0)
        assert tally.ends.pop("ledger entries") == server.count > STREAMS
    assert tally.wrong == []
    assert tally.ends.total() == STREAMS
    assert tally.ends["StreamInterruptedError"]


@pytest.mark.row("N9")
async def test_many_streams_that_are_left_are_closed() -> None:
    fault = faults.cut(events=2, ending="hanging")
    async with FaultServer(*[fault] * 40) as server:
        tally = await leave_all(server.url, 40)
        await server.until_open(0)
    assert tally.ends.total() == 40
