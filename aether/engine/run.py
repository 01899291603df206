"""One run, ready to go: a provider, its first request and its context.

It must not know who asked: the client, an agent or a session.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from aether.engine.context import RunContext
from aether.engine.loop import run_loop
from aether.engine.stream import run_stream
from aether.errors import DeadlineExceededError
from aether.llm.contracts import LLMProvider
from aether.llm.messages import LLMRequest, LLMResponse, Message, StreamChunk

__all__ = ["Run"]


@dataclass(slots=True)
class Run:
    """To be used once, by `complete` or by `stream`."""

    provider: LLMProvider
    request: LLMRequest
    context: RunContext
    messages: tuple[Message, ...] = ()
    """After `complete`: the whole transcript, the final answer included."""

    async def complete(self) -> LLMResponse:
        """Run the tool loop to its end; the final response."""
        run = self.context
        try:
            if run.deadline is None:
                response, request = await run_loop(self.provider, self.request, run)
            else:
                response, request = await run.limit().wait_for(
                    run_loop, self.provider, self.request, run
                )
        except DeadlineExceededError as error:
            run.count_attempts(error)
            raise
        self.messages = (*request.messages, response.message)
        return response

    def stream(self) -> AsyncGenerator[StreamChunk, None]:
        """The run as one logical stream."""
        return run_stream(self.provider, self.request, self.context)
