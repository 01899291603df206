"""How much a model is to think, in the words that it knows.

It must not know the rest of a request. Thinking counts towards the limit of the answer, so a
budget for it stays below that limit.
"""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

from aether.llm.messages import ReasoningEffort
from aether.llm.profiles import ModelProfile, nearest_effort

__all__ = ["Reasoning", "reasoning_of"]

_IN_ORDER: tuple[ReasoningEffort, ...] = get_args(ReasoningEffort)
_BUDGETS: dict[ReasoningEffort, int] = {
    "minimal": 1_024,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 24_576,
    "max": 32_000,
}
_LEAST_BUDGET = 1_024  # fewer are refused
_MOST_WITHOUT_THINKING: ReasoningEffort = "high"  # with a higher effort, thinking must be on


class Reasoning(NamedTuple):
    """The value of `thinking`, and of `output_config.effort`; `None`: left out."""

    thinking: dict[str, Any] | None = None
    effort: str | None = None

    @property
    def is_on(self) -> bool:
        """Whether the model was told to think."""
        return self.thinking is not None and self.thinking["type"] in ("adaptive", "enabled")


def reasoning_of(
    wanted: ReasoningEffort | None, profile: ModelProfile, *, max_tokens: int, forced_tool: bool
) -> Reasoning:
    """What says `wanted` to the model, or the nearest that it takes; and that it is to tell what it
    thought.

    A model is not told to think where it must call a tool, which is refused together.
    """
    if wanted is None or profile.efforts == ():
        return Reasoning()
    if profile.thinking == "budget":
        return _budgeted(wanted, profile, max_tokens, forced_tool=forced_tool)
    effort = wanted if profile.efforts is None else nearest_effort(wanted, profile.efforts)
    if effort == "none":
        return Reasoning({"type": profile.thinking_off or "disabled"})
    if effort == "minimal":  # a word that the API does not have
        effort = "low"
    if not forced_tool:
        shown = {"display": "summarized"} if profile.hides_thinking else {}
        return Reasoning({"type": "adaptive", **shown}, effort)
    most = _IN_ORDER.index(_MOST_WITHOUT_THINKING)
    return Reasoning(effort=_IN_ORDER[min(_IN_ORDER.index(effort), most)])


def _budgeted(
    wanted: ReasoningEffort, profile: ModelProfile, max_tokens: int, *, forced_tool: bool
) -> Reasoning:
    """A budget that leaves a quarter of the answer's limit to the answer. Off where left out."""
    if wanted == "none":
        return Reasoning()
    effort = None if profile.efforts is None else nearest_effort(wanted, profile.efforts)
    budget = min(_BUDGETS[wanted], max_tokens * 3 // 4)
    if forced_tool or budget < _LEAST_BUDGET:
        return Reasoning(effort=effort)
    return Reasoning({"type": "enabled", "budget_tokens": budget}, effort)
