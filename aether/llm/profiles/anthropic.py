"""What is known of Anthropic's models.

It must not know how a request is written.
"""

from __future__ import annotations

from datetime import date

from aether.llm.profiles.contracts import ModelProfile

__all__ = ["PROFILES"]

_CHECKED = date(2026, 11, 26)
_DOCUMENTED = (
    "Anthropic's documentation: overview and migration guide of each model, Troubleshooting "
    "thinking, Effort, Preserved thinking, Mid-conversation system messages, Structured outputs"
)
_RETIRED = "Anthropic's documentation of earlier models"


def _named(*versions: str) -> tuple[str, ...]:
    """Patterns of names: with a date or without, and with a cloud's prefix, as in
    `anthropic.claude-opus-4-6-v1`.
    """
    return tuple(f"*claude-{version}{end}" for version in versions for end in ("", "[-@:]*"))


PROFILES = (
    # claude-haiku-5-5 is the default of the `anthropic` provider: by far the cheapest of today's
    # models and the fastest, without an announced end, and it takes tools, forced ones too, and
    # schemas. Prompts above 100,000 tokens cost five times as much.
    ModelProfile(
        patterns=_named("haiku-5[-.][5-9]"),
        accepts_temperature=False,
        accepts_stop=True,
        efforts=("none", "low", "medium", "high", "xhigh", "max"),
        thinking="adaptive",
        thinking_off="disabled",
        binds_thinking=True,
        forced_tools=True,
        prefill=False,
        native_output=True,
        max_output_tokens=128_000,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=_named("sonnet-5[-.][5-9]"),
        accepts_temperature=False,
        accepts_stop=True,
        efforts=("none", "low", "medium", "high", "xhigh", "max"),
        thinking="adaptive",
        thinking_off="between_tools",
        binds_thinking=True,
        forced_tools=False,
        prefill=False,
        late_system=True,
        native_output=True,
        max_output_tokens=128_000,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(  # they always think
        patterns=_named("opus-5[-.][5-9]", "fable-5[-.][1-9]", "mythos-5[-.][1-9]"),
        accepts_temperature=False,
        accepts_stop=True,
        efforts=("low", "medium", "high", "xhigh", "max"),
        thinking="adaptive",
        binds_thinking=True,
        forced_tools=False,
        prefill=False,
        late_system=True,
        native_output=True,
        max_output_tokens=128_000,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(  # they always think
        patterns=_named("fable-5", "mythos-5"),
        accepts_temperature=False,
        accepts_stop=True,
        efforts=("low", "medium", "high", "xhigh", "max"),
        thinking="adaptive",
        prefill=False,
        late_system=True,
        native_output=True,
        max_output_tokens=128_000,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=_named("opus-5"),
        accepts_temperature=False,
        accepts_stop=True,
        efforts=("none", "low", "medium", "high", "xhigh", "max"),
        thinking="adaptive",
        thinking_off="disabled",
        forced_tools=True,
        prefill=False,
        late_system=True,
        native_output=True,
        max_output_tokens=128_000,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=_named("opus-4[-.]8"),
        accepts_temperature=False,
        accepts_stop=True,
        efforts=("none", "low", "medium", "high", "xhigh", "max"),
        thinking="adaptive",
        thinking_off="disabled",
        forced_tools=True,
        prefill=False,
        late_system=True,
        native_output=True,
        max_output_tokens=128_000,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=_named("opus-4[-.]7", "sonnet-5"),
        accepts_temperature=False,
        accepts_stop=True,
        efforts=("none", "low", "medium", "high", "xhigh", "max"),
        thinking="adaptive",
        thinking_off="disabled",
        forced_tools=True,
        prefill=False,
        late_system=False,
        native_output=True,
        max_output_tokens=128_000,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(  # the smaller of their limits
        patterns=_named("opus-4[-.]6", "sonnet-4[-.]6"),
        accepts_temperature=True,
        accepts_stop=True,
        efforts=("none", "low", "medium", "high", "max"),
        thinking="adaptive",
        thinking_off="disabled",
        forced_tools=True,
        prefill=False,
        late_system=False,
        native_output=True,
        max_output_tokens=64_000,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(  # an effort stands beside its budget
        patterns=_named("opus-4[-.]5"),
        accepts_temperature=True,
        accepts_stop=True,
        efforts=("low", "medium", "high"),
        thinking="budget",
        forced_tools=True,
        prefill=True,
        late_system=False,
        native_output=True,
        max_output_tokens=64_000,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=_named("sonnet-4[-.]5", "haiku-4[-.]5"),
        accepts_temperature=True,
        accepts_stop=True,
        thinking="budget",
        forced_tools=True,
        prefill=True,
        late_system=False,
        native_output=True,
        max_output_tokens=64_000,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=_named("opus-4", "4-opus"),
        accepts_temperature=True,
        accepts_stop=True,
        thinking="budget",
        forced_tools=True,
        prefill=True,
        late_system=False,
        native_output=False,
        max_output_tokens=32_000,
        source=_RETIRED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=_named("sonnet-4", "4-sonnet", "3[-.]7-sonnet"),
        accepts_temperature=True,
        accepts_stop=True,
        thinking="budget",
        forced_tools=True,
        prefill=True,
        late_system=False,
        native_output=False,
        max_output_tokens=64_000,
        source=_RETIRED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=_named("3[-.]5-haiku", "3[-.]5-sonnet"),
        accepts_temperature=True,
        accepts_stop=True,
        efforts=(),
        forced_tools=True,
        prefill=True,
        late_system=False,
        native_output=False,
        max_output_tokens=8_192,
        source=_RETIRED,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("*claude-3-*", "*claude-2*", "*claude-instant*"),
        accepts_temperature=True,
        accepts_stop=True,
        efforts=(),
        prefill=True,
        late_system=False,
        native_output=False,
        max_output_tokens=4_096,
        source=_RETIRED,
        checked=_CHECKED,
    ),
    # A model that is not listed is newer than this list: what all of the latest have in common.
    ModelProfile(
        patterns=("*claude-*",),
        accepts_temperature=False,
        accepts_stop=True,
        efforts=("low", "medium", "high", "xhigh", "max"),
        thinking="adaptive",
        binds_thinking=True,
        prefill=False,
        native_output=True,
        max_output_tokens=64_000,
        source=_DOCUMENTED,
        checked=_CHECKED,
    ),
)
