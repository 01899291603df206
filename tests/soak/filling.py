"""What is kept by design, and bounded: until it is full it would look like a leak, and afterwards
its size is left to chance. So it is filled before, and made alike whenever memory is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from unittest import mock

from pydantic_core import from_json, to_json

from aether import Aether
from aether.errors import AetherError
from aether.extensions.llm import _tally
from aether.llm.contracts import LLMRequest
from aether.llm.usage import LedgerEntry
from tests.soak.crew import MODELS, Crew
from tests.soak.operations import clear_sessions, new_tool, new_type
from tests.soak.saying import PLAIN, prompt

__all__ = ["fill", "level", "short_ledgers"]

_ENTRIES, _UNPRICED = 500, 100
"""A ledger of 10,000 would not be full of what was done while it is traced."""
_SHAPES = 200
"""More types of answers, and functions as tools, than are remembered."""
_TIMES = 2
"""A dictionary grows once more when a third of its keys has been replaced."""
_TEXTS = [
    to_json([f"{number:040}" for number in range(first, first + 1000)])
    for first in range(0, 150_000, 1000)
]
"""Many more than pydantic's reader of JSON remembers, which are 16,384; all of one length."""


@contextmanager
def short_ledgers() -> Iterator[None]:
    """In the block ledgers keep fewer entries, and fewer of them wait for a price: as bounded, but
    full soon.
    """
    with mock.patch.multiple(_tally, ENTRIES_KEPT=_ENTRIES, UNPRICED_KEPT=_UNPRICED):
        yield


async def fill(crew: Crew) -> None:
    """Fill each client's states and prices of models, and with that its ledger; and for all of them
    what is remembered of types and of functions.
    """
    for _ in range(0, _SHAPES, len(crew.clients)):
        await _asked(client.ask(prompt("typed.f"), output=new_type()) for client in crew.clients)
        await _asked(client.ask(prompt("tool.f"), tools=[new_tool()]) for client in crew.clients)
    for model in MODELS * _TIMES:
        await _asked(client.ask(prompt(f"{PLAIN}.f"), model=model) for client in crew.clients)
    for client in crew.clients:
        _look_up_prices(client)


async def level(crew: Crew) -> None:
    """Make alike what differs by chance: sessions are cleared, and the texts that pydantic's reader
    remembers are always the same.
    """
    for client in crew.clients:
        await clear_sessions(client)
    for texts in _TEXTS:
        from_json(texts)


async def _asked(asking: Iterable[Awaitable[object]]) -> None:
    """All at once; and some may fail."""
    for outcome in await asyncio.gather(*asking, return_exceptions=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, AetherError):
            raise outcome


def _look_up_prices(client: Aether) -> None:
    """Of each model, as where an attempt failed: after an answer it is that of the one that gave
    it.
    """
    provider = client.usage.ledger[-1].provider
    for model in MODELS:
        client.usage.add([LedgerEntry(provider, model)], LLMRequest([]))
