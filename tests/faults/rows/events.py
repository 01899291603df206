"""Events and configuration: what subscribers can do wrong, and what the environment can hold."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "E1",
        "A subscriber raises, sync or async, or its `__del__` does",
        "It is logged once, with the event's name, and the next subscriber is called. The run is "
        "as if nobody listened.",
    ),
    Row(
        "E2",
        "A subscriber is slow, or never ends",
        "Subscribers are awaited in order; one that takes more than a second goes on as a task, "
        "with a warning. None is skipped, and one that blocks the loop is warned of.",
    ),
    Row(
        "E3",
        "A subscriber raises `CancelledError`, `KeyboardInterrupt` or `SystemExit`",
        "The first is logged as any exception. The other two come out, and each start has its end.",
    ),
    Row(
        "E4",
        "A subscriber cancels the run, unsubscribes, subscribes others, asks or closes the client",
        "All of it works. No other subscriber is skipped, and nothing waits for itself.",
    ),
    Row(
        "E5",
        "A subscriber changes what it is told",
        "Events are frozen, and what they hold are copies. The run is not changed.",
    ),
    Row(
        "E6",
        "The order and the number of events",
        "Each start has one end, and what a call delegates lies between them. An automaton reads "
        "the events of generated runs, failing and cancelled ones too.",
    ),
    Row(
        "E7",
        "A million events to which nobody listens",
        "No event is built, and nothing is published.",
    ),
    Row(
        "C1",
        "Nonsense in a variable: empty, words, negative, not finite, too great, very long",
        "It is the default, or the limit where it is above that; no limit can be switched off. "
        "One warning names the variable, never the value.",
    ),
    Row(
        "C2",
        "The ways to switch `AETHER_PARALLEL_TOOLS` off",
        "`0`, `false`, `no` and `off` do, in any case and with space around them. Empty is the "
        "default, which is on.",
    ),
    Row(
        "C3",
        "An unknown provider, a missing key, or a key with a line break, a space or other letters",
        "`ConfigurationError` when the client is made, which says what to set. A key is in no "
        "message, and no line break reaches a header.",
    ),
    Row(
        "C4",
        "A base URL in the environment that points elsewhere",
        "It is used, and the log says once which variable did so. One that is no address of the "
        "web is an error when the client is made.",
    ),
    Row(
        "C5",
        "The environment changes while calls are made",
        "A call looks at each variable at most once, when it begins. The next call looks again.",
    ),
]
