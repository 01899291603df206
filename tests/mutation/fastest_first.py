"""A plugin for pytest under mutmut: the fastest tests first, for most mutants are noticed soon."""

from __future__ import annotations

import gc
import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import Phase, settings

_STATS = Path("mutmut-stats.json")
"""Written by mutmut into the folder that it runs the tests in, once it has seen each of them."""


def pytest_configure() -> None:
    """Let no example fail for its time: a slow machine is no reason to take a mutant for noticed.

    One that fails is enough, however long it is. What is loaded by now stays loaded: it need not be
    looked through for garbage under each mutant.
    """
    gc.freeze()
    phases = Phase.explicit, Phase.generate
    settings.register_profile("mutants", deadline=None, database=None, phases=phases)
    settings.load_profile("mutants")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort them."""
    seconds = _seconds()
    items.sort(key=lambda item: seconds.get(item.nodeid, 0.0))


@cache
def _seconds() -> dict[str, float]:
    if not _STATS.exists():
        return {}
    told: dict[str, float] = json.loads(_STATS.read_text(encoding="utf-8"))["duration_by_test"]
    return told
