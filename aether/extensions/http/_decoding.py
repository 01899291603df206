"""Undoing a content coding that was not asked for, piece by bounded piece.

It must not know an HTTP library. Requests ask for `identity`; some servers compress all the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from aether.errors import ProtocolError, ProviderConnectionError

__all__ = ["Decoder", "decoder_for"]

_PIECE = 64 * 1024
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def decoder_for(headers: Mapping[str, str]) -> Decoder | None:
    """What undoes the answer's coding; `None` if it has none, `ProtocolError` if it is unknown."""
    coding = headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in _WINDOW:
        raise ProtocolError(
            f"The server answered in the content coding {coding[:40]!r}, which was not asked for "
            "and is not understood.",
            kind="encoding",
        )
    return Decoder(_WINDOW[coding])


class Decoder:
    """Decompresses one body."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._stream = zlib.decompressobj(window)
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded pieces of `data`, of at most 64 KiB each, made as they are taken."""
        try:
            while data:
                if self._stream.eof:  # another member follows
                    self._stream = zlib.decompressobj(self._window)
                piece = self._stream.decompress(data, _PIECE)
                self._begun = True
                data = self._stream.unconsumed_tail or self._stream.unused_data
                if piece:
                    yield piece
        except zlib.error:
            raise ProtocolError(
                "The server's answer is not in the content coding that it names.", kind="encoding"
            ) from None

    def finish(self) -> None:
        """Say that the body has ended; `ProviderConnectionError` if it was cut."""
        if self._begun and not self._stream.eof:
            raise ProviderConnectionError("The compressed answer was cut off.", kind="reset")
