"""What a mutant changes: read out of the modules that mutmut has written, original and mutants.

mutmut writes each function as `<name>__mutmut_orig`, followed by its mutants `<name>__mutmut_<n>`.
"""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Change", "changes", "only_words"]

_CLASS_MARK = "\u01c1"  # mutmut writes a method as xǁClassǁname


@dataclass(frozen=True, slots=True)
class Change:
    """What one mutant changes."""

    function: str
    """`name`, or `Class.name`."""
    before: str
    """The lines of the function that are others in the mutant, stripped and joined by a space."""
    after: str
    only_words: bool


@cache
def changes(module: Path) -> dict[str, Change]:
    """The mutants of a module that mutmut has written, by the last part of mutmut's names."""
    text = module.read_text(encoding="utf-8")
    lines = text.splitlines()
    functions = {
        node.name: node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "__mutmut_" in node.name
    }
    found = {}
    for name, node in functions.items():
        mangled, _, which = name.rpartition("__mutmut_")
        original = functions.get(f"{mangled}__mutmut_orig")
        if original is None or not which.isdigit():
            continue
        readable = _readable(mangled)
        before, after = _differing(
            _stripped(original, lines, readable), _stripped(node, lines, readable)
        )
        found[name] = Change(readable, before, after, only_words(original, node))
    return found


def only_words(before: ast.AST, after: ast.AST) -> bool:
    """Whether two functions differ in nothing but the words of messages.

    Those are the string literals, parts of f-strings included, in the positional arguments of an
    error, of `error_of`, `_refused`, `_refusal` and `_note`, or of a log call. A keyword's value,
    as in `kind="truncated"`, is none, nor is a string that is looked up, compared, sent or passed
    on: it is a protocol's or a promise. Words that are left out altogether are a change, too.
    """
    return _without_words(before) == _without_words(after)


def _without_words(function: ast.AST) -> list[str]:
    bare = _Blanked().visit(ast.parse(ast.unparse(function)))
    return [ast.dump(node) for each in bare.body for node in [*each.body, each.args]]


class _Blanked(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if _tells(node.func):
            node.args = [_blank(argument) for argument in node.args]
        return node


def _tells(called: ast.expr) -> bool:
    """Whether what is called takes a message."""
    if isinstance(called, ast.Attribute):
        logged = isinstance(called.value, ast.Name) and called.value.id == "_log"
        return logged or called.attr == "_refusal"
    return isinstance(called, ast.Name) and (
        called.id.endswith("Error") or called.id in {"_note", "_refused", "error_of"}
    )


def _blank(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ast.Constant("")
    if isinstance(node, ast.JoinedStr):
        kept = [value for value in node.values if not isinstance(value, ast.Constant)]
        return ast.JoinedStr(kept)
    return node


def _stripped(
    function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str], readable: str
) -> list[str]:
    own = [line.strip() for line in lines[function.lineno - 1 : function.end_lineno]]
    own[0] = own[0].replace(function.name, readable.rpartition(".")[2])
    return own


def _differing(before: list[str], after: list[str]) -> tuple[str, str]:
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    differing = [block for block in blocks if block[0] != "equal"]
    return (
        " ".join(line for _, start, end, _, _ in differing for line in before[start:end]),
        " ".join(line for _, _, _, start, end in differing for line in after[start:end]),
    )


def _readable(mangled: str) -> str:
    if _CLASS_MARK in mangled:
        _, owner, name = mangled.split(_CLASS_MARK)
        return f"{owner}.{name}"
    return mangled.removeprefix("x_")
