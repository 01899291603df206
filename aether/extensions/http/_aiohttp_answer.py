"""An answer as aiohttp's parser reads it, from its head to the release of its connection.

It must not know what was asked, nor what becomes of the body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from aiohttp import ClientConnectionError, StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from aether.extensions.http._aiohttp_line import abort_unless_kept

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

__all__ = ["Answer"]

_SWITCHING_PROTOCOLS = 101


class Answer:
    """The answer to a request that has been written whole.

    At the end of the body its connection is released; until then it is in `connection`.
    """

    __slots__ = ("connection", "content", "headers", "status")

    def __init__(
        self,
        connection: Connection,
        status: int,
        headers: CIMultiDictProxy[str],
        content: StreamReader,
    ) -> None:
        self.connection: Connection | None = connection
        self.status = status
        self.headers = headers
        self.content = content
        content.on_eof(self._release)

    @classmethod
    async def of(cls, connection: Connection, protocol: ResponseHandler) -> Self:
        """The one that comes next, without what only informs (103 and the like)."""
        while True:
            message, content = await protocol.read()
            if not 100 <= message.code < 200 or message.code == _SWITCHING_PROTOCOLS:
                return cls(connection, message.code, message.headers, content)

    def close(self) -> None:
        """Close the connection, unless it was released. Who waits for the body waits no longer."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()
            if self.content.exception() is None:
                # This also has the body let go of `_release`: they would hold each other.
                self.content.set_exception(ClientConnectionError("The answer was closed."))

    def _release(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            abort_unless_kept(connection)
            connection.release()
