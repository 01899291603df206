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
from benchmarks.options import add_options, measures_told
from benchmarks.running import Plan, run
from benchmarks.table import bench_table, notes


def circumstances(command: str, arguments: list[str]) -> str:
    """When, on which machine, and how the figures below came about."""
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    said = shlex.join(
        each for each in arguments if each != "--write" and not each.startswith("--environments=")
    )
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
    add_options(parser, list(MEASURES))
    parser.add_argument("--whole", action="store_true", help="all of what is done in part else")
    options = parser.parse_intermixed_args()
    names = measures_told(parser, options, list(MEASURES))
    machine.pin(options.cpu if options.cpu >= 0 else None)
    pythons = {"aether": sys.executable, "floor": sys.executable}
    plan = Plan(pythons, names, options.rounds, options.scale, options.whole)
    started = time.monotonic()
    found = run(plan, tell)
    figures = [figure for name in names for figure in figures_of(name, options.scale)]
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
