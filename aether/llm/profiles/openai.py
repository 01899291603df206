"""What is known of OpenAI's models.

It must not know how a request is written.
"""

from __future__ import annotations

from datetime import date

from aether.llm.profiles.contracts import ModelProfile

__all__ = ["PROFILES"]

_CHECKED = date(2026, 11, 22)
_DOCUMENTED = "OpenAI's documentation of models and of reasoning effort"
_RECORDED = f"{_DOCUMENTED}, and recorded refusals"
_SDK = "the model list of OpenAI's Python SDK 3.54.0"

PROFILES = (
    # Both refuse `none` and `minimal`; over Chat Completions the highest effort is `xhigh`.
    ModelProfile(
        patterns=("gpt-6-astra*", "gpt-6.1-sol*"),
        accepts_temperature=False,
        efforts=("low", "medium", "high", "xhigh", "max"),
        max_tokens_field="max_completion_tokens",
        chat_tools="refused",
        cache_breakpoints=True,
        source=_RECORDED,
        checked=_CHECKED,
    ),
    # gpt-6-luna is the default of the `openai` provider: the cheapest of today's models, without
    # an announced end. It takes tools at any effort over the Responses API, and at an effort of
    # `none` over Chat Completions. gpt-4o-mini and gpt-4.1-mini end on 2027-01-14.
    ModelProfile(
        patterns=("gpt-6-luna*", "gpt-6-sol*"),
        accepts_temperature=False,  # unless the effort is `none`, as with all that have it
        efforts=("none", "low", "medium", "high", "xhigh", "max"),
        max_tokens_field="max_completion_tokens",
        chat_tools="without_reasoning",
        cache_breakpoints=True,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-6.1-terra*",),
        accepts_temperature=False,
        efforts=("none", "low", "medium", "high", "xhigh", "max"),
        max_tokens_field="max_completion_tokens",
        cache_breakpoints=True,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-6*",),
        accepts_temperature=False,
        efforts=("low", "medium", "high", "xhigh", "max"),  # those that all of the family take
        max_tokens_field="max_completion_tokens",
        cache_breakpoints=True,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-5.6*",),
        accepts_temperature=False,
        efforts=("none", "low", "medium", "high", "xhigh", "max"),
        max_tokens_field="max_completion_tokens",
        chat_tools="without_reasoning",
        cache_breakpoints=True,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-5-pro*",),
        accepts_temperature=False,
        accepts_stop=False,
        efforts=("high",),
        max_tokens_field="max_completion_tokens",
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-5.?-pro*",),
        accepts_temperature=False,
        efforts=("medium", "high", "xhigh"),
        max_tokens_field="max_completion_tokens",
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-5*-chat*",),  # they choose their effort themselves
        accepts_temperature=False,
        max_tokens_field="max_completion_tokens",
        source=_SDK,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-5*-codex-max*", "gpt-5.2-codex*", "gpt-5.3-codex*"),
        accepts_temperature=False,
        efforts=("low", "medium", "high", "xhigh"),
        max_tokens_field="max_completion_tokens",
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-5*-codex*",),
        accepts_temperature=False,
        efforts=("low", "medium", "high"),
        max_tokens_field="max_completion_tokens",
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-5.[2-5]*",),
        accepts_temperature=False,
        efforts=("none", "low", "medium", "high", "xhigh"),
        max_tokens_field="max_completion_tokens",
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-5.1*",),
        accepts_temperature=False,
        accepts_stop=False,
        efforts=("none", "low", "medium", "high"),
        max_tokens_field="max_completion_tokens",
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-5", "gpt-5-*"),
        accepts_temperature=False,
        accepts_stop=False,
        efforts=("minimal", "low", "medium", "high"),
        max_tokens_field="max_completion_tokens",
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-5*",),
        accepts_temperature=False,
        efforts=("low", "medium", "high"),
        max_tokens_field="max_completion_tokens",
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("o3", "o3-20*", "o4-mini*"),
        accepts_temperature=False,
        accepts_stop=False,
        max_tokens_field="max_completion_tokens",
        efforts=("low", "medium", "high"),
        source=f"{_SDK}, and recorded refusals",
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("o1", "o1-*", "o3", "o3-*", "o4-*"),
        accepts_temperature=False,
        max_tokens_field="max_completion_tokens",
        efforts=("low", "medium", "high"),
        source=_SDK,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gpt-4o", "gpt-4o-20*", "gpt-4o-mini", "gpt-4o-mini-20*", "gpt-4.1*"),
        accepts_temperature=True,
        efforts=(),
        chat_tools="plain",
        source=_SDK,
        checked=_CHECKED,
    ),
)
