"""What is promised of tokens and money."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

ROWS = [
    Row(
        "B1",
        "A model whose price nobody knows",
        "Its tokens are counted as exactly as any other's. Its row has no cost (`None`, not 0), it "
        "is left out of the total, and the total is then shown as at least so much.",
    ),
    Row(
        "B2",
        "Tokens that are counted within one another: cached, written to a cache, reasoned, heard, "
        "seen; and prices that depend on the size of a call",
        "Each token is priced once, at its own rate, whichever way the provider nests its counts. "
        "Input includes the cache, output includes reasoning. A server's own price of a call "
        "counts before any table.",
    ),
    Row(
        "B3",
        "A stream is left, cancelled or cut off after some of it has come",
        "Its ledger entry is `estimated`: what the provider had told of its use, else the input "
        "from what was sent and the output from what came. The total has it, and "
        "`uncertain_cost_usd` says by how much it may be wrong. Left right after its final chunk "
        "it is exact.",
    ),
    Row(
        "B4",
        "A call timed out, was cancelled or failed, and nobody knows whether it was billed",
        "Its entry is `unknown`, with the most tokens that it can have used, never 0. "
        "`uncertain_cost_usd` has them at the model's dearest price. `not_billed` is only what was "
        "refused with an error status or never sent.",
    ),
    Row(
        "B5",
        "A call is tried again, its answer comes in parts, is asked for again or leads to further "
        "turns, or fails with its usage told",
        "Each HTTP request has one entry of its own, in order, and what was told to be used is in "
        "the total, whether or not the call succeeded.",
    ),
    Row(
        "B6",
        "Thousands of calls are counted at once, on many loops and threads",
        "None is lost and none counted twice. Sums are exact decimals, so that the rows add up to "
        "the total, however many there are.",
    ),
    Row(
        "B7",
        "A budget's limit is reached while many calls are under way, and some of them fail",
        "Before a call the most that it can use is set aside, so that all of them together never "
        "spend more than the limit; where less is left, `max_tokens` is lowered, or the call is a "
        "`BudgetExceededError` that says what is left, and nothing is sent. However a call ends, "
        "what it has not used is given back; what an unknown outcome may have used besides is in "
        "`uncertain_usd`.",
    ),
]
