"""How much a model is to think: an effort in the words of its generation.

It must not know a model's name: its profile says what it takes.
"""

from __future__ import annotations

from typing import Any

from aether.llm.messages import ReasoningEffort
from aether.llm.profiles import ModelProfile, nearest_effort

__all__ = ["thinking_config"]

_BUDGETS: dict[ReasoningEffort, int] = {
    "none": 0,
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24_576,
}
"""In tokens, as Google's own server for OpenAI's protocol maps them ("OpenAI compatibility")."""


def thinking_config(effort: ReasoningEffort | None, profile: ModelProfile) -> dict[str, Any]:
    """The nearest that the model takes, with summaries of its thoughts; empty if nobody chose an
    effort, or if nothing is known of what the model takes.
    """
    if effort is None or not profile.efforts or profile.thinking is None:
        return {}
    taken = nearest_effort(effort, profile.efforts)
    config: dict[str, Any] = {}
    if profile.thinking == "level":
        config["thinkingLevel"] = taken.upper()
    else:
        config["thinkingBudget"] = _BUDGETS[taken]
    if effort != "none":
        config["includeThoughts"] = True
    return config
