"""What every test gets: an environment without settings, and no way out of this machine."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from typing import Any

import pytest

from tests.faults.aftermath import aftermath, pytest_collection_modifyitems

__all__ = ["aftermath", "pytest_collection_modifyitems"]

# Installed or not: an entry point brings the plugin where Aether is installed, under this name too.
pytest_plugins = ["aether.testing.plugin", "tests.faults.canary"]

_SETTING = re.compile(
    r"^(AETHER_.*|LLM_PROVIDER|OPENAI_API|.*_(API_KEY|API_VERSION|MODEL|BASE_URL))$"
)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own keys and models change no test, and are used by none."""
    for name in list(os.environ):
        if _SETTING.match(name):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to any other machine fails the test that makes it."""
    connect = socket.socket.connect
    connect_ex = socket.socket.connect_ex

    def guarded(self: socket.socket, address: Any) -> None:
        _refuse_the_world(self, address)
        connect(self, address)

    def guarded_ex(self: socket.socket, address: Any) -> int:
        _refuse_the_world(self, address)
        return connect_ex(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_ex)


def _refuse_the_world(connection: socket.socket, address: Any) -> None:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = address[0]
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        pytest.fail(f"A test tried to connect to {host}: tests speak to loopback alone.")
