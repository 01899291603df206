"""Ten thousand streams at once: nothing is lost, and nothing comes out of another's stream.

The server lets none go on behind its first chunk before all have got theirs, and each says what
only it says.
"""

from __future__ import annotations

import asyncio
from time import process_time

from benchmarks.contracts import PROMPT, CannotMeasureError, Figure, Values
from benchmarks.machine import open_files, resident
from benchmarks.server import marked_text_of
from benchmarks.setting import Setting

STREAMS, CHUNKS = 10_000, 50
_OTHER_FILES = 100
"""So many files a process may need beside its connections."""
_AT_ONCE = 50
"""So many connections are asked for in a row, so that the system's queue of them is not full."""
FIGURES = (
    Figure("crowd", "all at once", "streams"),
    Figure("crowd_wrong", "the same, of which something was lost or crossed", "streams"),
    Figure("crowd_size", "the same, memory for each while all are open", "KiB", 1),
    Figure("crowd_chunk", f"the same, one chunk ({CHUNKS} in each)"),
)


async def measure(setting: Setting) -> Values:
    """How many came, how many of them wrong, and what one took."""
    streams = setting.times(STREAMS)
    if (allowed := open_files(streams + _OTHER_FILES)) < streams + _OTHER_FILES:
        raise CannotMeasureError(
            f"{streams:,} streams need a connection each, and a process may open no more than "
            f"{allowed:,} files here (ulimit -Hn){advice(allowed)}"
        )
    async with setting.client(f"chunks={CHUNKS},together={streams}") as client:
        heard: list[list[str]] = [[] for _ in range(streams)]
        open_streams = 0
        size_of_all = 0

        async def stream(number: int) -> None:
            def hear(text: str) -> None:
                nonlocal open_streams, size_of_all
                if not heard[number]:
                    open_streams += 1
                    if open_streams == streams:
                        size_of_all = resident()
                heard[number].append(text)

            await client.stream(hear, f"{PROMPT} mark={number:05}")

        before = resident()
        started = process_time()
        async with asyncio.TaskGroup() as tasks:
            for number in range(streams):
                tasks.create_task(stream(number))
                if not number % _AT_ONCE:
                    await asyncio.sleep(0.005)
        taken = process_time() - started
    said = ("".join(texts) for texts in heard)
    wrong = sum(text != marked_text_of(CHUNKS, f"{n:05}") for n, text in enumerate(said))
    return {
        "crowd": streams,
        "crowd_wrong": wrong,
        "crowd_size": (size_of_all - before) / streams / 1024,
        "crowd_chunk": taken / (streams * CHUNKS) * 1e6,
    }


def advice(allowed: int) -> str:
    """The largest scale that so many files are enough for, if there is one."""
    thousandths = (allowed - _OTHER_FILES) * 1000 // STREAMS
    return f"; --scale {thousandths / 1000:g} takes fewer" if thousandths > 0 else ""
