"""AGENTS.md names every module of the package, once."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^- `(aether/\S+\.py)`: \S", re.MULTILINE)


def test_ownership_list_names_every_module_and_no_other() -> None:
    listed = LINE.findall((ROOT / "AGENTS.md").read_text(encoding="utf-8"))
    # An empty __init__.py owns nothing.
    present = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "aether").rglob("*.py")
        if path.read_text(encoding="utf-8").strip()
    }
    assert sorted(present - set(listed)) == [], "modules without a line"
    assert sorted(set(listed) - present) == [], "lines without a module"
    assert len(listed) == len(set(listed)), "a module has two lines"


def test_every_module_says_what_it_owns_and_what_it_must_not_know() -> None:
    silent = []
    for path in (ROOT / "aether").rglob("*.py"):
        if path.name == "__init__.py":
            continue
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if "must not" not in " ".join(docstring.split()):
            silent.append(path.relative_to(ROOT).as_posix())
    assert silent == []
