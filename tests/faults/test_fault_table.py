"""The page docs/faults.md is what the rows and the tests say, and leaves no row out."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.faults.table import AREAS, difference, rows, shown_by

RANGES = {"N": 20, "S": 25, "H": 18, "T": 18, "E": 7, "C": 5, "B": 7, "X": 24}
"""The last number of each letter whose rows are complete."""

MOST_LETTERS = 240
"""What is longer makes a table hard to read."""
_SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+")

ALL = [row for area in AREAS for row in rows(area)]


def test_page_is_up_to_date() -> None:
    assert not difference(), "run `make rows`"


def test_no_row_is_missing_and_none_is_there_twice() -> None:
    ids = Counter(row.id for row in ALL)
    wanted = {f"{letter}{n}" for letter, last in RANGES.items() for n in range(1, last + 1)}
    assert wanted <= ids.keys()
    assert set(ids.values()) == {1}


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.id)
def test_row_is_shown_by_a_test(row: object) -> None:
    assert getattr(row, "id", None) in shown_by()


def test_no_test_names_a_row_that_there_is_not() -> None:
    assert shown_by().keys() <= {row.id for row in ALL}


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.id)
def test_row_says_what_happens_and_what_is_done(row: object) -> None:
    for text in (getattr(row, "fault", ""), getattr(row, "promise", "")):
        assert text.strip()
        assert "  " not in text
        assert len(_SENTENCE_ENDS.split(text.strip())) <= 2
        assert len(text) <= MOST_LETTERS
