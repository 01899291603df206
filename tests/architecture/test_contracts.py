"""The contracts of .importlinter hold, and each of them catches what it forbids."""

from __future__ import annotations

import ast
import configparser
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = ROOT / ".importlinter"
PREFIX = "importlinter:contract:"

# Contract, and an import that breaks it: the file that makes it, and its line.
VIOLATIONS = [
    ("layers", "errors.py", "import aether.config"),
    ("layers", "engine/loop.py", "import aether.extensions.llm.fake"),
    ("layers", "memory/contracts.py", "import aether.tools.contracts"),
    ("layers", "unplaced.py", ""),
    ("acyclic", "llm/content.py", "import aether.llm.messages"),
    ("third_parties", "llm/contracts.py", "import aiohttp"),
    ("extensions", "extensions/memory/in_memory.py", "import aether.extensions.llm.fake"),
    ("llm_extensions", "extensions/llm/fake.py", "import aether.extensions.llm.retrying"),
    ("llm_extensions", "extensions/llm/registry.py", "import aether.extensions.llm.builder"),
    ("llm_extensions", "extensions/llm/unplaced.py", ""),
    ("joiner", "agent.py", "import aether.extensions.llm.builder"),
]


def contracts() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(CONTRACTS, encoding="utf-8")
    return parser


def lint(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run lint-imports on the package in `folder`."""
    command = "import sys; from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "aether", folder / "aether", ignore=ignored)
    shutil.copy(CONTRACTS, folder)
    return folder


def test_every_contract_holds() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("contract", "file", "line"), VIOLATIONS)
def test_contract_catches_a_violation(copied: Path, contract: str, file: str, line: str) -> None:
    path = copied / "aether" / file
    before = path.read_text(encoding="utf-8") if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n", encoding="utf-8")
    try:
        result = lint(copied, "--contract", contract)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before, encoding="utf-8")
    assert result.returncode == 1, result.stdout
    name = contracts()[PREFIX + contract]["name"]
    assert f"{name} BROKEN" in " ".join(result.stdout.split())


def test_every_contract_has_a_violation_here() -> None:
    names = {
        name.removeprefix(PREFIX) for name in contracts().sections() if name.startswith(PREFIX)
    }
    assert {contract for contract, _, _ in VIOLATIONS} == names


def test_third_parties_are_the_ones_that_the_contract_knows() -> None:
    """A contract names what it forbids, so a new dependency must be written into it."""
    forbidden = contracts()[PREFIX + "third_parties"]["forbidden_modules"].split()
    strangers = []
    for path in sorted((ROOT / "aether").rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        allowed = {"aether", "pydantic", "pydantic_core", *sys.stdlib_module_names}
        if where.startswith("aether/extensions/"):
            allowed.update(forbidden)
        if where.startswith("aether/testing/"):
            allowed.add("pytest")
        if where == "aether/tools/docstrings.py":
            allowed.add("docstring_parser")
        packages = {name.partition(".")[0] for name in imported(path)}
        strangers += [f"{where} imports {package}" for package in packages - allowed]
    assert strangers == []


def imported(path: Path) -> Iterator[str]:
    """The names that a file imports, as statements or through `require("name", ...)`.

    What it imports for type checkers alone is left out, as the contracts leave it out.
    """
    for node in ran(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name
            case ast.Call(
                func=ast.Name(id="require" | "import_module")
                | ast.Attribute(attr="require" | "import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def ran(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of the tree, but for those below `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=otherwise):
                for other in otherwise:
                    yield other
                    yield from ran(other)
            case _:
                yield node
                yield from ran(node)
