"""What Aether costs beside other libraries: the same measures, in turns, in one table.

make bench-peers                                        # beside openai
make bench-peers ARGS="--only openai,pydantic_ai,litellm,langchain_openai,openai_agents"
make bench-peers ARGS="call chunk --rounds 9"           # some of the measures, more often
make bench-peers ARGS=--upgrade                         # bring them to their newest versions first
make bench-peers ARGS=--write                           # put the tables into docs/benchmarks.md

Each library is installed into an environment of its own, at the newest version that pip finds, and
stays there. One that cannot be installed, or cannot be measured, is named below the table.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import machine, page
from benchmarks.__main__ import circumstances, tell
from benchmarks.measures import COMPARED, figures_of
from benchmarks.options import add_options, measures_told
from benchmarks.running import ENVIRONMENT, Plan, interpreter, run
from benchmarks.subjects import PEERS, SUBJECTS
from benchmarks.table import notes, peers_table, ratios_table

REFERENCE = "openai"
TARGETS = {
    "call": 0.12,
    "chunk": 0.045,
    "paced": 0.25,
    "tool": 0.13,
    "many": 0.13,
    "cold": 0.65,
    "import": 0.42,
}
"""What Aether may take of what the reference takes, at most."""
_VERSION = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
_PIP_INSTALL = ("-m", "pip", "install", "-q", "--disable-pip-version-check", "--upgrade")
_READY = ".ready"


def installed(folder: Path, name: str, *, upgrade: bool) -> str | None:
    """Install a library into its environment in this folder; say why, if it cannot be done."""
    environment = folder / name
    was_ready = (environment / _READY).exists()
    if was_ready and not upgrade:
        return None
    requirement = SUBJECTS[name].requirement
    if requirement is None:
        return "it is none that is installed"
    tell(f"Installing {requirement} in an environment of its own ...")
    if not was_ready:
        venv.create(environment, with_pip=True, clear=True)
    python = interpreter(environment)
    before = version_in(python, name) if was_ready else ""
    pip = subprocess.run(  # noqa: S603 - an interpreter that was made here
        [python, *_PIP_INSTALL, requirement], capture_output=True, text=True, check=False
    )
    said = pip.stderr.strip().splitlines()
    if pip.returncode:
        why = (said or ["pip gave no reason"])[-1]
        if was_ready:
            tell(f"{name} stays at its version: {why}")
            return None
        shutil.rmtree(environment)
        return why
    (environment / _READY).touch()
    if before:
        tell(upgraded(before, version_in(python, name), said))
    return None


def upgraded(before: str, after: str, said: Sequence[str]) -> str:
    """What came of an upgrade that pip calls a success: it is one without an index, too."""
    if before != after:
        return f"{before} is now {after}"
    why = f"; pip says: {said[0]}" if said else ""
    return f"{after} stays: pip found no newer version, or no index to find one in{why}"


def version_in(python: str, name: str) -> str:
    """A library with its version, as it is told in the tables."""
    described = SUBJECTS[name]
    if described.distribution is None:
        return described.title
    command = [python, "-c", _VERSION, described.distribution]
    process = subprocess.run(  # noqa: S603 - an interpreter that was made here
        command, capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    return f"{described.title} {process.stdout.strip()}"


def prepare(
    folder: Path, names: Sequence[str], install: Callable[[Path, str], str | None]
) -> tuple[dict[str, str], dict[str, str]]:
    """The interpreters of those that are installed, and why the others are not."""
    pythons = {"aether": sys.executable}
    missing = {}
    for name in names:
        if why := install(folder, name):
            missing[name] = why
        else:
            pythons[name] = interpreter(folder / name)
    return {**pythons, "floor": sys.executable}, missing


def main() -> None:
    """Measure, and say what was found."""
    parser = argparse.ArgumentParser(
        prog="make bench-peers", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_options(parser, COMPARED)
    parser.add_argument("--only", default=REFERENCE, help=f"of {','.join(PEERS)}")
    parser.add_argument("--upgrade", action="store_true", help="to the newest versions")
    parser.add_argument(  # the Makefile says where they are
        "--environments", type=Path, required=True, help=argparse.SUPPRESS
    )
    options = parser.parse_intermixed_args()
    names = list(dict.fromkeys(name for name in options.only.split(",") if name))
    if unknown := [name for name in names if name not in PEERS]:
        parser.error(f"no library is called {', '.join(unknown)}; there are {', '.join(PEERS)}")
    measures = measures_told(parser, options, COMPARED)
    folder = options.environments.absolute()
    pythons, missing = prepare(
        folder, names, lambda where, name: installed(where, name, upgrade=options.upgrade)
    )
    machine.pin(options.cpu if options.cpu >= 0 else None)
    started = time.monotonic()
    found = run(Plan(pythons, measures, options.rounds, options.scale), tell)
    figures = [figure for name in measures for figure in figures_of(name, options.scale)]
    versions = ", ".join(version_in(python, name) for name, python in pythons.items())
    parts = [
        f"{circumstances('make bench-peers', sys.argv[1:])}\n{versions}",
        peers_table(found, figures, TARGETS, reference=REFERENCE, is_raw=options.raw),
    ]
    if REFERENCE in pythons and len(names) > 1:
        parts.append(f"As multiples of {REFERENCE}:")
        parts.append(ratios_table(found, figures, reference=REFERENCE, is_raw=options.raw))
    parts.append(
        "\n".join(
            [
                f"- {SUBJECTS[name].title} could not be installed: {why}"
                for name, why in missing.items()
            ]
            + [notes(found, scale=options.scale, is_raw=options.raw)]
        )
    )
    report = "\n\n".join(parts)
    sys.stdout.write(f"{report}\n")
    tell(f"{time.monotonic() - started:.0f} s")
    if options.write:
        page.write("peers", report)


if __name__ == "__main__":
    main()
