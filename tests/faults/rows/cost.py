"""What is promised of tokens and money."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "B1",
        "A model whose price nobody knows",
        "Its tokens are counted, its cost is `None`, and it is left out of the total. The total "
        "is then shown as at least so much.",
    ),
    Row(
        "B2",
        "Tokens counted within one another (cached, reasoned, heard), and prices by the size of a "
        "call",
        "Each token is priced once, at its own rate. A server's own price of a call counts before "
        "any table.",
    ),
    Row(
        "B3",
        "A stream is left, cancelled or cut off after some of it has come",
        "Its entry is `estimated`, from what the provider told, else from what was sent and what "
        "came. `uncertain_cost_usd` says by how much the total may be wrong.",
    ),
    Row(
        "B4",
        "Nobody knows whether a call that failed was billed",
        "Its entry is `unknown`, with the most tokens that it can have used. `uncertain_cost_usd` "
        "has them at the model's dearest price.",
    ),
    Row(
        "B5",
        "A call is tried again, comes in parts, is asked for again, or fails with its usage told",
        "Each HTTP request has one entry, in order. What was told to be used is in the total, "
        "whether or not the call succeeded.",
    ),
    Row(
        "B6",
        "Thousands of calls are counted at once, on many loops and threads",
        "None is lost and none counted twice. Sums are exact decimals, so that the rows add up to "
        "the total.",
    ),
    Row(
        "B7",
        "A budget's limit is reached while many calls are under way, and some of them fail",
        "The most that a call can use is set aside before it; where less is left, `max_tokens` is "
        "lowered, or nothing is sent (`BudgetExceededError`). However it ends, what it has not "
        "used is given back.",
    ),
]
