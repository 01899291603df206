"""How long a server asks to wait, in all the spellings of its headers.

It must not know who waits, nor for how long at most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

__all__ = ["parse_retry_after", "parse_should_retry"]


def parse_retry_after(
    headers: Mapping[str, str], *, now: Callable[[], float] = time.time
) -> float | None:
    """The seconds, or `None` if there are none that make sense: never negative, always finite.

    `retry-after-ms` is looked at first. `retry-after` may be seconds, with a fraction, or an HTTP
    date; a date in the past is 0. Of a header that came twice the first counts. To be read on
    failures alone: there are servers that send it with answers, too.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    raw = headers.get("retry-after", "")
    seconds = _number(raw)
    if seconds is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(raw).timestamp() - now())
    except (ValueError, TypeError, OverflowError, IndexError):  # no date, or none that exists
        return None


def parse_should_retry(headers: Mapping[str, str]) -> bool | None:
    """The server's own word on whether to try again, in `x-should-retry`."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def _number(raw: str) -> float | None:
    text = raw.partition(",")[0].strip()
    if not text.isascii() or "_" in text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
