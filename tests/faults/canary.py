"""No test shows a key: in what it prints, in what is logged at whatever level, or in its failure.

A plugin of pytest. Keys in tests hold `canary-`, and a test in whose output that is found fails.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Generator

import pytest

MARK = "canary-"


class _Ear(logging.Handler):
    """All that was logged since it was asked, with tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._heard += [record.name, repr(record.args)]
        try:
            self._heard.append(record.getMessage())
        except Exception:  # noqa: BLE001 - pytest's own handler makes the test fail for it
            return
        if record.exc_info:
            self._heard += traceback.format_exception(*record.exc_info)
        if record.stack_info:
            self._heard.append(record.stack_info)

    def heard(self) -> str:
        """What it has heard; it forgets it."""
        heard, self._heard = self._heard, []
        return "\n".join(heard)


_ear = _Ear()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Listen at every level. What pytest itself shows and `caplog` has stays as it was."""
    root = logging.getLogger()
    for name in ("caplog_handler", "report_handler"):
        handler = getattr(config.pluginmanager.get_plugin("logging-plugin"), name, None)
        if handler is not None and handler.level == logging.NOTSET:
            handler.setLevel(root.level)
    root.addHandler(_ear)
    root.setLevel(logging.DEBUG)


def pytest_unconfigure() -> None:
    logging.getLogger().removeHandler(_ear)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what shows a key. What has failed already is to be mended first."""
    report = yield
    shown = [("the log", _ear.heard()), *report.sections, ("the reason", report.longreprtext)]
    places = [place for place, text in shown if MARK in text]
    if places and not report.failed:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} shows a key in {', '.join(places)}."
    return report
