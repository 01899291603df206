"""Answers spoilt by chance, the short run: see fuzz_streams.py for the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.feeds import Reader
from tests.faults.fuzz_streams import check, check_splits, found, load, make, run

SEED = 20_261
INPUTS = 20_000
PARTS = 10


@pytest.mark.row("S12", "S13", "S22")
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_comes_is_an_answer_or_an_error_of_ours(part: int) -> None:
    size = INPUTS // PARTS
    ends = run(range(part * size, (part + 1) * size), SEED)
    assert ends.total() == size
    assert {"answer", "ProtocolError", "StreamInterruptedError"} <= ends.keys()


@pytest.mark.row("S13")
@pytest.mark.parametrize("path", found(), ids=lambda path: path.stem)
def test_what_failed_once_fails_no_more(path: Path) -> None:
    with Reader() as reader:
        reader.run(check(reader, load(path)))


@pytest.mark.row("S5")
def test_a_stream_is_read_alike_wherever_it_is_cut_in_two() -> None:
    """A part of the cuts; all of them are a command of fuzz_streams.py."""
    assert check_splits(step=61) > 1000


def test_an_input_is_made_of_the_seed_and_its_number_alone(tmp_path: Path) -> None:
    assert make(1, 2) == make(1, 2)
    assert make(1, 2) != make(1, 6)
