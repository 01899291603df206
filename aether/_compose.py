"""Folding layers around a centre. It must not know what a layer does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["compose"]

T = TypeVar("T")


def compose(inner: T, layers: Iterable[Callable[[T], T]]) -> T:
    """Wrap `inner` in `layers`: the first is outermost and sees a request first."""
    for layer in reversed(list(layers)):
        inner = layer(inner)
    return inner
