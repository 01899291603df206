"""Undoing a content coding that was not asked for, piece by bounded piece.

It must not know an HTTP library. Requests ask for `identity`; some servers compress all the same.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Self

from aether.errors import ProtocolError, ProviderConnectionError

__all__ = ["decoded"]

_PIECE = 64 * 1024
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def decoded(pieces: AsyncIterator[bytes], headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The pieces of a body as they were before they were coded, of at most 64 KiB each.

    Reading one whose coding is unknown is a `ProtocolError`, and so is one that goes on and on
    though nothing comes of it: no limit on what is decoded would end it. There is nothing to be
    closed.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    return pieces if coding in ("", "identity") else _Decoded(pieces, coding)


class _Decoded:
    def __init__(self, pieces: AsyncIterator[bytes], coding: str) -> None:
        self._pieces = pieces
        self._coding = coding
        self._stream: zlib._Decompress | None = None
        self._ready: Iterator[bytes] = iter(())
        self._taken = self._made = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            for piece in self._ready:
                self._made += len(piece)
                return piece
            if self._taken > 2 * self._made + _PIECE:
                raise ProtocolError(
                    "The server's answer is longer in the content coding that it names than it is "
                    "without it.",
                    kind="encoding",
                )
            try:
                data = await anext(self._pieces)
            except StopAsyncIteration:
                if self._stream is not None and not self._stream.eof:
                    raise ProviderConnectionError(
                        "The compressed answer was cut off.", kind="reset"
                    ) from None
                raise
            self._taken += len(data)
            self._ready = self._decompress(data)

    def _decompress(self, data: bytes) -> Iterator[bytes]:
        """The decoded pieces of `data`, made as they are taken."""
        if self._coding not in _WINDOW:
            raise ProtocolError(
                f"The server answered in the content coding {self._coding[:40]!r}, which was not "
                "asked for and is not understood.",
                kind="encoding",
            )
        try:
            while data:
                if self._stream is None or self._stream.eof:  # the first member, or another one
                    self._stream = zlib.decompressobj(_WINDOW[self._coding])
                piece = self._stream.decompress(data, _PIECE)
                data = self._stream.unconsumed_tail or self._stream.unused_data
                if piece:
                    yield piece
        except zlib.error:
            raise ProtocolError(
                "The server's answer is not in the content coding that it names.", kind="encoding"
            ) from None
