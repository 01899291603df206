"""A budget whose limit is reached while many calls are under way, of which some fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aether import Aether, Budget
from aether.errors import BudgetExceededError
from aether.testing import FaultServer, faults
from tests.faults.aftermath import Aftermath
from tests.faults.books import PROTOCOLS, Books, a_reply, ask, opened_books

pytestmark = pytest.mark.row("B7")

both_ways = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)

MOST_TOKENS = 200
CALLS = 16


async def most_of_one(books: Books) -> float:
    """What one call may cost at most. The prices are loaded here, and not in a thread."""
    books.client.usage.prices.load()
    estimate = await books.client.estimate("What is 6 times 7?", max_tokens=MOST_TOKENS)
    assert estimate.most.usd is not None
    return estimate.most.usd


async def fan_out(client: Aether, budget: Budget, *, streaming: bool) -> list[Any]:
    """Many calls at once: the error of each that failed."""
    return await asyncio.gather(
        *(
            ask(client, streaming=streaming, max_tokens=MOST_TOKENS, budget=budget)
            for _ in range(CALLS)
        )
    )


def holds(budget: Budget) -> bool:
    """Whether anything is still set aside."""
    return budget.account.held != type(budget.account.held)()


@both_ways
@every_protocol
async def test_calls_that_begin_together_never_spend_more_than_there_is(
    aftermath: Aftermath, protocol: str, streaming: bool
) -> None:
    async with (
        FaultServer(reply=a_reply(protocol)) as server,
        opened_books(server, protocol, aftermath=aftermath) as books,
    ):
        limit = 5.5 * await most_of_one(books)
        budget = Budget(usd=limit)
        refused = first = 0
        while not refused or refused < CALLS:  # until nothing more fits
            results = await fan_out(books.client, budget, streaming=streaming)
            refused = sum(isinstance(each, BudgetExceededError) for each in results)
            assert budget.spent_usd <= limit
            assert not holds(budget)
            if not first:
                first = server.count
        assert first == 6, "as many are sent at once as there is room for, the last with less"
        assert budget.spent_usd == books.client.usage.total_cost_usd
        assert budget.spent_requests == server.count
        assert budget.uncertain_usd == 0.0


@both_ways
@every_protocol
async def test_so_it_is_where_attempts_fail_are_repeated_or_break_off(
    aftermath: Aftermath, protocol: str, streaming: bool
) -> None:
    failing = [
        faults.refuse("rate_limit", retry_after=0),
        faults.cut(texts=1),
        faults.refuse("server"),
        faults.reset(),
        faults.refuse("bad_request"),
    ]
    async with (
        FaultServer(*failing * 4, reply=a_reply(protocol)) as server,
        opened_books(server, protocol, aftermath=aftermath, attempts=3, in_order=False) as books,
    ):
        limit = 6 * await most_of_one(books)
        budget = Budget(usd=limit, requests=40)
        for _ in range(8):
            await fan_out(books.client, budget, streaming=streaming)
            assert budget.spent_usd <= limit
            assert budget.spent_requests <= 40
            assert not holds(budget)
        usage = books.client.usage
        assert budget.spent_requests == server.count
        assert budget.spent_usd == usage.total_cost_usd
        assert 0 < budget.uncertain_usd <= usage.uncertain_cost_usd


@every_protocol
async def test_readers_that_leave_and_tasks_that_are_cancelled_give_back_what_they_held(
    aftermath: Aftermath, protocol: str
) -> None:
    async with (
        FaultServer(
            *[faults.cut(texts=1, ending="hanging"), faults.hang()] * 3, reply=a_reply(protocol)
        ) as server,
        opened_books(server, protocol, aftermath=aftermath) as books,
    ):
        limit = 8 * await most_of_one(books)
        budget = Budget(usd=limit)
        options: dict[str, Any] = {"max_tokens": MOST_TOKENS, "budget": budget}
        for asked in (2, 4, 6):
            await ask(books.client, streaming=True, leave=1, **options)
            assert not holds(budget)
            whole = asyncio.ensure_future(ask(books.client, streaming=False, **options))
            await server.until_asked(asked)
            assert holds(budget)
            whole.cancel()
            await asyncio.gather(whole, return_exceptions=True)
            assert not holds(budget)
        assert 0 < budget.spent_usd <= limit
        assert budget.spent_usd == books.client.usage.total_cost_usd
        assert 0 < budget.uncertain_usd <= books.client.usage.uncertain_cost_usd
