"""A built-in is named by a string, which no tool follows: each of them is there."""

from __future__ import annotations

import pytest

import aether.extensions.llm.registry
import aether.http.contracts
import aether.llm.caching
import aether.llm.pricing
import aether.memory.contracts
from aether.registry import Registry

KINDS = (
    aether.extensions.llm.registry.KIND,
    aether.http.contracts.KIND,
    aether.llm.caching.KIND,
    aether.llm.pricing.KIND,
    aether.memory.contracts.KIND,
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_declared_built_in_can_be_imported(kind: str) -> None:
    registry = Registry()
    names = registry.names(kind)
    assert names
    for name in names:
        assert registry.get(kind, name) is not None
