"""What is promised of calls that are cancelled, streams that are left, and event loops that end."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "M9",
        "A call, a stream, a turn or the closing of a client is cancelled at any point, once or "
        "twice",
        "The cancellation comes out within a second, and a turn is taken back whole. All is "
        "released, booked and told, and the next call is answered at once.",
    ),
    Row(
        "M10",
        "A reader leaves a stream before its end, by whatever way, or drops it",
        "The connection is closed and the session free at once, at the latest when the task that "
        "reads it ends. History is as it was.",
    ),
    Row(
        "M11",
        "One client and session in several event loops, threads and forks, or in a program that "
        "closes nothing",
        "All of it works: a loop that ends closes what was opened in it, and no other. A program "
        "ends without a warning and without waiting.",
    ),
]
