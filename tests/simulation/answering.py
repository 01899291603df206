"""What an answer that came back must be: all that the model said, and nothing else."""

from __future__ import annotations

from aether.errors import ProtocolError, StreamInterruptedError
from aether.llm.contracts import LLMResponse
from tests.simulation.calls import Attempt, Call
from tests.simulation.judging import Judge

__all__ = ["check_answer", "check_break"]


def check_answer(judge: Judge, call: Call, response: LLMResponse) -> None:
    """No text is cut off, no call is lost, and the reason to end was said by the server."""
    exchange = call.exchanges[-1]
    reply = exchange.plan.reply
    calls = [(each.name, each.arguments) for each in response.tool_calls]
    said = [(each.name, each.arguments) for each in reply.calls]
    judge.check(response.text == reply.text, "%s: %r for %s", call.tag, response.text, exchange)
    judge.check(calls == said, "%s: calls %s for %s", call.tag, calls, exchange)
    same = response.finish_reason == reply.reason
    judge.check(same, "%s: %s for %s", call.tag, response.finish_reason, exchange)
    unsettled = any(fault.name == "unsettled" for fault in exchange.plan.faults)
    judge.check(not unsettled, "%s: nobody said that %s was whole", call.tag, response)


def check_break(judge: Judge, attempt: Attempt, call: Call, error: Exception) -> None:
    """A stream that fails after its first content says that it broke, and has what had come."""
    if attempt.content:
        broken = isinstance(error, StreamInterruptedError | ProtocolError)
        judge.check(broken, "%s failed after content with %r", call.tag, error)
        partial = getattr(error, "partial", None)
        kept = partial is not None and partial.text == attempt.text
        judge.check(kept, "%s: %r came, but %r is kept", call.tag, attempt.text, partial)
