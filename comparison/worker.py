"""One library in a process of its own: it reads jobs as lines of JSON, and writes what came of it.

It must not know what a server does to the calls, nor what is expected of them.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.metadata
import json
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from comparison.peers.contracts import Caller, Peer, Said

AT_MOST_SECONDS = 30.0
"""So long has one call; after that it is said to be still waiting."""
STREAMS = 50
"""So many are left one after another when the sockets are counted."""
TICK_SECONDS = 0.01
"""So long has a library to close its sockets, and a turn of the loop."""

Outcome = dict[str, Any]


class Worker:
    """Runs jobs of one library at once."""

    def __init__(self, peer: Peer, say: Callable[[Outcome], None]) -> None:
        self._peer = peer
        self._say = say
        self._jobs: dict[str, Callable[[Caller, dict[str, Any]], Awaitable[Outcome]]] = {
            "ask": self._ask,
            "stream": self._stream,
            "ask many": self._ask_many,
            "leave": self._leave,
            "leave one": self._leave_one,
            "read one": self._read_one,
            "cancel": self._cancel,
        }

    async def run(self, job: dict[str, Any]) -> None:
        caller = self._peer.caller(job["protocol"], job["url"])
        try:
            outcome = await self._jobs[job["do"]](caller, job)
        except Exception as error:  # noqa: BLE001 - the other jobs go on
            outcome = {"failed": repr(error)}
        finally:
            with suppress(Exception):
                await caller.close()
        self._say({"id": job["id"], **outcome})

    async def _ask(self, caller: Caller, _: dict[str, Any]) -> Outcome:
        return await self._outcome(caller.ask())

    async def _stream(self, caller: Caller, job: dict[str, Any]) -> Outcome:
        return await self._outcome(caller.stream(_go_on, tool=job.get("tool", False)))

    async def _ask_many(self, caller: Caller, job: dict[str, Any]) -> Outcome:
        """So many calls, ten at a time."""
        ten = asyncio.Semaphore(10)

        async def one() -> Outcome:
            async with ten:
                return await self._outcome(caller.ask())

        outcomes = await asyncio.gather(*(one() for _ in range(job["calls"])))
        return {"outcomes": outcomes}

    async def _leave(self, caller: Caller, job: dict[str, Any]) -> Outcome:
        """The sockets that are open after streams were left with `break`."""
        return await self._sockets(job, lambda: caller.stream(_leave_now))

    async def _cancel(self, caller: Caller, job: dict[str, Any]) -> Outcome:
        """The same after the tasks that read them were cancelled."""

        async def one() -> None:
            heard = asyncio.Event()

            def go_on(_: str) -> bool:
                heard.set()
                return False

            task = asyncio.create_task(caller.stream(go_on))
            await heard.wait()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

        return await self._sockets(job, one)

    async def _sockets(self, job: dict[str, Any], one: Callable[[], Awaitable[object]]) -> Outcome:
        gc.collect()
        gc.disable()
        try:
            for _ in range(STREAMS):
                await one()
            await tick()
            left = connections(job["url"])
        finally:
            gc.enable()
        gc.collect()
        await tick()
        return {"left": left, "left after gc": connections(job["url"])}

    async def _leave_one(self, caller: Caller, _: dict[str, Any]) -> Outcome:
        """The tokens in the accounts after a stream was left."""
        await caller.stream(_leave_now)
        return await self._tokens(caller)

    async def _read_one(self, caller: Caller, _: dict[str, Any]) -> Outcome:
        """The same after one was read to its end."""
        await caller.stream(_go_on)
        return await self._tokens(caller)

    async def _tokens(self, caller: Caller) -> Outcome:
        await asyncio.sleep(0.5)  # accounts may be kept in the background
        return {"tokens": caller.tokens()}

    async def _outcome(self, call: Awaitable[Said]) -> Outcome:
        limit = asyncio.timeout(AT_MOST_SECONDS)
        try:
            async with limit:
                said = await call
        except Exception as error:  # noqa: BLE001 - which errors come is what is asked
            if limit.expired():
                return {"waiting": True}
            kind = type(error)
            return {
                "error": f"{kind.__module__}.{kind.__qualname__}",
                "typed": isinstance(error, self._peer.ERRORS),
                "message": str(error)[:200],
            }
        return {"text": said.text, "finish": said.finish}


def _go_on(_: str) -> bool:
    return False


def _leave_now(_: str) -> bool:
    return True


async def tick() -> None:
    """Let a library close what it wants to close."""
    await asyncio.sleep(0)
    await asyncio.sleep(TICK_SECONDS)


def connections(url: str) -> int:
    """The sockets of this process that are connected to the server."""
    port = int(url.split("//")[1].split("/", maxsplit=1)[0].rpartition(":")[2])
    return sum(_port_of_peer(number) == port for number in range(3, 4096))


def _port_of_peer(number: int) -> int | None:
    try:
        copy = os.dup(number)
    except OSError:
        return None
    try:
        with socket.socket(fileno=copy) as found:
            return int(found.getpeername()[1])
    except (OSError, IndexError, TypeError):
        with suppress(OSError):
            os.close(copy)
        return None


async def main(name: str) -> None:
    """Serve jobs until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is not taken for an answer
    logging.disable()

    def say(outcome: Outcome) -> None:
        answers.write(json.dumps(outcome) + "\n")

    peer: Any = importlib.import_module(f"comparison.peers.{name}")
    version = importlib.metadata.version(peer.DISTRIBUTION)
    say({"distribution": peer.DISTRIBUTION, "version": version, "protocols": peer.PROTOCOLS})
    worker = Worker(peer, say)
    loop = asyncio.get_running_loop()
    jobs: set[asyncio.Task[None]] = set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        job = asyncio.create_task(worker.run(json.loads(line)))
        jobs.add(job)
        job.add_done_callback(jobs.discard)
    await asyncio.gather(*jobs)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
