"""What is said of the mutants that no test notices: of which words, and whether it is still so."""

from __future__ import annotations

import ast

import pytest

from tests.mutation.mutated import Change, only_words
from tests.mutation.score import ROOT, Mutant, noticed_by_now, reasons

KEYS = [key for keys in reasons().values() for key in keys]


def of_words(before: str, after: str) -> bool:
    return only_words(*(ast.parse(f"def f(a, b):\n    {line}").body[0] for line in (before, after)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('raise ToolError("no")', 'raise ToolError("XXnoXX")'),
        ('raise ToolError(f"no {a}" " at all")', 'raise ToolError(f"no {a}" " AT ALL")'),
        ('return a.b(CircuitOpenError("no", a))', 'return a.b(CircuitOpenError("NO", a))'),
        ('_log.info("is %s", a)', '_log.info("IS %s", a)'),
        ('raise _refused("no") from None', 'raise _refused("No") from None'),
        ('_note(a, "why")', '_note(a, "WHY")'),
        ('raise error_of(ToolError, "no", a)', 'raise error_of(ToolError, "NO", a)'),
    ],
)
def test_letters_of_a_message_are_only_words(before: str, after: str) -> None:
    assert of_words(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('raise ToolError("no")', "raise ToolError(None)"),
        ('raise ToolError("no", a)', 'raise ToolError("no")'),
        ('raise error_of(ToolError, "no", a)', 'raise error_of(None, "no", a)'),
        ('raise ToolError("no") from a', 'raise ToolError("XXnoXX") from b'),
        ('raise ToolError(f"no {a}")', 'raise ToolError(f"no {b}")'),
        ('raise ToolError("no", kind="cut")', 'raise ToolError("no", kind="CUT")'),
        ("raise ToolError(f\"{a['id']}\")", "raise ToolError(f\"{a['ID']}\")"),
        ('raise ToolError(a.get("id"))', 'raise ToolError(a.get("ID"))'),
        ('raise _refused("a" if a else "b")', 'raise _refused("a" if b else "b")'),
        ('return a.get("retry-after")', 'return a.get("RETRY-AFTER")'),
        ('a["error"] = b', 'a["ERROR"] = b'),
        ('return "shown"', 'return "SHOWN"'),
        ('a.info("told")', 'a.info("TOLD")'),
    ],
)
def test_all_else_is_more_than_words(before: str, after: str) -> None:
    assert not of_words(before, after)


def test_a_default_is_more_than_words() -> None:
    before, after = (
        ast.parse(f"def f(a={text!r}):\n    raise ToolError(a)") for text in ("a", "A")
    )
    assert not only_words(before.body[0], after.body[0])


def test_each_mutant_has_one_reason() -> None:
    assert len(set(KEYS)) == len(KEYS)


@pytest.mark.parametrize(
    "key", KEYS, ids=[f"{key[0]}-{key[1]}-{number}" for number, key in enumerate(KEYS)]
)
def test_what_a_reason_excuses_is_still_in_the_code(key: tuple[str, str, str, str]) -> None:
    module, function, before, after = key
    text = (ROOT / module).read_text(encoding="utf-8")
    sources = [
        " ".join(line.strip() for line in (ast.get_source_segment(text, node) or "").splitlines())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name == function.rpartition(".")[2]
    ]
    assert any(before in source for source in sources), "take it out of survivors.toml"
    assert before != after


def test_a_reason_stays_while_one_of_the_mutants_that_share_its_key_is_left() -> None:
    module, function, before, after = KEYS[0]
    change = Change(function, before, after, only_words=False)
    left, noticed = (Mutant(module, change, code) for code in (0, 1))
    assert noticed_by_now([noticed]) == {KEYS[0]}
    assert noticed_by_now([left, noticed]) == set()
