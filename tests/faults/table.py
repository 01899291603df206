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

Each row is a promise, and each promise is kept by the tests named beside it. After every one of
them these are checked, too, with the garbage collector off: no task, thread, socket, file or turn
of a session is left, and the key is in no log, at the level DEBUG either. Where a test runs a whole
client, it also hands in the client, the server and the store: then each event that starts something
has one that ends it, the ledger has one entry for each HTTP request, history is unchanged unless
the call succeeded, and the key is in no event, error or printout
([aftermath.py](../tests/faults/aftermath.py)).

`make test ARGS="-m row"` runs them all. This page is made by `make rows` out of
[the rows](../tests/faults/rows) and the tests that are marked with them. The rows of session stores
(all of M but those of cancelling) are not on this page yet.
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
    parts = [_START]
    for area, title in AREAS.items():
        parts.append(f"\n## {title}\n\n| | what happens | what Aether does | shown by |")
        parts.append("|---|---|---|---|")
        parts += [
            f"| {row.id} | {_cell(row.fault)} | {_cell(row.promise)} | {_names(tests[row.id])} |"
            for row in rows(area)
            if row.id in tests
        ]
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


def _names(tests: list[tuple[Path, str]]) -> str:
    return "<br>".join(
        f"[{_in_words(name)}](../{file.relative_to(ROOT).as_posix()})" for file, name in tests
    )


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
