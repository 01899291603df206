"""TLS that does not come about: silence, a certificate that nobody trusts, no TLS at all."""

from __future__ import annotations

import asyncio

import pytest

from aether.errors import ProviderConnectionError, RequestTimeoutError
from aether.http.contracts import Timeout
from aether.testing._raw_server import Connection, RawServer
from tests.faults.aftermath import Aftermath
from tests.faults.exchanges import (
    HELLO,
    Way,
    all_ways,
    both_ways,
    call,
    each_protocol,
    each_transport,
    elsewhere,
    is_open,
    opened_with,
    states,
)
from tests.faults.tls import TLSServer, trust


@pytest.mark.row("N3")
@each_protocol
@each_transport
@both_ways
async def test_a_server_that_never_says_hello_in_tls_is_given_up_within_the_limit_for_connecting(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    async def silent(connection: Connection) -> None:
        await connection.wait_closed_by_peer()

    async with RawServer(silent) as server:
        url = server.url.replace("http:", "https:")
        limits = Timeout(connect=0.02, read=5)
        config = elsewhere(protocol, url, aftermath, transport=transport, timeout=limits)
        async with opened_with(aftermath, config, attempts=2) as client:
            error = (await asyncio.wait_for(call(client, way), 3)).failed()
            assert isinstance(error, RequestTimeoutError)
            assert (error.kind, error.attempts) == ("connect", 2)
            assert states(client) == ["not_billed"] * 2
        await server.until_open(0)


@pytest.mark.row("N3")
@each_protocol
@each_transport
@all_ways
async def test_a_certificate_that_is_refused_is_tried_once_and_bills_nothing(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    async with TLSServer(protocol) as server:
        url = f"https://127.0.0.1:{server.port}/v1"
        config = elsewhere(protocol, url, aftermath, transport=transport)
        async with opened_with(aftermath, config, attempts=3, fails=True) as client:
            error = (await call(client, way)).failed()
            assert isinstance(error, ProviderConnectionError)
            assert (error.kind, error.attempts, error.retryable) == ("tls", 1, False)
            assert "certificate" in str(error)
            assert states(client) == ["not_billed"]
            aftermath.told(error)
        assert (server.accepted, server.heads) == (1, [])


@pytest.mark.row("N3")
@each_protocol
@each_transport
@both_ways
async def test_a_certificate_that_is_trusted_is_none_of_these(
    protocol: str,
    transport: str,
    way: Way,
    aftermath: Aftermath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trust(monkeypatch)
    async with TLSServer(protocol) as server:
        url = f"https://127.0.0.1:{server.port}/v1"
        config = elsewhere(protocol, url, aftermath, transport=transport)
        async with opened_with(aftermath, config) as client:
            assert (await call(client, way)).succeeded() == HELLO.text


@pytest.mark.row("N3")
@each_protocol
@each_transport
@all_ways
async def test_a_server_that_speaks_no_tls_is_tried_again_and_bills_nothing(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    async def plain(connection: Connection) -> None:
        await connection.write(b"HTTP/1.1 400 plain\r\n\r\n")

    async with RawServer(plain) as server:
        url = server.url.replace("http:", "https:")
        config = elsewhere(protocol, url, aftermath, transport=transport)
        async with opened_with(aftermath, config, attempts=3, fails=True) as client:
            error = (await call(client, way)).failed()
            assert isinstance(error, ProviderConnectionError)
            assert (error.kind, error.attempts, server.accepted) == ("tls", 3, 3)
            assert states(client) == ["not_billed"] * 3
            assert is_open(client)
