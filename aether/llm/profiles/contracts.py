"""What a profile is.

It must not know a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, TypeVar, get_args

from aether.llm.messages import ReasoningEffort

__all__ = ["ChatTools", "ModelProfile", "ThinkingControl", "ThinkingOff", "nearest_effort"]

E = TypeVar("E", bound=str)

ChatTools = Literal["plain", "without_reasoning", "refused"]
ThinkingControl = Literal["adaptive", "budget", "level"]
ThinkingOff = Literal["disabled", "between_tools"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """What is known of the models whose name matches one of `patterns`; `None` is unknown."""

    patterns: Sequence[str]
    accepts_temperature: bool | None = None
    """Whether sampling parameters are taken as they are."""
    accepts_stop: bool | None = None
    """Whether stop sequences are taken."""
    efforts: Sequence[ReasoningEffort] | None = None
    """The reasoning efforts that are taken, in rising order; empty: it does not reason."""
    thinking: ThinkingControl | None = None
    """How it is told to reason: by an effort that it adapts to, by a number of tokens, or by a
    level."""
    native_output: bool | None = None
    """Whether it can be held to a JSON Schema for its answer."""
    output_with_tools: bool | None = None
    """Whether it can be held to one while tools are offered."""
    max_output_tokens: int | None = None
    """The most that one answer may have, reasoning included."""
    max_tokens_field: str | None = None
    """The field of Chat Completions that limits the output, where only one is taken."""
    chat_tools: ChatTools | None = None
    """Function tools over Chat Completions: taken as they are, taken only with a
    `reasoning_effort` of `none`, or refused (the Responses API takes them)."""
    cache_breakpoints: bool | None = None
    """Whether it is told by breakpoints in the messages what to cache."""
    thinking_off: ThinkingOff | None = None
    """Anthropic's word for an effort of `none`, where there is one."""
    hides_thinking: bool | None = None
    """Whether it tells what it thought only when asked to."""
    binds_thinking: bool | None = None
    """Whether what it thought is taken back only behind exactly what it was thought behind."""
    forced_tools: bool | None = None
    """Whether it can be told to call a tool, any or a certain one."""
    prefill: bool | None = None
    """Whether a conversation may end with an answer's beginning, which it goes on with."""
    late_system: bool | None = None
    """Whether a system message may stand behind a user's."""
    source: str = ""
    checked: date | None = None


_EFFORTS: tuple[str, ...] = get_args(ReasoningEffort)


def nearest_effort(wanted: ReasoningEffort, taken: Iterable[E]) -> E:
    """Of the efforts that are taken, the nearest; of two that are as near, the higher."""
    place = _EFFORTS.index(wanted)
    return min(taken, key=lambda each: (abs(_EFFORTS.index(each) - place), -_EFFORTS.index(each)))
