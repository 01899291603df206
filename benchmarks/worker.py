"""One library in a process of its own: it takes the measures it is told, and writes what it found.

It runs in the library's environment, so it must import nothing but the standard library.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from typing import Any

from benchmarks.contracts import CannotMeasureError
from benchmarks.measures import function_of
from benchmarks.setting import Setting
from benchmarks.timing import reference_us

AT_MOST_SECONDS = 240.0
"""So long has one measure."""


async def taken(name: str, setting: Setting) -> dict[str, Any]:
    """What a measure found, with the reference around it; or why there is nothing."""
    try:
        measure = function_of(name)
        before = reference_us()
        async with asyncio.timeout(AT_MOST_SECONDS):
            values = await measure(setting)
    except CannotMeasureError as error:
        return {"measure": name, "why_not": str(error)}
    except Exception as error:  # noqa: BLE001 - the others can be taken all the same
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        said = f"{type(cause).__name__}: {cause}".splitlines()[0][:300]
        return {"measure": name, "why_not": said}
    reference = (before + reference_us()) / 2
    return {"measure": name, "values": values, "reference": reference}


async def main() -> None:
    """Take the measures one after another."""
    parser = argparse.ArgumentParser(prog="benchmarks.worker", description=__doc__)
    parser.add_argument("subject")
    parser.add_argument("origin")
    parser.add_argument("measures", nargs="+")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is not taken for an answer
    setting = Setting(options.subject, options.origin, options.scale, options.whole)
    for name in options.measures:
        answers.write(json.dumps(await taken(name, setting)) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)  # some libraries leave threads behind
