"""A client that is closed has closed everything, also if closing was cancelled or calls were on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from aether import Aether, AetherError
from aether.errors import ProviderError
from aether.extensions.memory import InMemorySessionStore
from aether.registry import Registry
from aether.testing import FakeProvider, FaultServer, faults
from tests.faults.aftermath import Aftermath
from tests.faults.stage import settle, share_tls_context
from tests.faults.sweep import WAYS, Cancelling, Way, every_pair_of_points, every_point, pause

pytestmark = pytest.mark.row("M9")

transports = pytest.mark.parametrize("transport", ["aiohttp", "httpx"])


@pytest.fixture(autouse=True)
def one_tls_context(monkeypatch: pytest.MonkeyPatch) -> None:
    share_tls_context(monkeypatch)


# --- cancelled while it closes -----------------------------------------------------------------


@transports
@pytest.mark.parametrize("way", WAYS)
async def test_closing_that_is_cancelled_closes_every_connection(transport: str, way: Way) -> None:
    assert await every_point(way, closing(transport)) >= 2


@transports
async def test_closing_that_is_cancelled_again_closes_every_connection(transport: str) -> None:
    assert await every_pair_of_points(closing(transport)) >= 2


def closing(transport: str) -> Callable[[Cancelling], Awaitable[None]]:
    """Of a client with two idle connections and one whose answer hangs."""

    async def attempt(cancelling: Cancelling) -> None:
        async with FaultServer() as server:
            client = Aether(config=server.config(transport=transport))
            await client.ask("go")
            await asyncio.gather(*(client.ask("go") for _ in range(3)))
            server.will(faults.cut(events=3, ending="hanging"))
            stream = client.stream("go")
            await anext(stream)
            tasks = asyncio.all_tasks()
            assert server.open_connections == 3
            await cancelling.run(client.aclose())
            if cancelling.point == 0:  # it had not begun
                await client.aclose()
            await server.until_open(0)
            with pytest.raises(AetherError):
                async for _ in stream:
                    pass
            await settle(tasks)

    return attempt


async def test_closing_that_is_cancelled_goes_on_with_the_other_providers(
    aether_registry: Registry,
) -> None:
    class Slow(FakeProvider):
        asked = 0

        async def aclose(self) -> None:
            self.asked += 1
            await pause()

    async def attempt(cancelling: Cancelling) -> None:
        own, other = Slow(), Slow()
        aether_registry.add("llm_provider", "other", lambda: other, replace=True)
        client = Aether(own)
        await client.ask("go", model="other:m")
        await cancelling.run(client.aclose())
        assert own.asked == other.asked == (1 if cancelling.point else 0)

    assert await every_point("once", attempt) >= 2


async def test_cancelled_body_of_a_clients_with_goes_on_as_cancelled() -> None:
    async with FaultServer(faults.hang()) as server:

        async def use() -> None:
            async with Aether(config=server.config()) as client:
                await client.ask("go")

        task = asyncio.ensure_future(use())
        await server.until_hanging()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until_open(0)


# --- calls that are under way ------------------------------------------------------------------


async def ask(client: Aether) -> None:
    await client.ask("go")


async def ask_in_a_session(client: Aether) -> None:
    await client.session("s").ask("go")


async def stream(client: Aether) -> None:
    async for _ in client.stream("go"):
        pass


async def stream_in_a_session(client: Aether) -> None:
    async for _ in client.session("s").stream_text("go"):
        pass


CALLS = (ask, ask_in_a_session, stream, stream_in_a_session)


@transports
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@pytest.mark.parametrize("begun", [False, True], ids=["before", "in the middle of"])
async def test_call_whose_client_is_closed_ends_with_an_error_that_says_so(
    transport: str,
    call: Callable[[Aether], Awaitable[None]],
    begun: bool,
    aftermath: Aftermath,
) -> None:
    store = InMemorySessionStore()
    fault = faults.cut(events=3, ending="hanging") if begun else faults.hang()
    async with FaultServer(fault) as server:
        config = server.config(transport=transport, api_key=aftermath.key)
        client = aftermath.client(Aether(config=config, memory_store=store))
        await aftermath.keeps_history(store, "s")
        task = asyncio.ensure_future(call(client))
        await server.until_hanging()
        await client.aclose()
        await asyncio.wait({task}, timeout=2)
        assert task.done()
        error = task.exception()
        assert isinstance(error, ProviderError)
        assert (error.kind, error.retryable) == ("closed", False)
        assert "was closed" in str(error)
        assert (error.partial is not None) == (begun and "stream" in call.__name__)
        aftermath.told(error)
        await server.until_open(0)
        aftermath.one_entry_per_request(client, server)
