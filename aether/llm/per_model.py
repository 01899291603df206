"""State that is kept per model, of which the least recently used is forgotten.

It must not know what the state is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerModel"]

S = TypeVar("S")

LIMIT = 256


class PerModel(Generic[S]):
    """`states[model]` is the model's state, made by `make(model)` on first use, also from threads.

    Within one stack the provider and the endpoint are fixed, so the model is the whole key. At
    most `LIMIT` models are remembered: their names come from callers, who may make up any number.
    """

    __slots__ = ("_latest", "_lock", "_make", "_states")

    def __init__(self, make: Callable[[str | None], S]) -> None:
        self._make = make
        self._states: OrderedDict[str | None, S] = OrderedDict()
        self._latest: tuple[str | None, S] | None = None
        """The last of them: asked for again, it stays where it is."""
        self._lock = threading.Lock()

    def __getitem__(self, model: str | None) -> S:
        latest = self._latest
        if latest is not None and latest[0] == model:
            return latest[1]
        with self._lock:
            state = self._states.get(model)
            if state is None:
                state = self._states[model] = self._make(model)
                if len(self._states) > LIMIT:
                    self._states.popitem(last=False)
            else:
                self._states.move_to_end(model)
            self._latest = model, state
            return state

    def __len__(self) -> int:
        return len(self._states)
