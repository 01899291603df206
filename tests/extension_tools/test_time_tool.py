from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest

from aether.errors import ToolError
from aether.extensions.tools.time import get_current_time


def test_the_time_is_told_in_utc_by_default() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    told = datetime.fromisoformat(get_current_time())
    assert before <= told <= datetime.now(UTC)
    assert told.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("timezone", "hours"),
    [("Asia/Tokyo", 9), ("Etc/GMT+5", -5), ("Asia/Kolkata", 5.5), ("UTC", 0)],
)
def test_the_time_is_told_in_the_zone_that_was_asked_for(timezone: str, hours: float) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    told = datetime.fromisoformat(get_current_time(timezone))
    assert told.utcoffset() == timedelta(hours=hours)
    assert before <= told <= datetime.now(UTC)


@pytest.mark.parametrize(
    "timezone",
    [
        "",
        "Mars",
        "CEST",
        "America",
        "../../etc/passwd",
        "/etc/passwd",
        "zone.tab",
        ".",
        "UTC\0",
        "x" * 5000,
        "\ud800",
        "Europe/Berlin ",
    ],
)
def test_an_unknown_zone_is_an_error_that_says_what_to_give(timezone: str) -> None:
    with pytest.raises(ToolError, match=r"Europe/Berlin.*UTC") as caught:
        get_current_time(timezone)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("timezone", "meant"),
    [("europe/berlin", "Europe/Berlin"), ("utc", "UTC"), ("America/NewYork", "America/New_York")],
)
def test_an_unknown_zone_is_answered_with_what_may_be_meant(timezone: str, meant: str) -> None:
    with pytest.raises(ToolError, match=f"Did you mean .*'{meant}'"):
        get_current_time(timezone)


def test_utc_needs_no_time_zone_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(name: str) -> zoneinfo.ZoneInfo:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", lacking)
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    assert get_current_time("UTC").endswith("+00:00")
    with pytest.raises(ToolError, match="tzdata"):
        get_current_time("Europe/Berlin")
