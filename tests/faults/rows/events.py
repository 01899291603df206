"""Events and configuration: what subscribers can do wrong, and what the environment can hold."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "E1",
        "a subscriber raises, sync or async, or its `__del__` does",
        "It is logged once, with the event's name, and the next subscriber is called. Text, "
        "errors, requests, history, ledger and cost are those of a run that nobody listens to.",
    ),
    Row(
        "E2",
        "a subscriber is slow, or never ends",
        "Subscribers are awaited in their order. One that takes longer than a second goes on as a "
        "task, with a warning, and the next one is called; nobody is skipped and nothing is "
        "dropped. One that is not async holds up the event loop, and is warned of after a second.",
    ),
    Row(
        "E3",
        "a subscriber raises `CancelledError`, `KeyboardInterrupt` or `SystemExit`",
        "The first is logged as any exception. The other two come out, whenever they are raised, "
        "and what runs is wound up: each start has its end.",
    ),
    Row(
        "E4",
        "a subscriber cancels the run, unsubscribes itself, subscribes others, asks or closes the "
        "client",
        "All of it works. No other subscriber is skipped, nothing waits for itself for ever, and a "
        "run that is cancelled so ends as any cancelled run.",
    ),
    Row(
        "E5",
        "a subscriber changes what it is told",
        "Events are frozen, and the request, response, chunk and call in them are copies: the run "
        "calls its tools, answers and remembers as it would have.",
    ),
    Row(
        "E6",
        "the order and the number of events",
        "Of a stream: one start, its chunks, one end, with the tools in between. Of any other run: "
        "each request with one end, then the tools of its turn. A call has one start and one end, "
        "and what it delegates lies between them. An automaton reads the events of generated runs, "
        "failing, cancelled and left early.",
    ),
    Row(
        "E7",
        "a million events to which nobody listens",
        "No event is built, and nothing is published.",
    ),
    Row(
        "C1",
        "nonsense in a variable: empty, words, negative, not finite, too great, odd digits, very "
        "long",
        "It is the default, or the limit where it is above it; no limit can be switched off. One "
        "warning names the variable, and never the value. Each variable is tried with 200 values.",
    ),
    Row(
        "C2",
        "the ways to switch `AETHER_PARALLEL_TOOLS` off",
        "`0`, `false`, `no` and `off` do, in any case and with space around them; empty is the "
        "default, which is on.",
    ),
    Row(
        "C3",
        "an unknown provider, a missing key, a key with a line break, a space or other letters "
        "than ASCII",
        "`ConfigurationError` when the client is made: it lists the providers, or says what to "
        "set. A key is in no message, log line or `repr`, and no line break reaches a header.",
    ),
    Row(
        "C4",
        "a base URL in the environment that points elsewhere",
        "It is used, and the log says once for each client which variable did so, without the "
        "value. One that is no address of the web is an error when the client is made, never a "
        "silent return to the provider's own.",
    ),
    Row(
        "C5",
        "the environment changes while calls are made",
        "A call looks at each variable at most once, when it begins, and so sees one value; the "
        "next call looks again. A delegation looks at its limit when it is made.",
    ),
]
