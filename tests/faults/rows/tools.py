"""Tools and the loop: what a tool, a model's call or a delegation can do wrong."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "T1",
        "a tool raises an exception",
        "Its class and message, cut to 2 KiB, are the result that the model gets, marked as an "
        "error; no traceback and no cause. The other calls and the run go on.",
    ),
    Row(
        "T2",
        "a tool raises what is no `Exception` (`KeyboardInterrupt`, `SystemExit`, one's own)",
        "The other calls of the turn are cancelled and awaited, each has its end told, and then it "
        "comes out of the run. History stays as it was.",
    ),
    Row(
        "T3",
        "a tool raises `CancelledError`, or cancels its own task",
        "That call alone has failed. The task that asked is not cancelled, and its count of "
        "cancellations is what it was.",
    ),
    Row(
        "T4",
        "an async tool hangs",
        "After its timeout (60 s unless the tool says otherwise) it is cancelled, and the result "
        "says so. One that refuses to be cancelled is waited for, and what it returns late counts; "
        "a cancelled run leaves it behind after a second.",
    ),
    Row(
        "T5",
        "a tool in a thread hangs",
        "After its timeout the result says so at once. The thread, which Python cannot end, counts "
        "as abandoned until its work ends. There are 32 at most; when all are abandoned, a call "
        "that needs one fails at once, and async tools go on. No thread keeps the program from "
        "exiting.",
    ),
    Row(
        "T6",
        "the run is cancelled while tools run",
        "They are cancelled and awaited, one second at most, before `CancelledError` comes out; "
        "threads are not waited for. History stays as it was, no tool can swallow the "
        "cancellation, and a tool that outlasts the second is warned of.",
    ),
    Row(
        "T7",
        "arguments are no JSON, not finite, nested too deeply, or have a name twice",
        "The call is not run: the model gets an error result that quotes the beginning of what it "
        "sent, and the turn counts as any. The depth is bounded at 64. Names that come twice are "
        "seen where the arguments are a text of their own. A call that the output limit cut off is "
        "not run either.",
    ),
    Row(
        "T8",
        "arguments are missing, unknown, or of the wrong type",
        "Types are coerced as pydantic does in its lax mode, but a boolean is never a number, at "
        "any depth; what is unknown is refused unless the function takes `**kwargs`. What is "
        "refused is told name by name, and not run. 10,000 generated calls of generated signatures "
        "(`ARGUMENT_CASES` sets how many) agree with a table of their own.",
    ),
    Row(
        "T9",
        "the tool is unknown, or registered but not offered in this call",
        "Nothing is run; the result names the tools that are offered, and close matches. Neither a "
        "registration nor middleware makes a call reach a tool of another name.",
    ),
    Row(
        "T10",
        "a name that looks like a tool's: another case, confusable letters, `__class__`",
        "Only the exact name reaches a tool; any other is unknown.",
    ),
    Row(
        "T11",
        "a result of 100 MB",
        "It is cut between two letters to 1 MiB of UTF-8, with a mark that says how long it was; "
        "no more of a text is copied than is shown.",
    ),
    Row(
        "T12",
        "a result that JSON does not have: circular, NaN, bytes, generators, any object",
        "Models, dataclasses, sets, dates, enumerations and the like have a form; a number that "
        'JSON lacks is `"NaN"` or `"Infinity"`, bytes are their number. For anything else the '
        "result is an error that says that the tool ran. Nothing of it ends the run.",
    ),
    Row(
        "T13",
        "calls that share an id, none though the model says that it calls, a thousand in a turn",
        "There is one result for each call, in the order of the calls, whatever order they end in; "
        "calls that share an id are told apart. An answer that says it calls tools and has neither "
        "call nor text is a `ProtocolError`. More than 128 calls in a turn are a `ToolLoopError`, "
        "and none of them is run.",
    ),
    Row(
        "T14",
        "a model that never stops calling tools",
        "It is asked exactly `max_tool_iterations` times; then `ToolLoopError` has the transcript "
        "and what the run has used. History stays as it was.",
    ),
    Row(
        "T15",
        "agents that delegate to themselves, in many branches",
        "The depth is exact in each branch, whatever its siblings do, through threads, event loops "
        "of their own and `client.sync` (a bare thread needs `contextvars.copy_context()`); a "
        "delegation beyond it is an error result. A tree is finite: each of its runs asks its "
        "model at most `max_tool_iterations` times, for 128 calls a turn, to that depth. What the "
        "whole tree has used is in the outermost run's usage, each call once; a limit in tokens "
        "or money for a tree is not kept yet.",
    ),
    Row(
        "T16",
        "a tool changes its arguments, or two calls share them",
        "Each call gets a copy of its own, in depth: the recorded call, the events and the other "
        "calls stay as they were.",
    ),
    Row(
        "T17",
        "a tool asks the session that it runs in, closes the client, or asks it again",
        "The session refuses at once with `SessionError`, also through a delegate, a thread or "
        "`client.sync`, and the turn goes on. A closed client ends the run with "
        "`ClientClosedError`. Any other call works.",
    ),
    Row(
        "T18",
        "context variables, which a tool reads and sets",
        "A tool, in a thread too, sees those of the caller. What it sets reaches neither the "
        "caller, nor a sibling, nor whoever reads the stream; no token is reset in another "
        "context.",
    ),
]
