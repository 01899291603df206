"""A plug-in of a kind that Aether does not know."""

from __future__ import annotations


def write() -> str:
    return "an old silent pond"
