"""What the model of a soak says to whom. The server and its clients work it out on their own, so
that either knows what the other must have meant.
"""

from __future__ import annotations

import json
import re

from aether.llm.contracts import TokenUsage, ToolCall
from aether.testing.faults import Reply

__all__ = ["PLAIN", "RESULT", "delegated", "prompt", "reply_to", "said"]

PLAIN = "plain"
"""Operations of this kind are always answered well."""
RESULT = "sum:"
"""So begins what a tool returns."""

_TAG = re.compile(r"\[([a-z]+)\.(\w+)(>?)\]")
_USAGE = TokenUsage(input_tokens=900, output_tokens=30, cache_read_tokens=100)
_MODEL = "gpt-4o-mini"


def prompt(tag: str) -> str:
    """A question that says whose it is. A tag is a kind of operation, a dot and a name."""
    return f"[{tag}] What next?"


def delegated(tag: str) -> str:
    """The tag of a task that the run of this one has delegated."""
    return f"{tag}>"


def said(tag: str) -> str:
    """What the model says in the end to who asked so."""
    return f"To {tag} all is well, and {sum(tag.encode()) % 97} is its number."


def reply_to(body: bytes) -> tuple[Reply, str]:
    """The answer to a request, and the kind of its operation; whoever asked last is meant."""
    text = body.decode()
    asked = list(_TAG.finditer(text))
    kind, name, is_delegated = asked[-1].groups()
    tag = f"{kind}.{name}"
    if kind == "boss":
        before = f"[{tag}]" in text
        return (_calling(tag, text) if before else _saying(said(delegated(tag)))), kind
    if kind in ("tool", "block") and RESULT not in text[asked[-1].end() :]:
        return _with(ToolCall(f"call-{name}", _TOOLS[kind], {"a": 2, "b": 3})), kind
    if kind == "typed":
        return _saying(json.dumps({"said": said(tag)})), kind
    return _saying(said(tag + is_delegated)), kind


_TOOLS = {"tool": "add", "block": "add_slowly"}


def _calling(tag: str, text: str) -> Reply:
    """Delegate, and when the helper has answered, answer."""
    if said(delegated(tag)) in text:
        return _saying(said(tag))
    task = prompt(delegated(tag))
    return _with(ToolCall("call-1", "ask_helper", {"task": task}))


def _with(call: ToolCall) -> Reply:
    return Reply(calls=[call], usage=_USAGE, model=_MODEL)


def _saying(text: str) -> Reply:
    return Reply(text, usage=_USAGE, model=_MODEL)
