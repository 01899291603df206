"""What is known of Anthropic's models.

It must not know how a request is written.
"""

from __future__ import annotations

from aether.llm.profiles.contracts import ModelProfile

__all__ = ["PROFILES"]

PROFILES: tuple[ModelProfile, ...] = ()
