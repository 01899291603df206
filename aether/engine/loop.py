"""The tool loop: ask the model, run its calls, feed the results back, until it answers in text.

It must not know how a model is called or a tool is run: those are the two steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aether.engine.context import RunContext
from aether.engine.steps import model_step
from aether.errors import ProtocolError, ServerError, ToolLoopError
from aether.llm.contracts import LLMProvider
from aether.llm.failures import error_of
from aether.llm.messages import FinishReason, LLMRequest, LLMResponse, Message

if TYPE_CHECKING:
    from aether.tools.contracts import ToolResult

__all__ = ["Progress", "run_loop", "too_many_turns"]


async def run_loop(
    provider: LLMProvider, request: LLMRequest, run: RunContext
) -> tuple[LLMResponse, LLMRequest]:
    """The final response, and the request it answers, whose messages are the transcript so far.

    Raises `ToolLoopError` when the model still calls tools after `run.most_turns()` turns,
    `OutputError` when it still gives no answer of the type that the run asks for after
    `run.output_retries` further tries, `ProtocolError` for an answer without text whose tool calls
    were lost, and `ServerError` for a text that its provider ended with an error.
    """
    progress = Progress(run)
    while True:
        response = await model_step(provider, request, run, turn=progress.turn)
        if response.tool_calls:
            import aether.engine.dispatch as tool_calls  # a `from` looks for a submodule each time

            response = tool_calls.tell_apart(response)
            results = await tool_calls.dispatch_calls(
                response, run, turn=progress.turn, messages=request.messages
            )
            request = progress.after_tools(request, response, results)
            continue
        settled = progress.after_answer(request, response)
        if isinstance(settled, LLMResponse):
            return settled, request
        request = settled


class Progress:
    """How far a run has come, and what comes next."""

    __slots__ = ("_retries", "_run", "_tool_turns", "turn")

    def __init__(self, run: RunContext) -> None:
        self.turn = 1
        """The number of the model call that is next or under way."""
        self._run = run
        self._tool_turns = 0
        self._retries = 0

    def after_tools(
        self, request: LLMRequest, response: LLMResponse, results: Sequence[ToolResult]
    ) -> LLMRequest:
        """The request that tells the model the results, if the run has turns left."""
        request = self._continued(request, response.message, *(each.message for each in results))
        self._tool_turns += 1
        if self._tool_turns >= self._run.most_turns():
            raise too_many_turns(request, self._run)
        self.turn += 1
        return request

    def after_answer(self, request: LLMRequest, response: LLMResponse) -> LLMResponse | LLMRequest:
        """The final response, with its output; or the request that asks for another answer.

        `ProtocolError` for one whose tool calls were lost, `ServerError` for a text that an error
        ended.
        """
        if response.finish_reason == "tool_calls" and not response.message.content:
            raise error_of(
                ProtocolError,
                "The model's answer says that it calls tools, but has no call and no text.",
                response,
            )
        output = self._run.output
        if output is None:
            if response.finish_reason == "error":
                raise error_of(
                    ServerError,
                    "The provider ended its answer with an error "
                    f"({response.finish_reason_raw or 'it does not say which'}): what there is of "
                    "it, in error.partial, may lack the rest.",
                    response,
                )
            return response
        usage = self._run.usage
        ended = _ENDED.get(response.finish_reason)
        if response.finish_reason == "error" and output.schema is None:
            ended = "its provider ended it with an error"  # of JSON, it can be seen if it is whole
        if ended is not None:  # also where what there is would do: more was to come
            output.refuse(request, response, [ended], usage=usage)
        try:
            return output.check(response)
        except Exception as error:  # noqa: BLE001 - a type's validators are their author's code
            from aether.engine.output import problems_of

            problems = problems_of(error)
            if not isinstance(error, ValueError) or self._retries >= self._run.output_retries:
                output.refuse(request, response, problems, usage=usage, error=error)
        self._retries += 1
        self.turn += 1
        return self._continued(request, *output.ask_again(response, problems))

    def _continued(self, request: LLMRequest, *messages: Message) -> LLMRequest:
        """The request of the next turn. A forced choice of a tool holds for the first turn only."""
        choice = request.tool_choice
        return request.replace(
            messages=(*request.messages, *messages),
            tool_choice=choice if choice in _LASTING_CHOICES else None,
            context=self._run.new_call(),
        )


_LASTING_CHOICES = (None, "auto", "none")

_ENDED: Mapping[FinishReason | None, str] = {
    "length": "it was cut off by the output limit (raise max_tokens)",
    "content_filter": "the model, or its provider's content policy, refused it",
}


def too_many_turns(request: LLMRequest, run: RunContext) -> ToolLoopError:
    """The error of a run that has no turns left."""
    return ToolLoopError(
        f"The model still calls tools after {run.most_turns()} turns. Raise "
        "max_tool_iterations (or AETHER_MAX_TOOL_ITERATIONS), or continue from error.messages.",
        messages=request.messages,
        usage=run.usage,
    )
