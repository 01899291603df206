"""How long a server asks to wait, in all the spellings of its headers.

It must not know who waits, nor for how long at most.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

__all__ = ["parse_retry_after", "parse_should_retry"]

_VALUES = re.compile(r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,)?[^,]+", re.IGNORECASE)
"""The values of a header that came several times; a date may have a comma after its first word."""


def parse_retry_after(
    headers: Mapping[str, str], *, now: Callable[[], float] = time.time
) -> float | None:
    """The seconds, or `None` if there are none that make sense: never negative, always finite.

    `retry-after-ms` is looked at first. `retry-after` may be seconds, with a fraction, or an HTTP
    date; a date in the past is 0. A date is compared with the `date` of the answer, as the server's
    clock made both, and where there is none with `now`. Of several values the longest counts. To be
    read on failures alone: there are servers that send it with answers, too.
    """
    milliseconds = _longest(headers.get("retry-after-ms", ""), _number)
    if milliseconds is not None:
        return milliseconds / 1000

    def seconds(value: str) -> float | None:
        number = _number(value)
        if number is not None:
            return number
        date = _date(value)
        if date is None:
            return None
        sent = _date(headers.get("date", ""))
        return max(0.0, date - (now() if sent is None else sent))

    return _longest(headers.get("retry-after", ""), seconds)


def parse_should_retry(headers: Mapping[str, str]) -> bool | None:
    """The server's own word on whether to try again, in `x-should-retry`."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def _longest(header: str, read: Callable[[str], float | None]) -> float | None:
    values = [value for value in map(read, _VALUES.findall(header)) if value is not None]
    return max(values, default=None)


def _number(text: str) -> float | None:
    text = text.strip()
    if not text.isascii() or "_" in text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    if value == math.inf and text[-1].isdigit():  # not a word for it, but a number beyond it
        return sys.float_info.max
    return value + 0.0 if math.isfinite(value) and value >= 0 else None  # -0.0 is 0


def _date(text: str) -> float | None:
    """In seconds since the epoch. A date without a zone is meant in that of HTTP."""
    try:
        date = parsedate_to_datetime(text.strip())
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):  # no date, or none that exists
        return None
