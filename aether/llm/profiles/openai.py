"""What is known of OpenAI's models.

It must not know how a request is written.
"""

from __future__ import annotations

from datetime import date

from aether.llm.profiles.contracts import ModelProfile

__all__ = ["PROFILES"]

_CHECKED = date(2026, 11, 22)
_DOCUMENTED = "OpenAI's documentation of models and of reasoning effort"

PROFILES = (
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
