"""Names of transports: the environment gives way where nobody knows its name, a caller does not."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from aether import Aether, ProviderConfig
from aether.errors import UnknownNameError
from aether.extensions.http.aiohttp import AiohttpTransport
from aether.extensions.http.httpx import HttpxTransport
from aether.http.contracts import KIND, HTTPResponse
from aether.http.finding import transport_maker
from aether.registry import Registry

ANSWER = b'{"model":"m","choices":[{"message":{"content":"mine"},"finish_reason":"stop"}]}'


class MyTransport(AiohttpTransport):
    closed = 0

    async def request(self, *args: Any, **options: Any) -> HTTPResponse:
        return HTTPResponse(200, {"content-type": "application/json"}, ANSWER)

    async def aclose(self) -> None:
        type(self).closed += 1
        await super().aclose()


def test_the_environment_names_the_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(transport_maker()(), AiohttpTransport)
    monkeypatch.setenv("AETHER_HTTP", "httpx")
    assert isinstance(transport_maker()(), HttpxTransport)


def test_an_unknown_name_in_the_environment_gives_way_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AETHER_HTTP", "carrier-pigeon")
    with caplog.at_level(logging.WARNING, logger="aether.config"):
        assert isinstance(transport_maker()(), AiohttpTransport)
    assert "AETHER_HTTP" in caplog.text
    assert "pigeon" not in caplog.text


def test_an_unknown_name_as_an_argument_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match="aiohttp"):
        transport_maker("carrier-pigeon")


@pytest.mark.parametrize("how", ["argument", "environment"])
async def test_a_client_finds_transports_in_its_own_registry(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    registry.add(KIND, "mine", MyTransport)
    named = "mine" if how == "argument" else None
    if named is None:
        monkeypatch.setenv("AETHER_HTTP", "mine")
    config = ProviderConfig(
        provider="openai",
        api_key="sk-canary-0123456789",
        transport=named,
        base_url="http://127.0.0.1:9/v1",
    )
    before = MyTransport.closed
    async with Aether(config=config, registry=registry) as client:
        assert await client.ask("Whose?") == "mine"
    assert MyTransport.closed == before + 1
