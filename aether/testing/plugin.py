"""The pytest plugin: fixtures for code that is built on Aether. Loaded by pytest itself.

It must not import Aether before a fixture is used: it is loaded in every pytest run of the
environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aether.registry import Registry
    from aether.testing import FakeProvider

__all__ = ["aether_registry", "fake_provider"]


@pytest.fixture
def fake_provider() -> FakeProvider:
    """A provider that answers `hello`; set `canned_response`, read `requests`."""
    from aether.testing import FakeProvider

    return FakeProvider()


@pytest.fixture
def aether_registry() -> Iterator[Registry]:
    """The registry of the process, put back as it was after the test."""
    from aether.registry import default_registry

    with default_registry.restored():
        yield default_registry
