"""Reasoning that a server puts into the text, inside `<think>` tags at its beginning.

It must not know which servers do so.
"""

from __future__ import annotations

__all__ = ["ThinkingSplitter", "split_thinking"]

_OPEN = "<think>"
_CLOSE = "</think>"
_LONGEST_INDENT = 64  # characters of white space before the tag


class ThinkingSplitter:
    """Takes a text apart, in pieces of any size: `feed` them in order, then `close`.

    Only a tag that the text begins with opens reasoning; all other tags are text. What is between
    the tags is the reasoning, word for word; white space between it and the text is left out.
    """

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._held = ""
        self._state = "before"

    def feed(self, piece: str) -> tuple[str, str]:
        """The reasoning and the text that are certain now; what may be half a tag is held back."""
        if self._state == "text":
            return "", piece
        self._held += piece
        if self._state == "before":
            self._begin()
        if self._state == "text":
            return "", self._take()
        reasoning = ""
        if self._state == "inside":
            reasoning = self._inside()
        if self._state == "after":
            self._held = self._held.lstrip()
            if self._held:
                self._state = "text"
                return reasoning, self._take()
        return reasoning, ""

    def close(self) -> tuple[str, str]:
        """What was held back. Reasoning without its closing tag was cut off: it stays reasoning."""
        held = self._take()
        if self._state == "inside":
            return held, ""
        return "", "" if self._state == "after" else held

    def _begin(self) -> None:
        """Find out, if what has come is enough for it, whether the text begins with a tag."""
        begun = self._held.lstrip()
        indent = len(self._held) - len(begun)
        if indent > _LONGEST_INDENT or not _OPEN.startswith(begun[: len(_OPEN)]):
            self._state = "text"
        elif len(begun) >= len(_OPEN):
            self._state = "inside"
            self._held = begun[len(_OPEN) :]

    def _inside(self) -> str:
        reasoning, tag, rest = self._held.partition(_CLOSE)
        if tag:
            self._state = "after"
            self._held = rest
            return reasoning
        keep = next(
            (size for size in range(len(_CLOSE) - 1, 0, -1) if reasoning.endswith(_CLOSE[:size])), 0
        )
        self._held = reasoning[len(reasoning) - keep :]
        return reasoning[: len(reasoning) - keep]

    def _take(self) -> str:
        held, self._held = self._held, ""
        return held


def split_thinking(text: str) -> tuple[str, str]:
    """The reasoning and the text of a whole text."""
    splitter = ThinkingSplitter()
    reasoning, said = splitter.feed(text)
    more_reasoning, more_said = splitter.close()
    return reasoning + more_reasoning, said + more_said
