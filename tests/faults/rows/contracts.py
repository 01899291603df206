"""What a row of the fault matrix is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that can go wrong, and what is promised about it."""

    id: str
    """A letter for the area and a number, such as `N9`: tests name it with `@pytest.mark.row`."""
    fault: str
    """What happens, in a few words: one cell of a table."""
    promise: str
    """What Aether does: at most two sentences, true of every adapter and transport."""
