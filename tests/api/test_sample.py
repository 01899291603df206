"""The sample that the type checkers read runs as well."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from aether import Aether
from aether.registry import Registry
from aether.testing import FakeProvider


@pytest.fixture
def sample(aether_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample", Path(__file__).with_name("sample.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sample", module)  # where its classes look for their names
    spec.loader.exec_module(module)
    return module


async def test_async_calls(sample: ModuleType) -> None:
    await sample.use_the_client(FakeProvider())
    await sample.use_sessions(FakeProvider())
    await sample.use_tools()
    await sample.use_decorators()
    async with Aether(FakeProvider()) as client:
        await sample.use_agents(client)
    await sample.use_types_of_output(FakeProvider)


def test_blocking_calls(sample: ModuleType) -> None:
    sample.use_it_blocking(FakeProvider())
    sample.use_types_of_output_blocking(FakeProvider('{"title": "Pancakes"}'))


def test_configurations(sample: ModuleType) -> None:
    async def close(clients: list[Aether]) -> None:
        for client in clients:
            await client.aclose()

    clients = sample.configure()
    assert "Sample" in repr(clients[0])
    asyncio.run(close(clients))


def test_misspelled_names(sample: ModuleType) -> None:
    for look in sample.misspell():
        with pytest.raises(AttributeError, match="has no attribute"):
            look()
