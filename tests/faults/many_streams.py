"""Many streams at once, from a server in a process of its own: nothing lost, doubled or mixed up.

python tests/faults/many_streams.py                        # 10,000 streams of 50 chunks
python tests/faults/many_streams.py --faults 0.2           # every fifth goes wrong
python tests/faults/many_streams.py --left 1000            # left in the middle, four ways
python tests/faults/many_streams.py --transport httpx --streams 1000

Each stream says what only it says, and no answer begins before all have been asked for. A process
needs a file for each: see `ulimit -n`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import resource
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # where it is run as a script

from aether import Aether, ProviderConfig  # noqa: E402
from aether.errors import AetherError, StreamInterruptedError  # noqa: E402
from aether.extensions.llm.factory import build_provider  # noqa: E402
from aether.extensions.llm.retrying import RetryingProvider  # noqa: E402
from aether.http.contracts import Timeout  # noqa: E402
from aether.registry import default_registry  # noqa: E402
from aether.testing import FaultServer, faults  # noqa: E402
from aether.testing.faults import Answer, Ending, Item, WireRequest  # noqa: E402
from aether.testing.wires.contracts import server_sent_event  # noqa: E402
from tests.faults.exchanges import sockets  # noqa: E402

STREAM = {"content-type": "text/event-stream"}


def piece_of(name: str, number: int) -> str:
    """What the stream of that name says in its chunk of that number, and no other ever does."""
    return f"<{name}:{number}:{zlib.crc32(f'{name}.{number}'.encode()):08x}>"


def text_of(name: str, chunks: int) -> str:
    """All that it says."""
    return "".join(piece_of(name, number) for number in range(chunks))


class Crowd:
    """Answers many: none before so many were asked for, and then each with its own stream."""

    def __init__(self, streams: int, chunks: int, share: float = 0.0, seed: int = 7) -> None:
        self._streams = streams
        self._chunks = chunks
        self._share = share
        self._chance = random.Random(seed)
        self._asked = 0
        self._all_here = asyncio.Event()

    async def answer(self, request: WireRequest) -> Item:
        """The answer to one, which says its name as its prompt."""
        self._asked += 1
        if self._asked >= self._streams:
            self._all_here.set()
        name: str = request.json["messages"][-1]["content"]
        if self._chance.random() < self._share:
            return self._fault(name)
        await self._all_here.wait()
        return Answer(self._events(name), headers=STREAM)

    def _fault(self, name: str) -> Item:
        kind = self._chance.randrange(6)
        if kind == 0:
            return faults.reset()
        if kind == 1:
            return faults.refuse("overloaded")
        events = self._events(name)
        count = self._chance.randrange(len(events) - 2)
        if kind == 2:
            return Answer([*events[:count], b"data: {\n\n", *events[count:]], headers=STREAM)
        endings: tuple[Ending, ...] = ("whole", "broken", "reset")
        return Answer(events, headers=STREAM, first_pieces=count, ending=endings[kind - 3])

    def _events(self, name: str) -> list[bytes]:
        said = [piece_of(name, number) for number in range(self._chunks)]
        deltas = [({"content": piece}, None) for piece in said]
        choices = [
            {"index": 0, "delta": delta, "finish_reason": reason}
            for delta, reason in [*deltas, ({}, "stop")]
        ]
        events = [server_sent_event({"choices": [choice]}) for choice in choices]
        return [*events, b"data: [DONE]\n\n"]


@dataclass
class Tally:
    """How the streams ended."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """What was lost, doubled or another's."""
    sockets: int = 0
    """Those that were left open."""


@asynccontextmanager
async def client_of(url: str, transport: str, *, attempts: int = 1) -> AsyncIterator[Aether]:
    """A client of that server that waits for nothing between its attempts."""
    config = ProviderConfig(
        "openai",
        model="m",
        api_key="sk-of-many",
        base_url=f"{url}/v1",
        transport=transport,
        timeout=Timeout(connect=300, read=300),
        options={"api": "chat"},
    )
    _, adapter = build_provider(config, default_registry)
    async with Aether(RetryingProvider(adapter, max_attempts=attempts, base_delay=0.0)) as client:
        yield client


