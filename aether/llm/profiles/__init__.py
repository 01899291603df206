"""Profiles: what is known of models by their names, each fact with its date and source.

It must not know how a request is written. Nothing is known of most models, and then nothing is
assumed: an adapter leaves out what a model may refuse, and sends what the caller chose.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache

from aether.llm.profiles import anthropic, gemini, openai
from aether.llm.profiles.contracts import ModelProfile, nearest_effort

__all__ = ["PROFILES", "ModelProfile", "nearest_effort", "profile_for"]

UNKNOWN = ModelProfile(patterns=())

PROFILES = (*openai.PROFILES, *anthropic.PROFILES, *gemini.PROFILES)
"""The first that matches counts."""


@lru_cache(maxsize=256)
def profile_for(model: str) -> ModelProfile:
    """What is known of a model; a router's prefix, as in `openai/gpt-4.1`, is left aside."""
    name = model.rpartition("/")[2]
    for profile in PROFILES:
        if any(fnmatchcase(name, pattern) for pattern in profile.patterns):
            return profile
    return UNKNOWN
