"""A server that speaks TLS and answers rightly in any protocol, with the tests' own certificate."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Self

import pytest

from tests.faults.exchanges import body_of, events_of

CERTIFICATE = Path(__file__).parents[1] / "http" / "localhost.pem"
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
_DOCUMENT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def trust(patch: pytest.MonkeyPatch) -> None:
    """Have both transports trust the certificate."""
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    patch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", context)
    patch.setenv("SSL_CERT_FILE", str(CERTIFICATE))  # httpx2 reads it for each client


class TLSServer:
    """`async with TLSServer(protocol) as server:` on this machine. One request a connection."""

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self.accepted = 0
        """Connections that were made, whether or not TLS was."""
        self.heads: list[bytes] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        context.sni_callback = self._count
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _count(self, *_: object) -> None:
        self.accepted += 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        asked = await reader.readexactly(length)
        streams = b":streamGenerateContent" in head or b'"stream":true' in asked.replace(b" ", b"")
        body = b"".join(events_of(self._protocol)[0]) if streams else body_of(self._protocol)
        writer.write(_STREAM if streams else _DOCUMENT)
        writer.write(b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        writer.close()