async def ask_all(
    url: str, streams: int, chunks: int, *, transport: str = "aiohttp", attempts: int = 1
) -> Tally:
    """Read so many streams at once, and compare what each said with what it was to say."""
    tally = Tally()
    before = sockets()

    async def ask(client: Aether, name: str) -> None:
        whole, got = text_of(name, chunks), ""
        try:
            async with client.stream_text(name) as texts:
                async for text in texts:
                    got += text
        except AetherError as error:
            tally.ends[type(error).__name__] += 1
            if not whole.startswith(got):
                tally.wrong.append(f"{name}: {got[-80:]!r}")
            partial = getattr(error, "partial", None)
            if isinstance(error, StreamInterruptedError) and partial and partial.text != got:
                tally.wrong.append(f"{name}: the error has {partial.text[-80:]!r}")
        else:
            tally.ends["answer"] += 1
            if got != whole:
                tally.wrong.append(f"{name}: {got[-80:]!r}")

    async with client_of(url, transport, attempts=attempts) as client:
        await asyncio.gather(*(ask(client, f"s{number}") for number in range(streams)))
        tally.ends["ledger entries"] = len(client.usage.ledger)
    await asyncio.sleep(0.01)
    tally.sockets = sockets() - before
    return tally


async def leave_all(url: str, streams: int, *, transport: str = "aiohttp") -> Tally:
    """Leave so many streams after their first text: by break, error, cancellation, and twice."""
    tally = Tally()
    before = sockets()

    async def leave(client: Aether, number: int) -> None:
        reading = asyncio.Event()

        async def read() -> None:
            async for _ in client.stream_text(f"s{number}"):
                reading.set()
                if number % 4 == 0:
                    break
                if number % 4 == 1:
                    raise ZeroDivisionError

        task = asyncio.ensure_future(read())
        await reading.wait()
        if number % 4 >= 2:
            task.cancel()
            await asyncio.sleep(0)
        if number % 4 == 3:
            task.cancel()
        await asyncio.wait([task])
        tally.ends[("break", "error", "cancelled", "cancelled twice")[number % 4]] += 1
        kept.append(task)  # and with it its frames, if it failed

    kept: list[asyncio.Task[None]] = []
    gc.disable()
    try:
        async with client_of(url, transport) as client:
            for start in range(0, streams, 100):
                numbers = range(start, min(start + 100, streams))
                await asyncio.gather(*(leave(client, number) for number in numbers))
            await asyncio.sleep(0.01)
            tally.sockets = sockets() - before
    finally:
        gc.enable()
        for task in kept:
            _ = task.cancelled() or task.exception()
    return tally


async def serve(streams: int, chunks: int, share: float, *, endless: bool) -> None:
    """Be the server until the standard input ends."""
    crowd = Crowd(streams, chunks, share)

    def hanging(_: WireRequest) -> Item:
        return faults.cut(events=2, ending="hanging")

    async with FaultServer(reply=hanging if endless else crowd.answer, patience=600) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


def main() -> int:
    """Start the server, run what was asked for, and tell what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--chunks", type=int, default=50)
    parser.add_argument("--faults", type=float, default=0.0, help="the share that goes wrong")
    parser.add_argument("--left", type=int, default=0, help="leave so many in the middle instead")
    parser.add_argument("--transport", choices=["aiohttp", "httpx"], default="aiohttp")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if given.serve:
        asyncio.run(serve(given.streams, given.chunks, given.faults, endless=given.left > 0))
        return 0
    if max(given.streams, given.left) + 100 > most:
        _say(f"{files} files may be open at once: too few")
        return 1
    command = [sys.executable, __file__, *sys.argv[1:], "--serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        begun, used = time.monotonic(), time.process_time()
        if given.left:
            tally = asyncio.run(leave_all(url, given.left, transport=given.transport))
        else:
            tally = asyncio.run(
                ask_all(
                    url,
                    given.streams,
                    given.chunks,
                    transport=given.transport,
                    attempts=3 if given.faults else 1,
                )
            )
        took, worked = time.monotonic() - begun, time.process_time() - used
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    asked = f"{given.left} streams, each left after its first text"
    _say(asked if given.left else f"{given.streams} streams of {given.chunks} chunks")
    for end, count in sorted(tally.ends.items(), key=_place):
        _say(f"  {count} {_ENDS.get(end, f'ended with {end}')}")
    _say(f"took {took:.1f} s, {worked:.1f} s of them work, and {peak:.0f} MiB at most")
    _say(f"{len(tally.wrong)} lost, doubled or mixed up; {tally.sockets} sockets left open")
    for line in tally.wrong[:5]:
        _say(line)
    return 1 if tally.wrong or tally.sockets else 0


_ENDS = {
    "answer": "ended with the whole answer",
    "ledger entries": "attempts in the ledger",
    "break": "were left by break",
    "error": "were left by an error of their reader",
    "cancelled": "were cancelled",
    "cancelled twice": "were cancelled twice",
}
"""In words, what a `Tally` calls by name; an error is told by its class."""


def _place(end: tuple[str, int]) -> tuple[bool, int]:
    """The most frequent first, and the ledger after all ends."""
    name, count = end
    return name == "ledger entries", -count


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
