"""Reading JSON and stop sequences out of text that comes in pieces, cut anywhere.

It must not know what the text is for.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopFilter", "StringDecoder", "ValueScanner"]

_SPACE = " \t\r\n"
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_REPLACEMENT = "\ufffd"


class StringDecoder:
    """A JSON string's characters as its text comes, from its opening quote to its closing one.

    Half a surrogate pair, which JSON allows and UTF-8 does not, becomes U+FFFD.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self._is_open = False
        self._escape = ""
        self._high = ""

    def feed(self, text: str) -> str:
        """What a further piece decodes to. Nothing is read after the closing quote."""
        decoded: list[str] = []
        for character in text:
            if self.is_closed:
                break
            if not self._is_open:
                self._is_open = character == '"'
            elif self._escape:
                self._escape += character
                decoded.append(self._end_escape())
            elif character == "\\":
                self._escape = character
            elif character == '"':
                self.is_closed = True
                decoded.append(self._pair(""))
            else:
                decoded.append(self._pair(character))
        return "".join(decoded)

    def _end_escape(self) -> str:
        escape = self._escape
        if escape[1] == "u" and len(escape) < 6:
            return ""
        self._escape = ""
        if escape[1] == "u":
            return self._pair(_character(escape[2:]))
        return self._pair(_ESCAPES.get(escape[1], escape[1]))

    def _pair(self, unit: str) -> str:
        """The characters that are certain once `unit` has come; empty is the string's end."""
        high, self._high = self._high, ""
        if high and "\udc00" <= unit <= "\udfff":
            return (high + unit).encode("utf-16", "surrogatepass").decode("utf-16")
        lost = _REPLACEMENT if high else ""
        if "\ud800" <= unit <= "\udbff":
            self._high = unit
            return lost
        return lost + (_REPLACEMENT if "\udc00" <= unit <= "\udfff" else unit)


class ValueScanner:
    """A JSON value's text as it comes, without the space around it, to its end and no further."""

    def __init__(self) -> None:
        self.is_closed = False
        self._depth = 0
        self._has_begun = False
        self._in_string = False
        self._is_escaped = False

    def feed(self, text: str) -> str:
        """What of a further piece belongs to the value."""
        taken: list[str] = []
        for character in text:
            if self.is_closed:
                break
            if not self._has_begun and character in _SPACE:
                continue
            self._has_begun = True
            if self._takes(character):
                taken.append(character)
        return "".join(taken)

    def _takes(self, character: str) -> bool:
        """Whether the character belongs to the value; closes it at its last one, or after it."""
        if self._in_string:
            if self._is_escaped:
                self._is_escaped = False
            elif character == "\\":
                self._is_escaped = True
            elif character == '"':
                self._in_string = False
                self.is_closed = self._depth == 0
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif self._depth == 0 and character in "}],:" + _SPACE:
            self.is_closed = True  # a number or a word ends where something else begins
            return False
        elif character in "}]":
            self._depth -= 1
            self.is_closed = self._depth == 0
        return True


class StopFilter:
    """Text up to the first of some sequences. What may be the beginning of one is held back."""

    def __init__(self, sequences: Sequence[str]) -> None:
        self.is_stopped = False
        self._sequences = [sequence for sequence in sequences if sequence]
        self._held = ""

    def feed(self, text: str) -> str:
        """What is certain to stand before a stop."""
        if self.is_stopped:
            return ""
        self._held += text
        places = [self._held.find(sequence) for sequence in self._sequences]
        found = [place for place in places if place >= 0]
        if found:
            self.is_stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._longest_beginning())

    def end(self) -> str:
        """What was held back, when no more text comes."""
        return "" if self.is_stopped else self._release(len(self._held))

    def _release(self, length: int) -> str:
        ready, self._held = self._held[:length], self._held[length:]
        return ready

    def _longest_beginning(self) -> int:
        longest = max(map(len, self._sequences), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(sequence.startswith(self._held[-length:]) for sequence in self._sequences):
                return length
        return 0


def _character(digits: str) -> str:
    try:
        return chr(int(digits, 16))
    except ValueError:
        return _REPLACEMENT
