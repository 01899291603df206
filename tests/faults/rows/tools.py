"""Tools and the loop: what a tool, a model's call or a delegation can do wrong."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "T1",
        "A tool raises an exception",
        "The model gets its class and message, cut to 2 KiB, without a traceback. The other calls "
        "and the run go on.",
    ),
    Row(
        "T2",
        "A tool raises `KeyboardInterrupt`, `SystemExit` or another `BaseException`",
        "The other calls of the turn are cancelled and awaited, then it comes out of the run. "
        "History stays as it was.",
    ),
    Row(
        "T3",
        "A tool raises `CancelledError`, or cancels its own task",
        "That call alone has failed. The task that asked is not cancelled.",
    ),
    Row(
        "T4",
        "An async tool hangs",
        "After its timeout (60 s by default) it is cancelled, and the result says so. One that "
        "refuses to be cancelled is waited for, by a cancelled run for a second.",
    ),
    Row(
        "T5",
        "A tool in a thread hangs",
        "After its timeout the result says so at once, and the thread counts as abandoned. When "
        "all 32 are, a call that needs one fails at once.",
    ),
    Row(
        "T6",
        "The run is cancelled while tools run",
        "They are cancelled and awaited for a second at most, threads not at all, before "
        "`CancelledError` comes out. History stays as it was.",
    ),
    Row(
        "T7",
        "Arguments are no JSON, not finite, nested beyond 64, very large, or have a name twice",
        "The call is not run, and the model gets an error that quotes what it sent. Very large is "
        "over 2 MiB, or 65,536 commas and brackets; where an object comes and no text, of a name "
        "that is in it twice the last value counts.",
    ),
    Row(
        "T8",
        "Arguments are missing, unknown, or of the wrong type",
        "Types are coerced as in pydantic's lax mode, but a boolean is never a number. What is "
        "unknown or cannot be coerced is told name by name, and not run.",
    ),
    Row(
        "T9",
        "The tool is unknown, or registered but not offered in this call",
        "Nothing is run. The result names the tools that are offered.",
    ),
    Row(
        "T10",
        "A name that looks like a tool's: another case, confusable letters, `__class__`",
        "Only the exact name reaches a tool.",
    ),
    Row(
        "T11",
        "A result of 100 MB",
        "It is cut between two letters to 1 MiB, with a mark that says so, and no more of it is "
        "copied or written. The loop has its turns meanwhile, but while a pydantic model is "
        "written.",
    ),
    Row(
        "T12",
        "A result that JSON does not have: circular, NaN, bytes, generators, any object",
        "Models, dataclasses, sets, dates and the like have a form; anything else is an error "
        "result that says that the tool ran. Nothing of it ends the run.",
    ),
    Row(
        "T13",
        "Calls that share an id, none though the model says that it calls, a thousand in a turn",
        "There is one result for each call, in the order of the calls. More than 128 are a "
        "`ToolLoopError`; neither a call nor a text is a `ProtocolError`, as is a call that a "
        "provider has begun and does not list, or gives in a wrong place.",
    ),
    Row(
        "T14",
        "A model that never stops calling tools",
        "It is asked exactly `max_tool_iterations` times; then `ToolLoopError` has the transcript "
        "and the usage. History stays as it was.",
    ),
    Row(
        "T15",
        "Agents that delegate to themselves, in many branches",
        "The depth is exact in each branch, through threads and loops too; beyond it a delegation "
        "is an error result. The outermost run's usage counts each call of the tree once.",
    ),
    Row(
        "T16",
        "A tool changes its arguments, or two calls share them",
        "Each call gets a deep copy of its own.",
    ),
    Row(
        "T17",
        "A tool asks the session that it runs in, closes the client, or asks it again",
        "The session refuses at once with `SessionError`, and a closed client ends the run with "
        "`ClientClosedError`. Any other call works.",
    ),
    Row(
        "T18",
        "Context variables, which a tool reads and sets",
        "A tool, in a thread too, sees those of the caller. What it sets reaches nobody else.",
    ),
]
