"""The clients of a soak: one for each protocol and transport, alive as long as a phase lasts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial

from aether import Aether, ProviderConfig
from aether.errors import AetherError
from aether.events import EVENT_NAMES, Event
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.factory import build_provider
from aether.extensions.llm.retrying import RetryingProvider
from aether.http.contracts import Timeout
from aether.registry import default_registry
from aether.testing.faults.protocols import PROTOCOLS
from tests.soak.saying import PLAIN, prompt

__all__ = ["MODELS", "PATIENT", "Crew"]

TRANSPORTS = ("aiohttp", "httpx")
MODELS = [f"model-{number}" for number in range(300)]
"""More than a stack remembers the state of: the rest is forgotten, and made anew."""

_PLAINLY = prompt(f"{PLAIN}.q")
_TRIES = 5

PATIENT = Timeout(connect=5.0, read=1.0, total=4.0)


def _config(url: str, protocol: str, transport: str, timeout: Timeout) -> ProviderConfig:
    """The configuration of a client of the server at that URL."""
    spoken = PROTOCOLS[protocol]
    return ProviderConfig(
        protocol.partition(".")[0],
        model=MODELS[0],
        api_key="sk-of-the-soak",
        base_url=url + spoken.base_path,
        transport=transport,
        timeout=timeout,
        options=spoken.options,
    )


class Crew:
    """The long-lived clients. Every second one is listened to."""

    def __init__(self, url: str, timeout: Timeout = PATIENT) -> None:
        ways = [(protocol, transport) for transport in TRANSPORTS for protocol in PROTOCOLS]
        self.configs = [_config(url, *way, timeout) for way in ways]
        self.clients = [_client(config) for config in self.configs]
        self.heard: Counter[str] = Counter()
        """How often each event was told."""
        for client in self.clients[::2]:
            for name in EVENT_NAMES:
                client.on(name)(self._hear)
            client.on("request.start")(self._hear_slowly)

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str, timeout: Timeout = PATIENT) -> AsyncIterator[Crew]:
        """Make them, and close them at the end of the block."""
        crew = cls(url, timeout)
        try:
            yield crew
        finally:
            for client in crew.clients:
                await client.aclose()

    async def ask_plainly(self) -> None:
        """One question each, in either loop: of the connections that were kept only this one stays,
        for httpx closes those that have been idle for too long when it is next asked.
        """
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread:
            for client in self.clients:
                ask = partial(client.sync.ask, _PLAINLY, model=PLAIN)
                await _tried(partial(client.ask, _PLAINLY, model=PLAIN))
                await _tried(partial(loop.run_in_executor, thread, ask))

    def read_costs(self) -> float:
        """What all but one have cost: that one's entries wait for whoever prices them."""
        return sum(client.usage.total_cost_usd for client in self.clients[1:])

    def unmatched(self) -> Sequence[str]:
        """Starts without an end, and ends without a start; none while nothing is under way."""
        return [
            f"{self.heard[f'{what}.start']} times {what}.start, but {ends} ends"
            for what in ("request", "stream", "tool")
            if (ends := self.heard[f"{what}.complete"] + self.heard[f"{what}.error"])
            != self.heard[f"{what}.start"]
        ]

    def _hear(self, event: Event) -> None:
        self.heard[event.name] += 1

    async def _hear_slowly(self, _: Event) -> None:
        await asyncio.sleep(0)


async def _tried(ask: Callable[[], Awaitable[str]]) -> None:
    """Ask until there is an answer: on a machine that is busy one may come too late."""
    for _ in range(_TRIES):
        with suppress(AetherError):
            await ask()
            return
    await ask()


def _client(config: ProviderConfig) -> Aether:
    """The stack as it is by default, but it waits for moments where that waits for seconds."""
    _, adapter = build_provider(config, default_registry)
    retrying = RetryingProvider(adapter, base_delay=0.005, max_delay=0.05)
    breaking = CircuitBreakerProvider(
        retrying, failure_threshold=20, recovery_timeout=0.1, max_recovery_timeout=0.5
    )
    return Aether(breaking)
