"""What a run of mutmut has found: how many mutants the tests notice, and which not, and why.

python tests/mutation/score.py            # the table; the status is 1 if one is left without reason
python tests/mutation/score.py --write    # and write it into docs/mutation.md
python tests/mutation/score.py --left [part of a module's name]   # those without, as survivors.toml
"""

from __future__ import annotations

import json
import platform
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # also where it is run as a script

from tests.mutation.mutated import Change, changes  # noqa: E402

PAGE = ROOT / "docs" / "mutation.md"
REASONS = Path(__file__).with_name("survivors.toml")
_MUTANTS = ROOT / "mutants"
_NOTICED = {1, 3, 24, -24, 36, 152, 255}
"""A failing test, an error in pytest, and the ways in which a time limit ends a process."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One of mutmut's mutants, and what became of it."""

    module: str
    change: Change
    code: int | None
    """The status of the tests under it; `None` if it was not tried."""

    @property
    def noticed(self) -> bool:
        return self.code in _NOTICED

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is known by: its number changes whenever the function does."""
        change = self.change
        return self.module, change.function, change.before, change.after


def found() -> Iterator[Mutant]:
    """All mutants of the latest run."""
    for meta in sorted(_MUTANTS.glob("aether/**/*.py.meta")):
        codes = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        if not codes:
            continue
        module = meta.with_suffix("")
        named = changes(module)
        for name, code in codes.items():
            change = named[name.rpartition(".")[2]]
            yield Mutant(module.relative_to(_MUTANTS).as_posix(), change, code)


def reasons() -> dict[str, list[tuple[str, str, str, str]]]:
    """For each reason, the keys of the mutants that may stay for it."""
    told = tomllib.loads(REASONS.read_text(encoding="utf-8"))["reason"]
    return {
        reason["why"]: [
            (of["module"], of["function"], of["before"], of["after"]) for of in reason["mutants"]
        ]
        for reason in told
    }


def left(mutants: Iterable[Mutant]) -> list[Mutant]:
    """Those that were tried and no test noticed, if they change more than words."""
    return [
        mutant
        for mutant in mutants
        if mutant.code is not None and not (mutant.noticed or mutant.change.only_words)
    ]


def unexplained(mutants: Iterable[Mutant]) -> list[Mutant]:
    """Those left for which there is no reason."""
    known = {key for keys in reasons().values() for key in keys}
    return [mutant for mutant in left(mutants) if mutant.key not in known]


def noticed_by_now(mutants: list[Mutant]) -> set[tuple[str, str, str, str]]:
    """The keys that need no reason any more: none of the mutants that share one is left."""
    known = {key for keys in reasons().values() for key in keys}
    noticed = {mutant.key for mutant in mutants if mutant.noticed}
    return known & noticed - {mutant.key for mutant in left(mutants)}


def table(mutants: list[Mutant]) -> str:
    """A line a module, and their sum."""
    lines = [
        "| module | tried | noticed | | left, with a reason | only words | not tried |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    modules = sorted({mutant.module for mutant in mutants})
    lines += [
        _row(f"`{module}`", [mutant for mutant in mutants if mutant.module == module])
        for module in modules
    ]
    return "\n".join([*lines, _row("all", mutants)])


def _row(name: str, mutants: list[Mutant]) -> str:
    judged = [mutant for mutant in mutants if not mutant.change.only_words]
    tried = [mutant for mutant in judged if mutant.code is not None]
    noticed = sum(mutant.noticed for mutant in tried)
    share = f"{100 * noticed / len(tried):.1f} %" if tried else "-"
    explained = len(left(mutants)) - len(unexplained(mutants))
    words, untried = len(mutants) - len(judged), len(judged) - len(tried)
    cells = [name, len(tried), noticed, share, explained, words, untried]
    return f"| {' | '.join(map(str, cells))} |"


def stayed(mutants: list[Mutant]) -> str:
    """The mutants that stay, by their reasons."""
    keys = {mutant.key for mutant in left(mutants)}
    parts = []
    for why, known in reasons().items():
        staying = [key for key in known if key in keys]
        parts.append(f"{why}\n")
        parts += [
            f"- `{module}`, `{function}`: {_code(before)} as {_code(after)}"
            for module, function, before, after in staying
        ]
        parts.append("")
    return "\n".join(parts).strip()


def _code(text: str) -> str:
    return f"`` {text} ``" if text else "nothing"


def write(mutants: list[Mutant]) -> None:
    """Put the figures into the page."""
    today = datetime.now(tz=UTC).date()
    versions = f"{today}, Python {platform.python_version()}, mutmut {version('mutmut')}"
    text = PAGE.read_text(encoding="utf-8")
    for name, figures in {
        "figures": f"{versions}\n\n{table(mutants)}",
        "reasons": stayed(mutants),
    }.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, rest = text.split(start)
        text = f"{before}{start}\n\n{figures}\n\n{end}{rest.split(end)[1]}"
    PAGE.write_text(text, encoding="utf-8")


def as_toml(mutants: Iterable[Mutant]) -> str:
    """To be pasted below a reason."""
    names = "module", "function", "before", "after"
    return "\n".join(
        f"    {{ {', '.join(f'{n} = {_quoted(v)}' for n, v in zip(names, m.key, strict=True))} }},"
        for m in mutants
    )


def _quoted(text: str) -> str:
    return f"'{text}'" if "'" not in text else json.dumps(text, ensure_ascii=False)


def main(arguments: list[str]) -> str | None:
    """What is wrong, if anything is."""
    mutants = list(found())
    if not mutants:
        return "There are no mutants yet: run `make mutants`."
    if arguments[:1] == ["--left"]:
        part = "".join(arguments[1:2])
        print(as_toml(m for m in unexplained(mutants) if part in m.module))
        return None
    print(table(mutants))
    if gone := noticed_by_now(mutants):
        print("\nNoticed by now, so survivors.toml need not have them:")
        print("\n".join(map(str, sorted(gone))))
    if alone := unexplained(mutants):
        return f"\nNo test notices these, and survivors.toml does not say why:\n{as_toml(alone)}"
    if "--write" in arguments:
        write(mutants)
    if untried := sum(mutant.code is None for mutant in mutants):
        return f"{untried} mutants were not tried: run `make mutants` to its end."
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
