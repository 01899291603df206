"""Profiles: what is known of models by their names, each fact with its date and source.

It must not know how a request is written. Nothing is known of most models, and then nothing is
assumed: an adapter leaves out what a model may refuse, and sends what the caller chose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal

__all__ = ["PROFILES", "ModelProfile", "profile_for"]

ChatTools = Literal["plain", "without_reasoning", "refused"]


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """What is known of the models whose name matches one of `patterns`; `None` is unknown."""

    patterns: Sequence[str]
    accepts_temperature: bool | None = None
    """Whether sampling parameters are taken as they are."""
    max_tokens_field: str | None = None
    """The field of Chat Completions that limits the output, where only one is taken."""
    chat_tools: ChatTools | None = None
    """Function tools over Chat Completions: taken as they are, taken only with a
    `reasoning_effort` of `none`, or refused (the Responses API takes them)."""
    source: str = ""
    checked: date | None = None


_CHECKED = date(2026, 11, 22)
_DOCUMENTED = "OpenAI's documentation of models and of reasoning effort"

UNKNOWN = ModelProfile(patterns=())

PROFILES = (
    # The first that matches counts.
    ModelProfile(
        patterns=("gpt-6-astra*", "gpt-6.1-sol*"),
        accepts_temperature=False,
        max_tokens_field="max_completion_tokens",
        chat_tools="refused",  # and an effort of `none`, too
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    # gpt-6-luna is the default of the `openai` provider: the cheapest of today's models, without
    # an announced end, and its function tools work over Chat Completions with an effort of `none`.
    # gpt-4o-mini and gpt-4.1-mini take tools at any effort, but end on 2027-01-14.
    ModelProfile(
        patterns=("gpt-6-luna*", "gpt-6-sol*"),
        accepts_temperature=False,
        max_tokens_field="max_completion_tokens",
        chat_tools="without_reasoning",
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-6*",),
        accepts_temperature=False,  # unless the effort is `none`
        max_tokens_field="max_completion_tokens",
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-5.6*",),
        accepts_temperature=False,
        max_tokens_field="max_completion_tokens",
        chat_tools="without_reasoning",
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-5*",),
        accepts_temperature=False,
        max_tokens_field="max_completion_tokens",
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("o1", "o1-*", "o3", "o3-*", "o4-*"),
        accepts_temperature=False,
        max_tokens_field="max_completion_tokens",
        source="the model list of OpenAI's Python SDK 3.54.0",
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-4o", "gpt-4o-20*", "gpt-4o-mini", "gpt-4o-mini-20*", "gpt-4.1*"),
        accepts_temperature=True,
        chat_tools="plain",
        source="the model list of OpenAI's Python SDK 3.54.0",
        checked=_CHECKED,
    ),
)


@lru_cache(maxsize=256)
def profile_for(model: str) -> ModelProfile:
    """What is known of a model; a router's prefix, as in `openai/gpt-4.1`, is left aside."""
    name = model.rpartition("/")[2]
    for profile in PROFILES:
        if any(fnmatchcase(name, pattern) for pattern in profile.patterns):
            return profile
    return UNKNOWN
