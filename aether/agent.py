"""Agents: instructions, tools and a model under a name, and delegation from one to another.

It must not know how a run goes. An agent holds no state between runs.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload
from zlib import crc32

from aether.client import Aether
from aether.engine.delegation import next_depth
from aether.engine.options import CallOptions, as_messages
from aether.engine.run import Run
from aether.errors import ConfigurationError, ToolError
from aether.llm.budget import checked_budget
from aether.llm.messages import (
    FinishReason,
    LLMResponse,
    Message,
    StreamChunk,
    StructuredChunk,
    text_message,
)
from aether.llm.scope import current_scope
from aether.llm.streaming import OwnedStream, text_of
from aether.llm.usage import TokenUsage

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from aether.llm.budget import Budget
    from aether.tools.contracts import Tool

__all__ = ["Agent", "AgentResult", "StructuredResult"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AgentResult:
    """What came of one run."""

    text: str
    messages: list[Message]
    """The whole transcript: instructions, prompt, tool turns, final answer."""
    usage: TokenUsage
    """What this run has used, the runs that it delegated included. Its cost is the client's."""
    response: LLMResponse
    """The final response."""
    run_id: str
    """Ties the result to its events and ledger entries."""


class StructuredResult(AgentResult, Generic[T]):
    """What came of one run with `output=T`."""

    __slots__ = ()

    @property
    def output(self) -> T:
        """The value."""
        value: T = self.response.output
        return value


class Agent:
    """A name, instructions, tools and a model.

    Without a client it uses the one that delegates to it, else one default client that is made
    from the environment on first use and closed at exit. The other options are defaults for every
    run; an argument of a run beats them. All runs draw on `budget`, besides their own and that of
    the run that delegates to it.
    """

    def __init__(
        self,
        name: str,
        *,
        instructions: str = "",
        tools: Sequence[str | Tool | Callable[..., Any]] = (),
        model: str | None = None,
        client: Aether | None = None,
        description: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
        parallel_tools: bool | None = None,
        max_tool_iterations: int | None = None,
        budget: Budget | None = None,
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError("An agent needs a name.")
        if client is not None and not isinstance(client, Aether):
            raise TypeError(f"an agent's client is an Aether, not {type(client).__name__}")
        if isinstance(tools, str) or not isinstance(tools, Sequence):
            raise TypeError(f"tools is a sequence; for one tool, write tools=[{tools!r}]")
        self.name = name
        self.instructions = instructions
        self.description = description
        self.tools = tuple(tools)
        self.model = model
        self.client = client
        self.budget = checked_budget(budget)
        self._defaults: CallOptions = {
            "temperature": temperature,
            "max_tokens": max_tokens,
            "parallel_tools": parallel_tools,
            "max_tool_iterations": max_tool_iterations,
        }

    async def run_text(
        self, prompt: str | Sequence[Message], **options: Unpack[CallOptions]
    ) -> str:
        """The final text of a run."""
        return (await self.run(prompt, **options)).text

    @overload
    async def run(
        self,
        prompt: str | Sequence[Message],
        *,
        output: None = None,
        **options: Unpack[CallOptions],
    ) -> AgentResult: ...
    @overload
    async def run(
        self,
        prompt: str | Sequence[Message],
        *,
        output: TypeForm[T],
        **options: Unpack[CallOptions],
    ) -> StructuredResult[T]: ...
    async def run(
        self,
        prompt: str | Sequence[Message],
        *,
        output: Any = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """Run until the model answers, in text or, with `output`, in a value of that type."""
        run = self._prepare(prompt, {**options, "output": output})
        response = await run.complete()
        kind: type[AgentResult] = AgentResult if output is None else StructuredResult
        return kind(
            text=response.text,
            messages=list(run.messages),
            usage=run.context.usage,
            response=response,
            run_id=run.context.run_id,
        )

    @overload
    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        output: None = None,
        **options: Unpack[CallOptions],
    ) -> OwnedStream[StreamChunk]: ...
    @overload
    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        output: TypeForm[T],
        **options: Unpack[CallOptions],
    ) -> OwnedStream[StructuredChunk[T]]: ...
    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        output: Any = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """A run as one stream of chunks; the last one is final."""
        return OwnedStream(self._prepare(prompt, {**options, "output": output}).stream())

    def stream_text(
        self, prompt: str | Sequence[Message], **options: Unpack[CallOptions]
    ) -> OwnedStream[str]:
        """The text of a run as it comes."""
        return OwnedStream(text_of(self._prepare(prompt, options).stream()))

    def as_tool(self, max_depth: int | None = None) -> Tool:
        """A tool that delegates to this agent; its one required argument is `task`.

        `max_depth` bounds the nesting: with 1 only the outermost run may delegate to this agent,
        with 0 none may. The default is `AETHER_MAX_DELEGATION_DEPTH`. Beyond it the model gets an
        error as the result. An answer that its output limit or a filter ended says so at its end;
        if there is nothing of it, that is an error too.
        """
        from aether.tools.schema import build_tool

        if max_depth is not None and (type(max_depth) is not int or max_depth < 0):
            raise ConfigurationError(
                f"max_depth is a whole number of at least 0, or None, not {max_depth!r}."
            )

        async def delegate(task: str) -> str:
            depth = next_depth(self.name, max_depth)
            run = self._prepare(task, {}, depth=depth)
            parent = current_scope.get()
            try:
                return _told(await run.complete())
            finally:
                if parent is not None and parent.add_usage is not None:
                    parent.add_usage(run.context.usage)

        return build_tool(
            delegate,
            name=_tool_name(self.name),
            description=self.description
            or f"Delegates a task to the agent {self.name!r}, which answers in text.",
            timeout=None,
        )

    def _prepare(
        self, prompt: str | Sequence[Message], options: Mapping[str, Any], *, depth: int = 0
    ) -> Run:
        messages = as_messages(prompt)
        if self.instructions:
            messages = (text_message("system", self.instructions), *messages)
        merged: dict[str, Any] = {"tools": self.tools, "model": self.model, **self._defaults}
        merged.update((name, value) for name, value in options.items() if value is not None)
        budgets = () if self.budget is None else (self.budget,)
        return self._find_client().prepare(
            messages, merged, agent=self.name, depth=depth, budgets=budgets
        )

    def _find_client(self) -> Aether:
        if self.client is not None:
            return self.client
        scope = current_scope.get()
        if scope is not None and isinstance(scope.client, Aether):
            return scope.client
        with _first_use:
            return _default_client()

    def __repr__(self) -> str:
        return f"Agent({self.name!r})"


_first_use = threading.Lock()  # the cache alone would let two threads make a client each


@functools.cache
def _default_client() -> Aether:
    """The one client of all agents that have none, made when it is first needed."""
    client = Aether()
    atexit.register(lambda: asyncio.run(client.aclose()))
    return client


_ENDED: Mapping[FinishReason | None, str] = {
    "length": "The agent's answer was cut off by the output limit.",
    "content_filter": "The model, or its provider's content policy, refused the agent's answer.",
}


def _told(response: LLMResponse) -> str:
    """What the delegating model is told: a part of an answer must not pass for all of it."""
    ended = _ENDED.get(response.finish_reason)
    if ended is None:
        return response.text
    if not response.text:
        raise ToolError(ended)
    return f"{response.text}\n[{ended}]"


def _tool_name(agent: str) -> str:
    """The agent's name as a tool's. One in another script is told apart by a number made of it."""
    name = re.sub(r"[^a-zA-Z0-9_-]+", "_", agent)[:64]
    return name if re.search(r"[a-zA-Z0-9]", name) else f"agent_{crc32(agent.encode())}"
