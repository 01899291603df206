"""Filling what is kept by design, and bounded: until it is full it would look like a leak."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pydantic
from pydantic_core import from_json, to_json

from aether import Aether
from aether.errors import AetherError
from aether.extensions.llm._tally import ENTRIES_KEPT
from aether.llm.contracts import LLMRequest
from aether.llm.usage import LedgerEntry
from tests.soak.crew import MODELS, Crew
from tests.soak.saying import PLAIN, prompt, said

__all__ = ["fill"]

_SHAPES = 200
"""More types of answers, and functions as tools, than are remembered."""
_TEXTS = 200_000
"""Many more than pydantic's reader of JSON remembers, which are 16,384."""


async def fill(crew: Crew) -> None:
    """Fill each client's ledger with copies of its entries, and the states of models; and for all
    of them what is remembered of types, of functions and, by pydantic, of short texts.
    """
    for number in range(_SHAPES):
        client = crew.clients[number % len(crew.clients)]
        with suppress(AetherError):
            kind = pydantic.create_model("Typed", said=(str, ...))
            await client.ask(prompt(f"typed.f{number}"), output=kind)
        with suppress(AetherError):
            await client.ask(prompt(f"{PLAIN}.f"), tools=[_function()], model=PLAIN)
    for model in MODELS:
        asking = (client.ask(prompt(f"{PLAIN}.f"), model=model) for client in crew.clients)
        await asyncio.gather(*asking, return_exceptions=True)
    from_json(to_json([said(f"f{number}") for number in range(_TEXTS)]))
    for client in crew.clients:
        _fill_ledger(client)


def _fill_ledger(client: Aether) -> None:
    entries = client.usage.ledger
    for number in range(ENTRIES_KEPT - len(entries)):
        client.usage.add([_alike(entries[number % len(entries)])], LLMRequest([]))


def _alike(entry: LedgerEntry) -> LedgerEntry:
    """A copy that has of its own what each entry has, and shares the rest, as they do."""
    return replace(
        entry,
        run_id=_own(entry.run_id),
        error=_own(entry.error),
        started_at=entry.started_at + timedelta(),
        token_details=dict(entry.token_details),
    )


def _own(text: str | None) -> Any:
    return None if text is None else "".join(list(text))


def _function() -> Callable[..., Any]:
    async def add(a: int, b: int) -> str:
        """Add two numbers."""
        return str(a + b)

    return add
