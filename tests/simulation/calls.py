"""What is remembered of operations, of the calls that they made of a stack, and of attempts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from aether.llm.call import CallContext
from aether.llm.contracts import LLMRequest, Message
from tests.simulation.network import Exchange

__all__ = ["Attempt", "Call", "Operation", "current_operation", "depth_of", "tag_of"]

_TAG = re.compile(r"\[([^\]]+)\]")


@dataclass(eq=False)
class Attempt:
    """One request that the retry layer made of its inner provider."""

    started: float
    ended: float | None = None
    content: bool = False
    """Whether the caller has seen some of it."""
    text: str = ""
    """What of its text the caller has seen."""
    asked: float = 0.0
    """For how many seconds the server's refusal asked."""
    error: str = ""


@dataclass(eq=False)
class Call:
    """One call of a stack: one turn of a run."""

    tag: str
    request: LLMRequest
    context: CallContext
    streaming: bool
    started: float
    attempts: list[Attempt] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    """What the server saw of it."""
    admission: int | None = None
    """The generation of the circuit under which it was let through."""
    probe: bool = False
    must: str = ""
    """What the retry layer is to do next: `retry`, or why it is not to."""
    retries: int = 0
    """The tokens that it took of the retry budget."""
    shown: list[str] = field(default_factory=list)
    """The deltas that came out of the stack."""
    outcome: str = ""
    whole: bool = False
    """Whether its answer, or its final chunk, came out of the stack."""

    @property
    def holds_connection(self) -> bool:
        """Whether a request of it is under way."""
        return any(exchange.open for exchange in self.exchanges)


@dataclass(eq=False)
class Operation:
    """What one user asked for, once."""

    tag: str
    kind: str
    client: Any = None
    session: Any = None
    sequential: bool = False
    """Whether its tools run one by one."""
    started: float = 0.0
    cancelled_at: float | None = None
    """When it was cancelled, if it was not done by then."""
    crashed: bool = False
    """Whether its process died."""
    outcome: str = ""
    """`returned`, `left` (a stream, early), `timeout`, `cancelled` or an error's name."""
    text: str | None = None
    """What it returned."""
    streamed: bool = False
    whole: bool = False
    """Whether its user got the final chunk."""
    shown: list[str] = field(default_factory=list)
    """The deltas that its user read."""
    known: list[str] = field(default_factory=list)
    """The tags of the turns that had come back when this one was asked for."""
    misplaced: bool = False
    """Whether its turn stands behind others than those that it was computed from."""
    store_faults: int = 0
    """How often the store failed it."""
    kept: Any = None
    """A stream that was neither read to its end nor closed."""


current_operation: ContextVar[Operation] = ContextVar("simulated_operation")


def tag_of(messages: Sequence[Message]) -> str:
    """Whose call it is: the last user message says so in brackets."""
    asked = next(message.text for message in reversed(messages) if message.role == "user")
    found = _TAG.search(asked)
    return found.group(1) if found else "nobody"


def depth_of(tag: str) -> int:
    """How often the task was delegated."""
    return tag.count(">")
