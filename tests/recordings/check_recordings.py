"""Read recorded exchanges with providers through Aether's adapters, over real sockets.

    .venv/bin/python tests/recordings/check_recordings.py FOLDER [--only SUBSTRING] [-v]

FOLDER has one JSON file for each exchange, at any depth, named after the case:

    provider   the server: a row of Aether's vendors, or any other name for a bare base URL
    protocol   openai.chat, openai.responses, anthropic.messages or gemini.generate; the cases of
               any other are left aside, and counted
    model      what is asked for
    request    {body}: what was sent; of it, the results of tools are used
    response   {status, headers, and one of sse: the text of an event stream, body: JSON, text}
    expect     what a right reader gets: ok, text (what is to be shown), reasoning_text, refusal,
               tool_calls [{id, name, arguments}; arguments are null where they were cut off],
               finish_raw, model, usage {input, output, cache_read, cache_write, reasoning,
               total_reported} with all caches in the input and reasoning in the output,
               usage_raw (the server's own object), error {type, code, message}

and may have an `index.json`, whose `sessions` [{cases: [names]}] are turns of one conversation.

Every answer is read whole, in pieces of 1 to 7 bytes: written so on a socket to both transports,
and, for more seeds, split so behind one. Streams are read again with comments and other line ends;
cut, ended early and with an error inside, where an error or the right answer may come, but never
another one. What was read then goes back, and the request that carries it is held to what the
protocol requires of it. `comparing`, `judging` and `state` have the rules.

It prints a line for each failing case, and a summary. It exits with 1 if any failed or none was
found.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # Python puts the script's own folder there

from tests.recordings.cases import Folder
from tests.recordings.checking import Check, Options
from tests.recordings.reading import PROTOCOLS
from tests.recordings.serving import Server

MAX_SHOWN = 3


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Read recorded exchanges through the adapters.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="cases whose name or protocol contains this")
    parser.add_argument("--piece", type=int, default=7, help="the biggest piece, in bytes")
    parser.add_argument("--seeds", type=int, default=8, help="splits of each stream")
    parser.add_argument("--jobs", type=int, default=16, help="readings at a time")
    parser.add_argument("-v", "--verbose", action="store_true", help="every failing reading")
    options = parser.parse_args(arguments)
    folder = Folder.read(options.folder, options.only)
    if not folder.cases:
        say(f"No case in {options.folder} contains {options.only!r}.")
        return 1
    began = time.monotonic()
    check = asyncio.run(run(folder, Options(options.piece, options.seeds, options.jobs)))
    report(check, time.monotonic() - began, verbose=options.verbose)
    return 1 if check.faults or check.missing else 0


async def run(folder: Folder, options: Options) -> Check:
    async with Server() as server:
        check = Check(folder, options, server)
        await check.run()
    return check


def report(check: Check, seconds: float, *, verbose: bool) -> None:
    cases = check.folder.cases
    for name in sorted(check.faults):
        ways = check.faults[name]
        lines = [f"{how}: {'; '.join(faults)}" for how, faults in ways.items()]
        if verbose:
            say(f"FAILED {name} ({cases[name].protocol})")
            for line in lines:
                say(f"    {line}")
            continue
        distinct = {"; ".join(faults): how for how, faults in reversed(ways.items())}
        shown = [f"{how}: {fault}" for fault, how in reversed(distinct.items())]
        more = f" (of {len(lines)} readings)" if len(lines) > 1 else ""
        say(f"FAILED {name} ({cases[name].protocol}): {' | '.join(shown[:MAX_SHOWN])}{more}")
    for why, unread in sorted(check.missing.items()):
        say(f"FAILED {len(unread)} cases: {why}")
    counted = Counter(case.protocol for case in cases.values())
    failed = Counter(cases[name].protocol for name in check.faults)
    failed.update(case.protocol for unread in check.missing.values() for case in unread)
    protocols = ", ".join(
        f"{protocol} {counted[protocol]} ({failed[protocol]} failed)"
        for protocol in PROTOCOLS
        if counted[protocol]
    )
    aside = ", ".join(f"{p} {n}" for p, n in sorted(counted.items()) if p not in PROTOCOLS)
    say(
        f"{len(cases)} cases: {protocols or 'none of a known protocol'}"
        + (f"; left aside: {aside}" if aside else "")
        + f"; {len(check.folder.sessions)} sessions; {check.readings} readings, "
        f"{sum(map(len, check.faults.values()))} of them failed, in {seconds:.0f} s"
    )


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    os.environ["NO_PROXY"] = "127.0.0.1"
    sys.exit(main())
