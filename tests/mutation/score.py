"""What a run of mutmut has found: the score of each module, and the mutants that no test noticed.

python tests/mutation/score.py            # the table
python tests/mutation/score.py --survivors [part of a module's name]    # and what they change
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SURVIVED = 0
NOT_CHECKED = (None, 33, 34)  # without an exit code; no tests; skipped


def results() -> dict[str, dict[str, int | None]]:
    """For each mutated module the exit code of the tests under each of its mutants."""
    found: dict[str, dict[str, int | None]] = {}
    for meta in sorted((ROOT / "mutants").glob("aether/**/*.py.meta")):
        codes = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        if codes:
            found[meta.relative_to(ROOT / "mutants").as_posix().removesuffix(".meta")] = codes
    return found


def survivors(codes: dict[str, int | None]) -> list[str]:
    """The mutants that no test noticed, those that no test reaches included."""
    return [name for name, code in codes.items() if code == SURVIVED or code in NOT_CHECKED]


def show() -> None:
    """Print the table."""
    mutants = left = 0
    for module, codes in results().items():
        alive = len(survivors(codes))
        mutants, left = mutants + len(codes), left + alive
        print(f"{module:60} {len(codes):5} mutants {alive:4} left  {_score(len(codes), alive)}")
    print(f"{'all':60} {mutants:5} mutants {left:4} left  {_score(mutants, left)}")


def _score(mutants: int, left: int) -> str:
    return f"{100 * (mutants - left) / mutants:.1f} %" if mutants else "-"


if __name__ == "__main__":
    if "--survivors" in sys.argv:
        part = sys.argv[-1] if sys.argv[-1] != "--survivors" else ""
        for module, codes in results().items():
            for name in survivors(codes) if part in module else ():
                command = [str(Path(sys.executable).with_name("mutmut")), "show", name]
                shown = subprocess.run(
                    command, cwd=ROOT, capture_output=True, text=True, check=True
                )
                print(shown.stdout)
    show()
