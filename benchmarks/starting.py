"""A process that has done nothing yet imports a library, asks once if it is told where, and ends.

As a script: the import statement, the name of the subject, the URL or nothing. It runs in each
library's environment, and prints what it took. Whatever is imported here is loaded before the clock
starts, so it is next to nothing.
"""

import sys
from time import process_time


def main(statement: str, name: str, url: str) -> None:
    """Print the processor time in ms, the modules that were loaded, and the memory in bytes."""
    before = len(sys.modules)
    started = process_time()
    exec(statement, {})  # noqa: S102 - one of the table of subjects
    if url:
        _ask(name, url)
    taken = (process_time() - started) * 1e3
    loaded = len(sys.modules) - before

    import json
    import os
    from pathlib import Path

    found = {"ms": taken, "modules": loaded}
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        found["bytes"] = pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass  # there is no such file on this system
    sys.stdout.write("\n" + json.dumps(found) + "\n")
    sys.stdout.flush()
    os._exit(0)  # some libraries leave threads behind


def _ask(name: str, url: str) -> None:
    import asyncio
    import importlib

    subject = importlib.import_module(f"benchmarks.subjects.{name}")

    async def ask() -> str:
        client = subject.client(url)
        text: str = await client.call()
        await client.close()
        return text

    if "42" not in (text := asyncio.run(ask())):
        raise RuntimeError(f"a wrong answer: {text!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
