"""Starting: the import, and with it the first call, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from statistics import median

from benchmarks.contracts import Figure, Values
from benchmarks.machine import ROOT
from benchmarks.setting import Setting
from benchmarks.subjects import SUBJECTS

FIGURES = (
    Figure("import", "the import", "ms"),
    Figure("import_modules", "the same, loaded", "modules"),
    Figure("import_size", "the same, memory of the process", "MB", 1),
    Figure("cold", "the import and the first call", "ms"),
    Figure("cold_modules", "the same, loaded", "modules"),
    Figure("cold_size", "the same, memory of the process", "MB", 1),
)


async def measure(setting: Setting) -> Values:
    """The medians of three processes each, after one that may have had modules to compile."""
    values: Values = {}
    for key, url in (("import", ""), ("cold", setting.url())):
        taken = [await _started(setting.name, url) for _ in range(4)][1:]
        values[key] = median(each["ms"] for each in taken)
        values[f"{key}_modules"] = median(each["modules"] for each in taken)
        if "bytes" in taken[0]:
            values[f"{key}_size"] = median(each["bytes"] for each in taken) / 1e6
    return values


async def _started(name: str, url: str) -> Values:
    script = str(ROOT / "benchmarks" / "starting.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", script, SUBJECTS[name].statement, name, url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError((errors.decode().splitlines() or ["it ended without an error"])[-1])
    found: Values = json.loads(printed.splitlines()[-1])
    return found
