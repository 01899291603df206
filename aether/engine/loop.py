"""The tool loop: ask the model, run its calls, feed the results back, until it answers in text.

It must not know how a model is called or a tool is run: those are the two steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from aether.engine.context import RunContext
from aether.engine.dispatch import dispatch_calls
from aether.engine.steps import model_step
from aether.errors import ToolLoopError
from aether.llm.contracts import LLMProvider
from aether.llm.messages import LLMRequest, LLMResponse
from aether.tools.contracts import ToolResult

__all__ = ["LASTING_CHOICES", "next_request", "run_loop", "too_many_turns"]


async def run_loop(
    provider: LLMProvider, request: LLMRequest, run: RunContext
) -> tuple[LLMResponse, LLMRequest]:
    """The final response, and the request it answers, whose messages are the transcript so far.

    Raises `ToolLoopError` when the model still calls tools after `run.max_tool_iterations` turns.
    """
    for turn in range(1, run.max_tool_iterations + 1):
        response = await model_step(provider, request, run, turn=turn)
        if not response.tool_calls:
            return response, request
        results = await dispatch_calls(response, run, turn=turn, messages=request.messages)
        request = next_request(request, response, results)
    raise too_many_turns(request, run)


def next_request(
    request: LLMRequest, response: LLMResponse, results: Sequence[ToolResult]
) -> LLMRequest:
    """The request of the next turn. A forced choice of a tool holds for the first turn only."""
    choice = request.tool_choice
    return request.replace(
        messages=(*request.messages, response.message, *(result.message for result in results)),
        tool_choice=choice if choice in LASTING_CHOICES else None,
    )


LASTING_CHOICES = (None, "auto", "none")


def too_many_turns(request: LLMRequest, run: RunContext) -> ToolLoopError:
    """The error of a run that has no turns left."""
    return ToolLoopError(
        f"The model still calls tools after {run.max_tool_iterations} turns. Raise "
        "max_tool_iterations (or AETHER_MAX_TOOL_ITERATIONS), or continue from error.messages.",
        messages=request.messages,
        usage=run.usage,
    )
