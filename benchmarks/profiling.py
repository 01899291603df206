"""Where the time of a call goes: by package, by module of Aether, by function; and what is called.

make profile                       # a call
make profile ARGS=stream           # or paced, tool
make profile ARGS=cold             # the import and the first call, module by module
make profile ARGS="call --subject floor --samples 3000 --top 60"    # of asyncio and json alone

The times are samples: as often as the system's clock ticks in this process it is noted which
functions are under way. That changes nothing of what is measured, but a share of 1 % is no more
than a hint unless there are some thousand samples. The calls of functions are counted, in a run of
their own: they are exact. What was made at run time, such as the methods of dataclasses, has no
file; it stands together as generated code.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from time import monotonic, process_time
from types import FrameType

from benchmarks import machine
from benchmarks.contracts import Client
from benchmarks.counting import Counted, counted, module_of, package_of
from benchmarks.options import add_cpu, at_least_one
from benchmarks.running import ENVIRONMENT, server
from benchmarks.setting import Setting
from benchmarks.subjects import SUBJECTS
from benchmarks.table import markdown

HERE = ("aether", "floor")
"""Those that are in the environment of this command; each of the others has its own."""
_EVERY_SECONDS = 0.001
"""Of processor time. The system looks at its own clock only, mostly each 4 ms."""
_AT_MOST_SECONDS = 40.0
_WHATS = {"call": "", "stream": "chunks=1000", "paced": "chunks=200,pause=1", "tool": ""}
"""What can be done, and what the server does about it."""
_OUTER = ("asyncio.runners", "asyncio.base_events", "asyncio.events", "<frozen", "benchmarks.")
_IMPORTED = re.compile(r"^import time: +(\d+) \| +(\d+) \| *([\w.]+)$", re.MULTILINE)
_Do = Callable[[], Awaitable[object]]


class Samples:
    """What was under way, each time that it was looked."""

    def __init__(self) -> None:
        self.count = 0
        self.packages: Counter[str] = Counter()
        self.modules: Counter[str] = Counter()
        self.own: Counter[str] = Counter()
        """The functions on top of the stack."""
        self.under_way: Counter[str] = Counter()
        """Those anywhere on it, once for each look, without what runs every call."""

    def look(self, _: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        if frame is None:
            return
        self.count += 1
        top = frame.f_code
        module = module_of(top.co_filename)
        self.packages[package_of(top.co_filename)] += 1
        self.modules[module] += 1
        self.own[f"{module}:{top.co_qualname}"] += 1
        under_way = set()
        at: FrameType | None = frame
        while at is not None:
            under_way.add(f"{module_of(at.f_code.co_filename)}:{at.f_code.co_qualname}")
            at = at.f_back
        self.under_way.update(name for name in under_way if not name.startswith(_OUTER))

    def shares(self, title: str, counts: Counter[str], each: float, top: int) -> str:
        """A table of what was seen most, as parts of so many µs."""
        return _shares(title, counts, self.count, each, top)


async def sampled(do: _Do, count: int) -> tuple[Samples, int, float]:
    """Do it until there are so many samples; they, how often it was done, and its time in µs."""
    samples = Samples()
    before = signal.signal(signal.SIGPROF, samples.look)
    times = 0
    started = process_time()
    signal.setitimer(signal.ITIMER_PROF, _EVERY_SECONDS, _EVERY_SECONDS)
    try:
        ends = monotonic() + _AT_MOST_SECONDS
        while not times or (samples.count < count and monotonic() < ends):
            await do()
            times += 1
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return samples, times, (process_time() - started) * 1e6 / times


def _doing(client: Client, what: str) -> _Do:
    if what in ("stream", "paced"):
        return lambda: client.stream(len)
    return client.tool if what == "tool" else client.call


async def profile(setting: Setting, what: str, count: int, top: int) -> str:
    """The report on one of the things that can be done."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(setting.client(_WHATS[what]))
        do = _doing(client, what)
        for _ in range(3 if what in ("stream", "paced") else 200):
            await do()
        samples, times, each = await sampled(do, count)
        found = await counted(do)
    title = SUBJECTS[setting.name].title
    looked = f"{times:,} times, {each:,.0f} µs of processor time each, {samples.count:,} samples"
    return "\n\n".join(
        [
            f"{title}, {what}: {looked}",
            samples.shares("Own time, by package", samples.packages, each, top),
            samples.shares("Own time, by module", samples.modules, each, top),
            samples.shares("Own time, by function", samples.own, each, top),
            samples.shares("With all that is called from there", samples.under_way, each, top),
            _calls(found, top),
        ]
    )


