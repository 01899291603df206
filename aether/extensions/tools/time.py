"""The tool that tells the time. It must not know who asks."""

from __future__ import annotations

import difflib
import zoneinfo
from datetime import UTC, datetime, tzinfo

from aether.errors import ToolError
from aether.tools.registry import register_tool

__all__ = ["get_current_time"]


@register_tool(trusted=True)
def get_current_time(timezone: str = "UTC") -> str:
    """Tell the current date and time in a time zone, in ISO 8601 with the offset from UTC.

    Args:
        timezone: IANA name of the time zone, such as "Europe/Berlin" or "America/New_York".
    """
    return datetime.now(_zone(timezone)).isoformat(timespec="seconds")


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # known everywhere; zoneinfo needs data files, which some machines lack
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ToolError(_unknown(name)) from None


def _unknown(name: str) -> str:
    message = f"Unknown time zone {name[:100]!r}."
    known = zoneinfo.available_timezones()
    if not known:
        return (
            f"{message} Only 'UTC' is known, for this machine has no time zone data: "
            "install the package tzdata."
        )
    folded = {zone.casefold(): zone for zone in sorted(known)}
    close = difflib.get_close_matches(name[:100].casefold(), folded, n=3)
    if close:
        message += f" Did you mean {' or '.join(repr(folded[match]) for match in close)}?"
    return f"{message} Give an IANA name such as 'Europe/Berlin' or 'America/New_York', or 'UTC'."
