"""A built-in is named by a string, which no tool follows: each of them is there."""

from __future__ import annotations

import pytest

import aether.agent  # noqa: F401  # with the facade come all ports, which declare their built-ins
from aether.registry import Registry

KINDS = ("http_transport", "llm_provider", "session_store", "tool")


@pytest.mark.parametrize("kind", KINDS)
def test_every_declared_built_in_can_be_imported(kind: str) -> None:
    registry = Registry()
    names = registry.names(kind)
    assert names
    for name in names:
        assert registry.get(kind, name) is not None
