"""The port to tools: a tool, a call on its way to it, its result, and middleware around both.

It must not know how a schema is made from a function, nor who dispatches.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import Field

from aether.errors import ToolError
from aether.llm.data import Data, made_of
from aether.llm.messages import Message, ToolCall

__all__ = [
    "DEFAULT_TIMEOUT",
    "KIND",
    "NextHandler",
    "Provenance",
    "Tool",
    "ToolInvocation",
    "ToolMiddleware",
    "ToolResult",
]

KIND = "tool"
DEFAULT_TIMEOUT = 60.0

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True)
class Tool:
    """Something that a model may call.

    `name` is 1 to 64 letters, digits, `_` or `-`: what every provider takes. `parameters` is a
    JSON Schema of type `object`. `handler` is a sync or async callable; it is given the arguments
    as keywords. A sync handler runs in a thread. `ToolError` if one of them cannot work.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    handler: Callable[..., Any]
    timeout: float | None = DEFAULT_TIMEOUT
    """Seconds until a call is given up; `None` is no limit."""
    trusted: bool = False
    """Whether results are free of text that others wrote."""
    validate: Callable[[Mapping[str, Any]], dict[str, Any]] | None = field(
        default=None, repr=False, compare=False
    )
    """Makes keyword arguments of a call's arguments, or raises `ValueError`. `None`: the arguments
    must be an object with the names that `parameters` requires."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ToolError(
                f"{self.name!r} cannot be a tool's name: use 1 to 64 letters, digits, '_' or '-'."
            )
        if not isinstance(self.parameters, Mapping) or self.parameters.get("type") != "object":
            raise ToolError(
                f"The parameters of tool {self.name!r} must be a JSON Schema of type 'object', "
                "such as {'type': 'object', 'properties': {}}."
            )
        if not callable(self.handler):
            raise ToolError(f"The handler of tool {self.name!r} cannot be called.")
        if self.timeout is not None and not self.timeout > 0:
            raise ToolError(
                f"The timeout of tool {self.name!r} must be more than 0 seconds, or None for no "
                f"limit, not {self.timeout!r}."
            )


class Provenance(Data):
    """Where a call came from."""

    source: Literal["model", "user"] = "user"
    model: str | None = None
    """The model that made the call."""
    run_id: str | None = None
    agent: str | None = None
    depth: int = 0
    """Delegations from the outermost run to here."""
    after_untrusted: bool = False
    """Whether anything that others may have written stood in the conversation when the call was
    made: an untrusted tool's result, an answer made from one, in a session also of earlier turns;
    or in that of the call which this run was delegated by."""


class ToolInvocation(ToolCall):
    """A call as middleware sees it: the model's call, the tool it goes to, and where it is from."""

    tool: Any = Field(default=None, exclude=True, repr=False)
    """The `Tool`; `None` if no tool of that name was offered."""
    provenance: Provenance = Field(default_factory=Provenance)


class ToolResult(Data):
    """What came of one call. `content` is what the model is told."""

    tool_call_id: str
    name: str
    content: str
    is_error: bool = False
    error_type: str | None = None
    """The name of the exception's class, where the handler or middleware raised one; else
    `UnknownTool`, `InvalidArguments`, `InvalidResult` or `TimeoutError`."""
    untrusted: bool = True
    """Whether the content may hold text that others wrote: data, not instructions."""
    value: Any = Field(default=None, exclude=True, repr=False)
    """What the handler returned."""

    def __str__(self) -> str:
        return self.content

    @property
    def message(self) -> Message:
        """The tool message that answers the call."""
        said = {
            "content": self.content,
            "tool_call_id": self.tool_call_id,
            "is_error": self.is_error,
            "untrusted": self.untrusted,
        }
        if tuple(map(type, said.values())) != (str, str, bool, bool):  # copies are not checked
            return Message(role="tool", **said)  # type: ignore[arg-type]  # it finds out
        return made_of(Message, {"role": "tool", "tool_calls": [], "provider_state": {}, **said})


NextHandler = Callable[[ToolInvocation], Awaitable[ToolResult]]


class ToolMiddleware(Protocol):
    """An async callable around each dispatch; the first of a list is outermost.

    It may answer itself without calling `next`, call it with a changed copy of the call, or
    change the result. A string that it returns becomes the result's content, and what it raises an
    error result. So it is where a policy stands: it sees every call, with its provenance, before
    anything is run; the last of a list sees the arguments that the tool will get.
    """

    async def __call__(self, call: ToolInvocation, next: NextHandler, /) -> ToolResult | str: ...
