"""Repetition: events that are written as one before them, byte for byte, but for one text.

It must not know a protocol. Most events of a stream say again whose piece they bring, which takes
several times as long to read as the piece.
"""

from __future__ import annotations

from pydantic_core import from_json

from aether.extensions.llm._wire.large_json import ReadDocument

__all__ = ["Repetition"]

_CHANCES = 8
"""After so many events of which none repeats the one before, no more of them are looked at: then
something else changes with each, as a number or padding."""


class Repetition:
    """Reads the text alone of events that repeat those that it was shown.

    `field` is the text's name, as it is written. Shown is what was read as a whole, and found to be
    an event in which only its text matters.
    """

    __slots__ = ("_after", "_before", "_chances", "_field", "_text", "is_known", "is_sought")

    def __init__(self, field: bytes) -> None:
        self._field = field + b":"
        self._before = b""  # what is written before the text, and behind it
        self._after = b""
        self._text = ""
        self._chances = _CHANCES
        self.is_known = False
        """Whether there is anything that others may repeat: else `read` need not be called."""
        self.is_sought = True
        """Whether there may be: else `show` need not be called."""

    def read(self, data: bytes) -> str | None:
        """The text of an event that repeats those; `None` for all others."""
        if (
            not data.startswith(self._before)
            or not data.endswith(self._after)
            or type(data) is ReadDocument
        ):
            return None
        try:
            text = from_json(data[len(self._before) : -len(self._after)])
        except ValueError:  # more than one value, or none
            return None
        return text if type(text) is str else None

    def show(self, data: bytes, text: str) -> None:
        """Show an event that was read as a whole, and its text."""
        self._chances -= 1
        self.is_sought = self._chances > 0
        if type(data) is ReadDocument:
            return
        name, field, rest = data.partition(self._field)
        space, _, value = rest.partition(b'"')
        written, quote, after = value.partition(b'"')
        if not quote or space.strip() or written.endswith(b"\\"):
            return
        before = name + field + space
        if before != self._before or after != self._after:
            self._before, self._after, self._text = before, after, text
            self.is_known = False
        elif text != self._text:
            # What stands in this place, and nothing else, made another text of the same event.
            self.is_known = self.is_sought = True
            self._chances = _CHANCES