def _shares(title: str, counts: Counter[str], total: int, each: float, top: int) -> str:
    rows = [[title, "%", "µs"]]
    for name, count in counts.most_common(top):
        share = count / max(1, total)
        rows.append([name, f"{share * 100:.1f}", f"{share * each:,.1f}"])
    return markdown(rows)


def _calls(found: Counted, top: int) -> str:
    python: Counter[str] = Counter()
    for code, count in found.python.items():
        python[module_of(code.co_filename)] += count
    rows = [["Calls of functions in one, by module (exact)", "in Python", "in C, from there"]]
    builtin = found.builtin
    for name, count in python.most_common(top):
        rows.append([name, f"{count:,}", f"{builtin[name]:,}"])
    rows.append(["all modules", f"{found.total:,}", f"{builtin.total():,}"])
    return markdown(rows)


def cold(name: str, url: str, top: int) -> str:
    """The report on the import and the first call: what the loading of each module took."""
    script = str(machine.ROOT / "benchmarks" / "starting.py")
    command = [
        sys.executable,
        "-P",
        "-X",
        "importtime",
        script,
        SUBJECTS[name].statement,
        name,
        url,
    ]
    process: subprocess.CompletedProcess[str] | None = None
    for _ in range(2):  # the first may have modules to compile
        process = subprocess.run(  # noqa: S603 - this interpreter, a script of this package
            command, capture_output=True, text=True, check=True, env=ENVIRONMENT
        )
    lines = _IMPORTED.findall(process.stderr) if process else []
    start = next((n for n, line in enumerate(lines) if line[2] == "site"), -1) + 1
    own: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for self_us, whole_us, module in lines[start:]:
        own[module] += int(self_us)
        packages[module.split(".")[0]] += int(self_us)
        whole[module] += int(whole_us)
    total = own.total()
    return "\n\n".join(
        [
            f"{SUBJECTS[name].title}, cold: {len(own)} modules, {total / 1000:,.0f} ms",
            _shares("Own loading, by package", packages, total, total, top),
            _shares("Own loading, by module", own, total, total, top),
            _shares("With all that is first imported from there", whole, total, total, top),
        ]
    )


def main() -> None:
    """Look, and say what was seen."""
    parser = argparse.ArgumentParser(
        prog="make profile", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="?", default="call", choices=[*_WHATS, "cold"])
    parser.add_argument("--subject", default="aether", choices=HERE)
    parser.add_argument(
        "--samples", type=at_least_one, default=1000, help="how many, from 1 on; 1000 if not said"
    )
    parser.add_argument(
        "--top", type=at_least_one, default=25, help="lines of a table, from 1 on; 25 if not said"
    )
    add_cpu(parser)
    options = parser.parse_args()
    machine.pin(options.cpu if options.cpu >= 0 else None)
    os.environ.update(ENVIRONMENT)
    with server() as origin:
        setting = Setting(options.subject, origin)
        if options.what == "cold":
            report = cold(options.subject, setting.url(), options.top)
        else:
            report = asyncio.run(profile(setting, options.what, options.samples, options.top))
    sys.stdout.write(f"{report}\n")


if __name__ == "__main__":
    main()
