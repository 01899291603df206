"""An answer as aiohttp's parser reads it, from its head to the release of its connection.

It must not know what was asked, nor what becomes of the body.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aiohttp import ClientConnectionError, StreamReader
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from multidict import CIMultiDictProxy

from aether.extensions.http._aiohttp_idle import IdleLines
from aether.extensions.http._aiohttp_line import Line
from aether.extensions.http._wire import flatten, joined

__all__ = ["Answer", "Headers"]


class Answer:
    """The answer to a request that has been written whole.

    At the end of the body its line is free for another; until then its connection is in
    `connection`.
    """

    __slots__ = ("_idle", "_line", "connection", "content", "headers", "status")

    def __init__(
        self, message: RawResponseMessage, content: StreamReader, line: Line, idle: IdleLines
    ) -> None:
        self._line = line
        self._idle = idle
        self.connection: Connection | None = line.connection
        self.status = message.code
        self.headers = message.headers
        self.content = content
        content.on_eof(self._release)

    def close(self) -> None:
        """Close the connection, unless it was released. Who waits for the body waits no longer."""
        if self.connection is not None:
            self.connection = None
            self._line.close()
            if self.content.exception() is None:
                # This also has the body let go of `_release`: they would hold each other.
                self.content.set_exception(ClientConnectionError("The answer was closed."))

    def _release(self) -> None:
        if self.connection is not None:
            self.connection = None
            self._line.end()
            self._idle.put(self._line)


class Headers(Mapping[str, str]):
    """Headers as `flatten` makes them, but when they are read: of most answers one or two are.

    A copy or a pickle of them is a plain dict.
    """

    __slots__ = ("_came",)

    def __init__(self, came: CIMultiDictProxy[str]) -> None:
        self._came = came

    def __getitem__(self, name: str) -> str:
        if name not in self:
            raise KeyError(name)
        return joined(self._came.getall(name))

    def __contains__(self, name: object) -> bool:
        return name in self._came and isinstance(name, str) and name == name.lower()

    def __iter__(self) -> Iterator[str]:
        return iter(self._flat())

    def __len__(self) -> int:
        return len(self._flat())

    def __repr__(self) -> str:
        return repr(self._flat())

    def __reduce__(self) -> tuple[type[dict[str, str]], tuple[dict[str, str]]]:
        return dict, (self._flat(),)

    def _flat(self) -> dict[str, str]:
        return flatten(self._came.items())
