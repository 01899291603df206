"""What is known of Google's models.

It must not know how a request is written.
"""

from __future__ import annotations

from datetime import date

from aether.llm.profiles.contracts import ModelProfile

__all__ = ["PROFILES"]

_CHECKED = date(2026, 11, 26)
_THINKING = "Google's documentation: Gemini thinking, and the developer guide of each model"
_LONGEST = 65_536

# From Gemini 3 on a temperature is accepted, but one other than 1.0 is advised against, as answers
# may loop or get worse, and Gemini 4 takes no notice of it: the default is not for them.
PROFILES = (
    ModelProfile(  # they speak, draw or listen: little of what is said below is known of them
        patterns=("gemini-*-tts*", "gemini-*-image*", "gemini-*-live*", "gemini-*-transcribe*"),
        native_output=False,
        source="the model list of Google's Python SDK 3.4.0",
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gemini-4*",),
        accepts_temperature=False,
        thinking="level",
        efforts=("low", "medium", "high"),
        native_output=True,
        output_with_tools=True,
        max_output_tokens=1_048_576,  # shared with the input, and beyond 65,536 in several parts
        source="Google's developer guide to Gemini 4 Argon",
        checked=_CHECKED,
    ),
    # gemini-3.8-flash is the default of the `gemini` provider: the newest of the Flash models, the
    # one that Google's own examples use, at a fraction of the price of Gemini 4.
    ModelProfile(
        patterns=("gemini-3.[78]-*", "gemini-3.1-pro*", "gemini-pro-latest", "gemini-flash-latest"),
        accepts_temperature=False,
        thinking="level",
        efforts=("low", "medium", "high"),
        native_output=True,
        output_with_tools=True,
        max_output_tokens=_LONGEST,
        source=_THINKING,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gemini-3-pro*",),
        accepts_temperature=False,
        thinking="level",
        efforts=("low", "high"),
        native_output=True,
        output_with_tools=True,
        max_output_tokens=_LONGEST,
        source=_THINKING,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gemini-3*", "gemini-flash-lite-latest"),
        accepts_temperature=False,
        thinking="level",
        efforts=("minimal", "low", "medium", "high"),
        native_output=True,
        output_with_tools=True,
        max_output_tokens=_LONGEST,
        source=_THINKING,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gemini-2.5-pro*",),
        accepts_temperature=True,
        thinking="budget",
        efforts=("low", "medium", "high"),  # it cannot be kept from thinking
        native_output=True,
        output_with_tools=False,
        max_output_tokens=_LONGEST,
        source=_THINKING,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gemini-2.5*",),
        accepts_temperature=True,
        thinking="budget",
        efforts=("none", "low", "medium", "high"),
        native_output=True,
        output_with_tools=False,
        max_output_tokens=_LONGEST,
        source=_THINKING,
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gemini-2.0*", "gemini-1.5*"),
        accepts_temperature=True,
        efforts=(),
        native_output=True,
        output_with_tools=False,
        max_output_tokens=8192,
        source="Google's documentation of earlier models",
        checked=_CHECKED,
    ),
    ModelProfile(
        patterns=("gemma-*",),
        accepts_temperature=True,
        native_output=False,
        source="Google's documentation of Gemma on the Gemini API",
        checked=_CHECKED,
    ),
)
