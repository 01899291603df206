"""The page that holds the tables: each stands between two marks of its name."""

from __future__ import annotations

from benchmarks.machine import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"


def put_into(text: str, name: str, part: str) -> str:
    """The text with that part between its marks."""
    before, begin, rest = text.partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not end:
        raise SystemExit(f"{PAGE} has no place for the {name}.")
    return f"{before}{begin}\n\n{part}\n\n{end}{after}"


def write(name: str, part: str) -> None:
    """Put it into the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(put_into(text, name, part), encoding="utf-8")
