"""What Aether costs, in one table.

make bench                                       # all measures, in about four minutes
make bench ARGS="call chunk --rounds 9"          # some of them, more often
make bench ARGS="memory --whole"                 # 100,000 calls
make bench ARGS=--write                          # put the table into docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import shlex
import sys
import time

from benchmarks import machine, page
from benchmarks.measures import MEASURES, figures_of
from benchmarks.running import Plan, run
from benchmarks.table import bench_table, notes


def add_options(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """What both commands are told."""
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"how often; {rounds} if not said"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="how much is done: 0.1 for a tenth"
    )
    parser.add_argument("--cpu", type=int, default=last_cpu(), help="where all runs; -1: anywhere")
    parser.add_argument("--raw", action="store_true", help="do not scale times by the reference")
    parser.add_argument("--write", action="store_true", help=f"write into docs/{page.PAGE.name}")


def last_cpu() -> int:
    """The last CPU that this process may use: systems tend to put their own work on the first."""
    if sys.platform != "linux":
        return -1
    import os

    return max(os.sched_getaffinity(0))


def circumstances(command: str, arguments: list[str]) -> str:
    """When, on which machine, and how the figures below came about."""
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    said = shlex.join(each for each in arguments if each != "--write")
    told = f' ARGS="{said}"' if said else ""
    return f"{today}; {machine.described()}; `{command}{told}`"


def tell(line: str) -> None:
    """Say what is under way."""
    sys.stderr.write(f"{line}\n")


def main() -> None:
    """Measure, and say what was found."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("measures", nargs="*", metavar="measure", help=", ".join(MEASURES))
    parser.add_argument("--whole", action="store_true", help="all of what is done in part else")
    add_options(parser, rounds=5)
    options = parser.parse_args()
    names = options.measures or list(MEASURES)
    if unknown := [name for name in names if name not in MEASURES]:
        parser.error(f"no measure is called {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    machine.pin(options.cpu if options.cpu >= 0 else None)
    pythons = {"aether": sys.executable, "floor": sys.executable}
    plan = Plan(pythons, names, options.rounds, options.scale, options.whole)
    started = time.monotonic()
    found = run(plan, tell)
    figures = [figure for name in names for figure in figures_of(name)]
    version = importlib.metadata.version("aether-framework")
    report = "\n\n".join(
        [
            f"Aether {version}; {circumstances('make bench', sys.argv[1:])}",
            bench_table(found, figures, is_raw=options.raw),
            notes(found, scale=options.scale, is_raw=options.raw),
        ]
    )
    sys.stdout.write(f"{report}\n")
    tell(f"{time.monotonic() - started:.0f} s")
    if options.write:
        page.write("figures", report)


if __name__ == "__main__":
    main()
