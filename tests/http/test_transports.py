"""Every built-in transport keeps what the port promises."""

from __future__ import annotations

from aether.extensions.http.aiohttp import AiohttpTransport
from aether.extensions.http.httpx import HttpxTransport
from aether.http.contracts import KIND, Transport
from aether.registry import Registry
from aether.testing.transports import TransportConformance


class TestAiohttp(TransportConformance):
    def make_transport(self) -> Transport:
        return AiohttpTransport()


class TestHttpx(TransportConformance):
    def make_transport(self) -> Transport:
        return HttpxTransport()


def test_every_built_in_transport_is_enrolled() -> None:
    enrolled = {type(case().make_transport()) for case in TransportConformance.__subclasses__()}
    registry = Registry()  # a new one: what ships with Aether, and what is installed beside it
    assert {registry.get(KIND, name) for name in registry.names(KIND)} <= enrolled
