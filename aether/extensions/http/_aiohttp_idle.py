"""The lines of one event loop that wait for their next request.

It must not know what is asked on them. aiohttp would pass each through its connector again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Hashable

from aether.extensions.http._aiohttp_line import Line

__all__ = ["IdleLines"]

_SECONDS = 15.0
"""For so long a line is kept: as long as aiohttp keeps one."""


class IdleLines:
    """The lines that may be used again, by the server that they lead to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lines: defaultdict[Hashable, list[Line]] = defaultdict(list)
        self._timer: asyncio.TimerHandle | None = None

    def take(self, server: Hashable) -> Line | None:
        """The one that was used last, if there is one on which a request can be made."""
        lines = self._lines.get(server)
        heard_since = self._loop.time() - _SECONDS
        while lines:
            line = lines.pop()
            if line.heard_at >= heard_since and line.is_quiet():
                return line
            line.close()
        return None

    def put(self, line: Line) -> None:
        """Keep a line whose answer has come to its end, or close it if it is not to be kept."""
        if not line.may_be_kept():
            line.close()
            return
        self._lines[line.server].append(line)
        if self._timer is None:
            self._timer = self._loop.call_later(_SECONDS, self._tidy)

    def close(self) -> None:
        for lines in self._lines.values():
            for line in lines:
                line.connection.close()
        self._lines.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _tidy(self) -> None:
        self._timer = None
        heard_since = self._loop.time() - _SECONDS
        kept, self._lines = self._lines, defaultdict(list)
        for lines in kept.values():
            for line in lines:
                if line.heard_at >= heard_since:
                    self.put(line)
                else:
                    line.connection.close()
