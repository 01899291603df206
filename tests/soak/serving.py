"""The server of a soak, in a process of its own: it answers well, or in one of many ways badly.

python tests/soak/serving.py --seed 7 --share 0.2

It says where it listens, and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where it is run as a script

from aether.testing import FaultServer, faults
from aether.testing.faults import Fault, Item, WireRequest
from aether.testing.wires.contracts import FAILURES
from tests.soak.saying import PLAIN, reply_to

__all__ = ["Misbehaving", "served_apart"]

_REMEMBERED = 1000
"""A `FaultServer` remembers each request: of so many, all but the latest are forgotten."""


class Misbehaving:
    """Answers requests: so many of them, by chance, with a fault."""

    def __init__(self, share: float, seed: int) -> None:
        self._share = share
        self._chance = random.Random(seed)

    def answer(self, request: WireRequest) -> Item:
        """What is answered to one."""
        reply, kind = reply_to(request.body)
        if kind == PLAIN or self._chance.random() >= self._share:
            return reply
        return [reply, self._chance.choice(_KINDS)(self._chance)]


def _refused(chance: random.Random) -> Fault:
    failure = chance.choice(sorted(FAILURES))
    return faults.refuse(failure, retry_after=chance.choice((None, 0, 0.01)))


def _broken_event(events: list[bytes]) -> Sequence[bytes]:
    return [*events[:1], b"data: {\n\n", *events[1:]]


def _only_head(events: list[bytes]) -> Sequence[bytes]:
    return [events[0][: len(events[0]) // 2], *events[1:]]


_KINDS: Sequence[Callable[[random.Random], Fault]] = (
    _refused,
    _refused,
    lambda chance: faults.status(chance.choice((204, 302, 418, 500, 502, 504, 520, 599))),
    lambda _: faults.redirect("http://127.0.0.1:9/elsewhere"),
    lambda _: faults.document(b"<html>Good evening.</html>"),
    lambda _: faults.raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    lambda chance: faults.error_event("overloaded", after=chance.randrange(4)),
    lambda chance: faults.error_event("server", after=chance.randrange(4)),
    lambda chance: faults.cut(events=chance.randrange(6), ending="broken"),
    lambda chance: faults.cut(events=chance.randrange(6), ending="reset"),
    lambda chance: faults.cut(events=chance.randrange(6), ending="whole"),
    lambda chance: faults.cut(body=chance.randrange(400), ending="broken"),
    lambda chance: faults.cut(wire=chance.randrange(400), ending="broken"),
    lambda chance: faults.cut(events=chance.randrange(4), ending="hanging"),
    lambda _: faults.unsettled(),
    lambda _: faults.edit(_broken_event, "broken event"),
    lambda _: faults.edit(_only_head, "half an event"),
    lambda _: faults.reset(),
    lambda _: faults.close(),
    lambda _: faults.hang(),
    lambda _: faults.drop(),
    lambda chance: faults.delay(chance.uniform(0.0, 0.2)),
    lambda chance: faults.split(chance.randint(40, 400)),
    lambda chance: faults.drip(chance.randint(100, 400), seconds=0.002),
    lambda chance: faults.keep_alive(chance.randrange(4), seconds=0.1),
    lambda chance: faults.wrong_length(chance.choice((-20, -1, 1, 20))),
    lambda chance: faults.bomb(200_000, coding=chance.choice(("gzip", "deflate"))),
    lambda _: faults.untold(),
    lambda _: faults.headers(("x-odd", "\udcff"), ("content-language", "en")),
)


@contextmanager
def served_apart(*, share: float, seed: int) -> Iterator[str]:
    """The URL of such a server in a process of its own, as long as the block lasts."""
    command = [sys.executable, __file__, "--share", str(share), "--seed", str(seed)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(60)


async def _serve(share: float, seed: int) -> None:
    misbehaving = Misbehaving(share, seed)

    def answer(request: WireRequest) -> Item:
        if server.count > _REMEMBERED:
            del server.served[: _REMEMBERED // 2]
        return misbehaving.answer(request)

    async with FaultServer(reply=answer, patience=60) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Be the server until the standard input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--share", type=float, default=0.2, help="of answers that go wrong")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    asyncio.run(_serve(given.share, given.seed))


if __name__ == "__main__":
    main()
