"""What one run is made of: its limits, tools, events and what it has used so far.

It must not know a plug-in or the client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from aether import config
from aether.engine.payloads import payload_of
from aether.errors import DeadlineExceededError
from aether.events import TOOL_COMPLETE, TOOL_ERROR, TOOL_START, Event, EventBus
from aether.llm.call import CallContext, new_id
from aether.llm.deadline import Deadline
from aether.llm.messages import LLMRequest, LLMResponse, Message
from aether.llm.scope import Scope, current_scope
from aether.llm.usage import TokenUsage

if TYPE_CHECKING:
    from aether.engine.output import OutputType
    from aether.llm.budget import Budget
    from aether.tools.contracts import Tool, ToolMiddleware

__all__ = ["RunContext"]

GRACE = 0.01
"""Seconds that a provider stack, which knows the deadline too, has to say itself that it came."""


class RunContext:
    """One `ask`, `complete`, `stream`, session turn or agent run.

    What most runs leave as it is stands in the class.
    """

    tools: Mapping[str, Tool] = MappingProxyType({})
    parallel_tools: bool | None = None
    max_tool_iterations: int | None = None
    output: OutputType | None = None
    output_retries: int = 2
    """How often the model is asked again for an answer of that type."""
    deadline: float | None = None
    """When it must have ended, on the monotonic clock."""
    cache: bool | str | None = None
    _latest_call: CallContext | None = None
    _last_told: tuple[LLMRequest, LLMRequest] | None = None
    """The request that was told last, and the copy that was told for it."""
    _untrusted = False
    _judged = 0
    """Of how many messages it is known whether others may have written one of them."""

    def __init__(
        self,
        *,
        client: Any,
        events: EventBus,
        middleware: Sequence[ToolMiddleware],
        agent: str | None,
        session: Any,
        depth: int,
        budgets: Sequence[Budget],
    ) -> None:
        self.client = client
        self.events = events
        self.middleware = middleware
        self.agent = agent
        self.session = session
        """The `Session` whose turn this is."""
        self.depth = depth
        self.budgets = budgets
        """What its calls draw on besides the client's own."""
        self.run_id = new_id()
        self.parent = current_scope.get()
        """The scope of the tool call that started this run, if one did."""
        self._answers: list[LLMResponse] = []
        self._delegated: list[TokenUsage] = []
        """What the runs that it delegated have used."""
        if self.parent is not None:
            self._follow(self.parent)

    def _follow(self, parent: Scope) -> None:
        """Be no freer than the run that this one is a part of."""
        self._untrusted = parent.after_untrusted
        self.depth = max(self.depth, parent.depth)
        self.deadline = parent.deadline
        if parent.budgets:
            self.budgets = (*self.budgets, *parent.budgets)

    def end_by(self, deadline: float) -> None:
        """Have it end by then, if it must not have ended before."""
        self.deadline = deadline if self.deadline is None else min(deadline, self.deadline)

    @property
    def usage(self) -> TokenUsage:
        """What this run and the runs that it delegated have used."""
        return sum((each.usage for each in self._answers), sum(self._delegated, TokenUsage()))

    def new_call(self) -> CallContext:
        """The context of another provider call. Each request of the run has its own."""
        return CallContext(
            run_id=self.run_id,
            deadline=self.deadline,
            budgets=self.budgets,
            cache=self.cache,
        )

    def begin_call(self, request: LLMRequest) -> None:
        """A provider call begins, if there is time left for one."""
        if self.deadline is not None:
            self.limit().check()
        self._latest_call = request.context

    def limit(self) -> Deadline:
        """The run's deadline, for whatever is awaited in it."""
        return Deadline(self.deadline, grace=GRACE)

    def count_attempts(self, error: DeadlineExceededError) -> None:
        """Let the error of a deadline that was noticed here say how many requests were made for the
        latest call: where no layer counts them, one was.
        """
        call = self._latest_call
        if call is not None and not error.attempts:
            error.attempts = len(call.entries) or int(not (call.accounted or call.queued))

    def marked(self, response: LLMResponse, messages: Sequence[Message]) -> LLMResponse:
        """The response to these messages: if others may have written any of them, untrusted too.

        So it is in a run that a tool call started which was made after such a message. A run only
        adds to its messages: those that it has asked with before are not looked at again.
        """
        if not self._untrusted:
            for message in messages[self._judged :]:
                if message.untrusted:
                    self._untrusted = True
            self._judged = len(messages)
        if not self._untrusted:
            return response
        marked = response.message.model_copy(update={"untrusted": True})
        return response.model_copy(update={"message": marked})

    def runs_in_parallel(self) -> bool:
        """Whether calls of one turn run side by side. The environment is asked once, if at all."""
        if self.parallel_tools is None:
            self.parallel_tools = config.parallel_tools()
        return self.parallel_tools

    def most_turns(self) -> int:
        """How many turns with tool calls there may be. The environment is asked once, if at all."""
        if self.max_tool_iterations is None:
            self.max_tool_iterations = config.max_tool_iterations()
        return self.max_tool_iterations

    def scope(self, *, after_untrusted: bool) -> Scope:
        """What code inside a tool call of this run may know of it."""
        sessions = () if self.parent is None else self.parent.sessions
        if self.session is not None:
            sessions = (*sessions, self.session)
        return Scope(
            run_id=self.run_id,
            depth=self.depth,
            agent=self.agent,
            sessions=sessions,
            client=self.client,
            # Not the run itself: whatever a tool leaves behind (a task, a connection) holds this.
            add_usage=partial(_add_copy, self._delegated),
            after_untrusted=after_untrusted,
            deadline=self.deadline,
            budgets=self.budgets,
        )

    def count_answer(self, response: LLMResponse) -> None:
        """Count what the answer to a call of this run has used."""
        self._answers.append(response)

    def event(self, name: str, **fields: Any) -> Event:
        """An event of this run."""
        return Event(
            name=name,
            run_id=self.run_id,
            parent_run_id=None if self.parent is None else self.parent.run_id,
            agent=self.agent,
            session_id=None if self.session is None else self.session.session_id,
            **fields,
        )

    def tells_of_tools(self) -> bool:
        """Whether anybody listens to what becomes of its tool calls."""
        wants = self.events.wants
        return wants(TOOL_START) or wants(TOOL_COMPLETE) or wants(TOOL_ERROR)

    async def publish(self, name: str, **fields: Any) -> None:
        """Publish an event of this run, if anybody listens: with copies of what it carries."""
        if self.events.wants(name):
            told = {field: self._told(value) for field, value in fields.items()}
            await self.events.publish(self.event(name, **told))

    def _told(self, value: Any) -> Any:
        """What subscribers get for a payload; for a request, one copy in all its events."""
        if not isinstance(value, LLMRequest):
            return payload_of(value)
        if self._last_told is None or self._last_told[0] is not value:
            self._last_told = (value, payload_of(value))
        return self._last_told[1]


def _add_copy(delegated: list[TokenUsage], used: TokenUsage) -> None:
    """Count what a delegated run has used until now: its own counts may go on."""
    delegated.append(replace(used))
