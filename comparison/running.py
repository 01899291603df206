"""Running the probes: a server for each, and a process for each library.

It must not know what the outcomes mean.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aether.testing import FaultServer, faults
from aether.testing.faults import Fault, Script, WireRequest
from comparison.peers.contracts import KEY
from comparison.probes import REPLY, Probe, probes

ROOT = Path(__file__).parents[1]
AT_ONCE = 12
"""Probes of one library that run at the same time."""
_ALONE = ("leave", "cancel", "leave one", "read one")
"""What is done with nothing beside it: it switches the garbage collector off, or reads accounts."""
AT_MOST_SECONDS = 120.0
"""So long has one probe."""
# What is not handed on: keys, settings, proxies. What is: nothing may be fetched from elsewhere.
_ENVIRONMENT = {"PATH": os.environ["PATH"], "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


@dataclass
class Outcome:
    """What a library made of a probe, and what its server saw."""

    probe: Probe
    said: Mapping[str, Any]
    requests: int
    arrivals: list[float] = field(default_factory=list)
    """When they came, in seconds."""
    billed: int = 0
    """Tokens."""
    key_went_on: bool = False
    """Whether the target of a redirect was sent the key."""


@dataclass
class Compared:
    """All outcomes of one library."""

    name: str
    version: str
    protocols: list[str]
    outcomes: list[Outcome]


class _Process:
    """A worker, with any number of jobs under way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def hello(self) -> Mapping[str, Any]:
        hello = await self._read()
        if hello is None:
            raise SystemExit("A library could not be started; its error stands above.")
        self._reading = asyncio.create_task(self._read_on())
        return hello

    async def do(self, **job: object) -> Mapping[str, Any]:
        number = len(self._waiting)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        if self._process.stdin is None:
            raise RuntimeError("the worker was started without an input")
        self._process.stdin.write(json.dumps({"id": number, **job}).encode() + b"\n")
        try:
            async with asyncio.timeout(AT_MOST_SECONDS):
                return await self._waiting[number]
        except TimeoutError:
            return {"waiting": True}

    async def end(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _read(self) -> Mapping[str, Any] | None:
        if self._process.stdout is None:
            return None
        line = await self._process.stdout.readline()
        return json.loads(line) if line else None

    async def _read_on(self) -> None:
        while (outcome := await self._read()) is not None:
            waiting = self._waiting[outcome["id"]]
            if not waiting.done():
                waiting.set_result(outcome)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(RuntimeError("a worker has ended before its jobs"))


@asynccontextmanager
async def _started(python: Path, name: str, log: Path) -> AsyncIterator[_Process]:
    with log.open("w") as errors:
        process = await asyncio.create_subprocess_exec(
            str(python),
            "-m",
            "comparison.worker",
            name,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env=_ENVIRONMENT,
        )
    worker = _Process(process)
    try:
        yield worker
    finally:
        await worker.end()


async def compared(environment: Path, name: str) -> Compared:
    """Run every probe of a library that is installed in this environment."""
    async with _started(environment / "bin" / "python", name, environment / "log") as worker:
        hello = await worker.hello()
        at_once = asyncio.Semaphore(AT_ONCE)

        async def one(probe: Probe) -> Outcome:
            async with at_once:
                return await _outcome(worker, probe)

        wanted = [probe for protocol in hello["protocols"] for probe in probes(protocol)]
        counting = [probe for probe in wanted if probe.do in _ALONE]
        rest = [probe for probe in wanted if probe not in counting]
        outcomes = list(await asyncio.gather(*map(one, rest)))
        outcomes += [await _outcome(worker, probe) for probe in counting]
    sys.stderr.write(f"{hello['distribution']} {hello['version']}: {len(outcomes)} probes\n")
    return Compared(name, hello["version"], hello["protocols"], outcomes)


async def _outcome(worker: _Process, probe: Probe) -> Outcome:
    loop = asyncio.get_running_loop()
    arrivals: list[float] = []

    def noting(script: Script) -> Script:
        def tell(request: WireRequest) -> Any:
            arrivals.append(loop.time())
            item = script(request) if callable(script) else script
            if isinstance(item, Fault):
                return [REPLY, item]
            return [REPLY, *item] if isinstance(item, list) else item

        return tell

    async with AsyncExitStack() as stack:
        script, reply = probe.script, probe.reply
        elsewhere = await stack.enter_async_context(FaultServer())
        if probe.group == "redirect":
            reply = _sent_on(elsewhere)
        server = await stack.enter_async_context(
            FaultServer(*map(noting, script), reply=noting(reply))
        )
        said = await worker.do(
            do=probe.do,
            protocol=probe.protocol,
            url=server.base_url(probe.protocol),
            tool=probe.tool,
            calls=probe.calls,
        )
        billed = (server.billed.input_tokens or 0) + (server.billed.output_tokens or 0)
        went_on = any(KEY in str(request.headers) for request in elsewhere.requests)
        return Outcome(probe, said, server.count, arrivals, billed, went_on)


def _sent_on(elsewhere: FaultServer) -> Script:
    return lambda request: faults.redirect(elsewhere.url + request.path)
