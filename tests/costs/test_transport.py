"""What the default transport adds to a call: functions of aiohttp's and of its own, on a server.

The server runs in this thread, and asyncio with it: neither is counted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aether import Aether, ProviderConfig
from benchmarks import server
from tests.costs.steps import steps

PROMPT = "What is 17 + 25?"


@pytest.fixture
async def client() -> AsyncIterator[Aether]:
    async with await server.start() as running:
        url = f"http://127.0.0.1:{server.port_of(running)}/v1"
        config = ProviderConfig("openai", model="gpt-4o-mini", api_key="sk-none", base_url=url)
        async with Aether(config=config) as client:
            yield client
        running.close()


async def test_a_call_on_a_connection_that_is_open_takes_few_functions(client: Aether) -> None:
    found = await steps(lambda: client.ask(PROMPT))
    counts = {
        place: sum(times for name, times in found.python.items() if name.startswith(place))
        for place in ("aether.extensions.http", "aiohttp")
    }
    assert 20 < counts["aether.extensions.http"] <= 34, counts
    assert 5 < counts["aiohttp"] <= 12, counts
