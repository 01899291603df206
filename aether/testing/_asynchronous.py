"""Tests that are coroutines, marked as such: pytest-asyncio runs them in its strict mode too.

It must not know what is tested.
"""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Any

import pytest

__all__ = ["AsynchronousTests"]


class AsynchronousTests:
    """Inherit from it with tests. Those that are no coroutines get no mark, which would be a
    warning there.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if find_spec("pytest_asyncio") is None:
            return  # whatever else runs coroutines has no such mark, and a strict pytest refuses it
        for name, member in vars(cls).items():
            if name.startswith("test") and inspect.iscoroutinefunction(member):
                pytest.mark.asyncio(member)
