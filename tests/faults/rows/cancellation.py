"""What is promised of calls that are cancelled, streams that are left, and event loops that end."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

ROWS = [
    Row(
        "M9",
        "A call, a stream, a turn of a session or the closing of a client is cancelled, once or "
        "twice, by its task, a time limit or a shielded caller, at any point where it waits",
        "The cancellation comes out, within a second, and nothing else does. Its connection is "
        "closed, its attempt is in the ledger, its events have ended; a turn is taken back whole, "
        "the breaker, the gate and the session are free, and the next call is answered at once. "
        "Closing that is cancelled closes everything all the same.",
    ),
    Row(
        "M10",
        "A reader leaves a stream before its end: by `break`, an error, a time limit, its own "
        "cancellation or death, or by dropping it, into a cycle of references too",
        "The connection is closed and the session free at once, without the garbage collector, and "
        "at the latest when the task that reads it ends. History is as it was.",
    ),
    Row(
        "M11",
        "One client, and one session, in several event loops: one after another, in threads, in a "
        "notebook, in a forked process, and at the end of a program that closes nothing",
        "All of it works. A loop that ends closes what was opened in it, and no other. A program "
        "ends without a warning and without waiting.",
    ),
]
