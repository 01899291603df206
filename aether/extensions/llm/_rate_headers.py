"""What a provider's headers say of its limits for a minute, where that is sure.

It must not know who keeps to them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Told", "limits_told"]


class Told(NamedTuple):
    """A limit, of which the provider gives back so much in a minute, all the time."""

    limit: float
    remaining: float | None = None
    a_minutes: bool | None = True
    """Whether that is sure: `False`, it is another time's; `None`, this answer does not tell."""


MINUTE = 60.0
TOLERANCE = 0.25
"""An inferred minute may be wrong by this part: of the times to infer it from, some are rounded."""

_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)(s|ms|us|µs|ns))?")
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_ROUNDED_TO = 1e-3
"""Seconds: what servers round such durations to."""

_ANTHROPIC = {
    "requests": "anthropic-ratelimit-requests",
    "tokens": "anthropic-ratelimit-tokens",
    "input_tokens": "anthropic-ratelimit-input-tokens",
    "output_tokens": "anthropic-ratelimit-output-tokens",
}
_NAMED_A_MINUTE = {"requests": "req-minute", "tokens": "tokens-minute"}
_PLAIN = ("requests", "tokens")


def limits_told(headers: Mapping[str, str]) -> dict[str, Told]:
    """The limits of `requests`, `tokens`, `input_tokens` and `output_tokens`, where they are told.

    Anthropic's are for a minute, and so are those with a name that says so. Of those that are only
    called `x-ratelimit-limit-...` servers have meant a second, a minute and a day: a minute's they
    are where the server says, too, when what was used will be there again, and that is at the pace
    of a minute. What cannot be read is not there.
    """
    told: dict[str, Told] = {}
    for name, prefix in _ANTHROPIC.items():
        _add(told, name, headers.get(f"{prefix}-limit"), headers.get(f"{prefix}-remaining"))
    for name, suffix in _NAMED_A_MINUTE.items():
        limit = headers.get(f"x-ratelimit-limit-{suffix}")
        _add(told, name, limit, headers.get(f"x-ratelimit-remaining-{suffix}"))
    for name in _PLAIN:
        limit = headers.get(f"x-ratelimit-limit-{name}")
        if limit is None:
            continue
        remaining = headers.get(f"x-ratelimit-remaining-{name}")
        sure = _is_a_minute(limit, remaining, headers.get(f"x-ratelimit-reset-{name}"))
        if sure or name not in told:
            _add(told, name, limit, remaining, a_minutes=sure)
    return told


def _add(
    told: dict[str, Told],
    name: str,
    limit: str | None,
    remaining: str | None,
    *,
    a_minutes: bool | None = True,
) -> None:
    most = _number(limit)
    if most:  # some say 0 where there is none
        told[name] = Told(most, _number(remaining), a_minutes)


def _is_a_minute(limit: str, remaining: str | None, reset: str | None) -> bool | None:
    """Whether what was used comes back at the pace of the whole limit in a minute; `None` where
    too little is said, or was used, to tell.
    """
    most, left, back = _number(limit), _number(remaining), _seconds(reset)
    if not most or left is None or back is None:
        return None
    seconds, error = back
    used = most - left
    if used <= 0 or seconds < 2 * error:
        return None
    least, longest = ((seconds + way * error) * most / used for way in (-1, 1))
    return least <= MINUTE * (1 + TOLERANCE) and longest >= MINUTE * (1 - TOLERANCE)


def _number(text: str | None) -> float | None:
    if text is None or not _NUMBER.fullmatch(text):
        return None
    return float(text)


def _seconds(text: str | None) -> tuple[float, float] | None:
    """A duration, and what it may be wrong by: `6m0s`, `120ms`, or a number of seconds."""
    if not text or len(text) > 40:
        return None
    number = _number(text)
    if number is not None:
        return number, _ROUNDED_TO if "." in text else 1.0
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    hours, minutes, amount, unit = found.groups()
    seconds = int(hours or 0) * 3600.0 + int(minutes or 0) * 60.0
    if amount is not None:
        seconds += float(amount) * _UNITS[unit]
    return seconds, _ROUNDED_TO
