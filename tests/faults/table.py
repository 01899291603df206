"""The table of the fault matrix: docs/faults.md, made of the rows and the tests marked with them.

python tests/faults/table.py            # what the page lacks; the status is 1 if anything
python tests/faults/table.py --write    # write the page
"""

from __future__ import annotations

import ast
import difflib
import importlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # also where it is run as a script

from tests.faults.rows.contracts import Row  # noqa: E402

PAGE = ROOT / "docs" / "faults.md"

AREAS = {
    "network": "The network",
    "body": "Bodies and streams",
    "statuses": "Statuses",
    "tools": "Tools and the loop",
    "events": "Events and configuration",
    "cost": "Cost",
    "cancellation": "Cancelling and closing",
    "security": "Security",
}
"""The modules of tests/faults/rows, and what their rows are about."""

_START = """\
# What can go wrong, and what Aether does

Each row is a promise, kept by the tests of the files beside it: how many in each is said, and their
names stand at the end. `make test ARGS="-m row"` runs them all.

After every one of them this is checked, too, with the garbage collector off
([aftermath.py](../tests/faults/aftermath.py)):

- no task, thread, socket, file or turn of a session is left;
- of every client that was made, each event that starts something has one that ends it;
- its ledger has one entry for each request, and none is left open;
- a session's turn that failed has left the history as it was, and one that succeeded has not;
- the key is in no log, at the level DEBUG either, and in no event, error or printout.

Not all is seen without being told: nothing in other processes; no requests of a provider that is
not Aether's, or is asked past its client, or serves two; no turns of sessions in another store than
the one in memory. There the tests themselves hand in a server to compare the ledger with, or a
store to watch. Where a test is about nobody listening, nobody does.

This page is made by `make rows` out of [the rows](../tests/faults/rows) and the tests that are
marked with them. The rows of session stores (all of M but those of cancelling) are not on this page
yet.
"""


def rows(area: str) -> list[Row]:
    """The rows of one area."""
    module = importlib.import_module(f"tests.faults.rows.{area}")
    found: list[Row] = module.ROWS
    return sorted(found, key=lambda row: (row.id[0], int(row.id[1:])))


@cache
def shown_by() -> dict[str, list[tuple[Path, str]]]:
    """The tests of each row: file and name."""
    found: dict[str, list[tuple[Path, str]]] = {}
    for file in sorted(ROOT.glob("tests/**/test_*.py")):
        text = file.read_text(encoding="utf-8")
        if "mark.row" not in text:
            continue
        for name, ids in _marked(ast.parse(text)):
            for row in ids:
                tests = found.setdefault(row, [])
                if (file, name) not in tests:
                    tests.append((file, name))
    return found


def page() -> str:
    """The whole page."""
    tests = shown_by()
    parts = [_START.rstrip("\n")]
    for area, title in AREAS.items():
        parts.append(f"\n## {title}\n\n| | what happens | what Aether does | tests |")
        parts.append("|---|---|---|---|")
        parts += [
            f"| {row.id} | {_cell(row.fault)} | {_cell(row.promise)} | {_counts(tests[row.id])} |"
            for row in rows(area)
            if row.id in tests
        ]
    parts.append("\n## The tests\n\nEach with the rows that it shows, by file.")
    for file, names in sorted(_by_file(tests).items()):
        parts.append(f"\n### {_link(file)}\n")
        parts += [f"- {_in_words(name)} ({', '.join(ids)})" for name, ids in names.items()]
    return "\n".join(parts) + "\n"


def difference() -> str:
    """What the page has and should not have, and the other way round; empty if they agree."""
    written = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    return "\n".join(
        difflib.unified_diff(
            written.splitlines(), page().splitlines(), "docs/faults.md", "tests", lineterm=""
        )
    )


def counted() -> str:
    """How much the page has."""
    ids = {row.id for area in AREAS for row in rows(area)}
    shown = [test for row, tests in shown_by().items() if row in ids for test in tests]
    return f"{len(ids)} rows, {len(set(shown))} tests"


def _marked(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """The test functions with their rows, those of their class and module included."""
    everywhere = [
        row
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(
            isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets
        )
        for row in _ids(node.value)
    ]
    yield from _marked_in(tree.body, everywhere)


def _marked_in(body: list[ast.stmt], around: list[str]) -> Iterator[tuple[str, list[str]]]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            ids = [*around, *(row for each in node.decorator_list for row in _ids(each))]
            if isinstance(node, ast.ClassDef):
                yield from _marked_in(node.body, ids)
            elif node.name.startswith("test") and ids:
                yield node.name, ids


def _ids(node: ast.expr) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "pytest.mark.row":
            yield from (ast.literal_eval(argument) for argument in each.args)


def _by_file(tests: dict[str, list[tuple[Path, str]]]) -> dict[Path, dict[str, list[str]]]:
    """The rows of each test of each file, as far as they are on the page."""
    found: dict[Path, dict[str, list[str]]] = {}
    for area in AREAS:
        for row in rows(area):
            for file, name in tests.get(row.id, ()):
                found.setdefault(file, {}).setdefault(name, []).append(row.id)
    return found


def _counts(tests: list[tuple[Path, str]]) -> str:
    """The files of these tests, and how many are in each."""
    counts = Counter(file for file, _ in tests)
    return ", ".join(f"{_link(file)} {count}" for file, count in counts.items())


def _link(file: Path) -> str:
    words = file.stem.removeprefix("test_").replace("_", " ")
    return f"[{words}](../{file.relative_to(ROOT).as_posix()})"


def _in_words(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif lacking := difference():
        sys.exit(f"{lacking}\n\ndocs/faults.md is not what the tests say: run `make rows`.")
    sys.stdout.write(f"docs/faults.md: {counted()}\n")
