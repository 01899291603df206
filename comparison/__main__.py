"""The comparison: one server that fails as it is told, against each library, and one table.

make compare                              # all of them
make compare ARGS="--only aether,openai"
make compare ARGS=--write                 # put the table into docs/comparison.md
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from comparison.running import ROOT, Compared, compared
from comparison.table import NAMES, classes, details, table

PAGE = ROOT / "docs" / "comparison.md"


async def _all(environments: Path, names: list[str]) -> list[Compared]:
    return [await compared(environments / name, name) for name in names]


def _report(found: list[Compared], today: dt.date) -> dict[str, str]:
    return {
        "figures": f"{today.isoformat()}, Python {platform.python_version()}\n\n{table(found)}",
        "details": details(found),
        "classes": classes(found),
    }


def _write(report: dict[str, str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, part in report.items():
        before, begin, rest = text.partition(f"<!-- {name} -->")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        if not end:
            raise SystemExit(f"{PAGE} has no place for the {name}.")
        text = f"{before}{begin}\n\n{part}\n\n{end}{after}"
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    """Compare, and say what was found."""
    parser = argparse.ArgumentParser(prog="make compare", description=__doc__)
    parser.add_argument("environments", type=Path, help="a folder with one for each library")
    parser.add_argument("--only", default=",".join(NAMES), help="names, with commas between")
    parser.add_argument("--write", action="store_true", help=f"write into {PAGE.name}")
    parser.add_argument("--log", type=Path, help="keep every outcome in this file, as JSON")
    options = parser.parse_args()
    found = asyncio.run(_all(options.environments.absolute(), options.only.split(",")))
    today = dt.datetime.now(tz=dt.UTC).date()
    report = _report(found, today)
    sys.stdout.write("\n\n".join(report.values()) + "\n")
    if options.write:
        _write(report)
    if options.log:
        kept = [
            asdict(outcome) | {"peer": each.name} for each in found for outcome in each.outcomes
        ]
        options.log.write_text(json.dumps(kept, indent=1, default=repr), encoding="utf-8")


if __name__ == "__main__":
    main()
