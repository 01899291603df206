"""What the commands are told, and what each option allows: anything else ends with a message."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from benchmarks.page import PAGE

ROUNDS = 5


def at_least_one(said: str) -> int:
    """A whole number from 1 on."""
    try:
        number = int(said)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{said!r} is no whole number from 1 on")
    return number


def scale(said: str) -> float:
    """A number above 0."""
    try:
        number = float(said)
    except ValueError:
        number = math.nan
    if not (0 < number < math.inf):
        raise argparse.ArgumentTypeError(
            f"{said!r} is no number above 0, such as 0.1 for a tenth of what is done"
        )
    return number


def cpu(said: str) -> int:
    """A CPU that this process may use, or -1 for any of them."""
    usable = usable_cpus()
    try:
        number = int(said)
    except ValueError:
        number = -2
    if number == -1 or number in usable:
        return number
    may_be = ", ".join([*map(str, usable), "-1 for anywhere"])
    raise argparse.ArgumentTypeError(f"{said!r} cannot be used here; there are {may_be}")


def usable_cpus() -> list[int]:
    """Those that this process may use and be kept on, in order."""
    if sys.platform != "linux":
        return []
    import os

    return sorted(os.sched_getaffinity(0))


def last_cpu() -> int:
    """The last CPU that this process may use: systems tend to put their own work on the first."""
    return max(usable_cpus(), default=-1)


def add_cpu(parser: argparse.ArgumentParser) -> None:
    """Where all runs."""
    parser.add_argument(
        "--cpu", type=cpu, default=last_cpu(), help="the CPU where all runs; -1: anywhere"
    )


def add_options(parser: argparse.ArgumentParser, measures: Sequence[str]) -> None:
    """What the commands that print a table are told."""
    parser.add_argument("measures", nargs="*", metavar="measure", help=", ".join(measures))
    parser.add_argument(
        "--rounds",
        type=at_least_one,
        default=ROUNDS,
        help=f"how often, from 1 on; {ROUNDS} if not said",
    )
    parser.add_argument(
        "--scale", type=scale, default=1.0, help="how much is done: 0.1 for a tenth"
    )
    add_cpu(parser)
    parser.add_argument("--raw", action="store_true", help="do not scale times by the reference")
    parser.add_argument(
        "--write",
        action="store_true",
        help=f"write into docs/{PAGE.name}; needs all measures, --scale 1 and no --raw",
    )


def measures_told(
    parser: argparse.ArgumentParser, options: argparse.Namespace, measures: Sequence[str]
) -> list[str]:
    """The measures to take, each once; ends with a message if one is unknown, or not for the page.

    A table of the page holds all of them, with nothing left out of what they do.
    """
    names = list(dict.fromkeys(options.measures or measures))
    if unknown := [name for name in names if name not in measures]:
        parser.error(f"no measure is called {', '.join(unknown)}; there are {', '.join(measures)}")
    if options.write:
        reasons = {
            "some measures": len(names) < len(measures),
            f"--scale {options.scale:g}": options.scale != 1,
            "--raw": options.raw,
        }
        if said := [reason for reason, is_so in reasons.items() if is_so]:
            parser.error(
                f"--write replaces the whole table in docs/{PAGE.name}, so it needs all measures, "
                f"--scale 1 and no --raw; this is a run with {' and '.join(said)}"
            )
    return names
