"""A server on 127.0.0.1 that speaks the protocols of the providers, and fails as it is told.

It must not know an adapter, nor what is tested.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self, cast

from aether.config import ProviderConfig
from aether.errors import ConfigurationError, InputError
from aether.llm.contracts import TokenUsage
from aether.testing._raw_server import Connection, RawServer
from aether.testing.faults.answers import Answer
from aether.testing.faults.kinds import Fault, Situation
from aether.testing.faults.protocols import parsed, protocol_named, wire_of, written
from aether.testing.faults.served import Served
from aether.testing.wires import Reply, Wire, WireRequest

__all__ = ["HELLO", "FaultServer", "Item", "Script", "turns"]

_Plain = str | Reply | Fault | Sequence[str | Reply | Fault]
Item = _Plain | Answer
"""What one request is answered with: a text; a reply; a fault, or several, of the server's own
reply or of the one that stands beside them; or an answer, byte for byte."""

Script = Item | Callable[[WireRequest], Item | Awaitable[Item]]
"""An item, or what says for each request which."""

HELLO = Reply("Hello there.", usage=TokenUsage(input_tokens=9, output_tokens=3))

_TURNS = 3
"""So often the loop goes round before the next piece is sent: the reader has had its turn."""
_LONGEST_STATUS = 200
"""So many bytes has a status line at most."""
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n")


class FaultServer:
    """A provider's server that goes wrong, for tests of whatever calls one.

        async with FaultServer(faults.refuse("rate_limit", retry_after=0), "Hello.") as server:
            async with Aether(config=server.config("openai")) as client:
                assert await client.ask("Hi") == "Hello."
        assert server.count == 2

    It answers each request, in the order in which they come, with the next item of its script, and
    when the script has come to its end with `reply`. An item is a text or a `Reply`; a fault of
    `aether.testing.faults`, which changes `reply`; a list of these, of which the faults are applied
    in their order to the text or `Reply` among them; an `Answer`, byte for byte; or a function of
    the request, `async` or not, that returns one of them. What is none of these is an `InputError`.

    The same script works for each protocol: the path of the request tells which is spoken (Chat
    Completions, Responses, Messages, `generateContent`), unless `wire` says it. What counts events
    (`cut(events=)`, `after`) counts those of the protocol; `cut(texts=)` cuts alike in each. Any
    client can be pointed at `base_url(protocol)`, with any key.

    An exception of a function of the script ends its connection without an answer, and is raised
    when the `async with` ends; to an error that ends it, it is added as a note. A request for a
    path that no protocol has is answered with a 404, unless its item is an `Answer`, and an
    `InputError` that names the path is raised, or added, in the same way.

    `served` has what was done with each request and what it would be billed. Everything is closed
    at once when the `async with` ends, with whoever still waits for an answer. `patience` is in
    seconds: so long do the methods wait that wait, and so long waits a client of `config()`.
    """

    def __init__(
        self,
        *script: Script,
        reply: Script | None = None,
        wire: Wire | None = None,
        patience: float = 5.0,
    ) -> None:
        self._script: deque[Script] = deque(map(_checked, script))
        self._wire = wire
        self._patience = patience
        self._raw = RawServer(self._serve)
        self.reply: Script = HELLO if reply is None else _checked(reply)
        """What is answered when the script is at its end."""
        self.served: list[Served] = []
        """What was done with each request so far, in the order in which they came."""
        self._answering = 0
        self._hanging = 0
        self._failures: list[Exception] = []
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens, without a path.

        A `ConfigurationError` before its `async with` has begun: until then it has no address.
        """
        if not self._raw.port:
            raise ConfigurationError(
                "The FaultServer is not started yet: it has an address inside its `async with`."
            )
        return self._raw.url

    @property
    def count(self) -> int:
        """The requests so far."""
        return len(self.served)

    @property
    def requests(self) -> list[WireRequest]:
        """What was asked so far."""
        return [each.request for each in self.served]

    @property
    def accepted(self) -> int:
        """Connections that were made so far."""
        return self._raw.accepted

    @property
    def open_connections(self) -> int:
        """Connections that neither side has closed."""
        return self._raw.open

    @property
    def billed(self) -> TokenUsage:
        """The sum of what a provider would bill for the requests so far."""
        return TokenUsage(
            requests=sum(each.billed for each in self.served),
            input_tokens=sum(each.input_tokens for each in self.served),
            output_tokens=sum(each.output_tokens for each in self.served),
            cache_read_tokens=sum(each.cache_read_tokens for each in self.served),
            cache_write_tokens=sum(each.cache_write_tokens for each in self.served),
            reasoning_tokens=sum(each.reasoning_tokens for each in self.served),
        )

    def base_url(self, protocol: str) -> str:
        """The base URL of a client that speaks `protocol`: `openai`, `openai.responses`,
        `anthropic` or `gemini`. A `ConfigurationError` if it is another, or before the start.
        """
        spoken = protocol_named(protocol)
        return self.url + spoken.base_path

    def config(self, protocol: str = "openai", **fields: Any) -> ProviderConfig:
        """The configuration of an `Aether` client of this server, as `base_url` names it.

        `fields` are those of `ProviderConfig`; without them it has a key and a model of its own,
        and gives up after `patience` seconds.
        """
        options = {**protocol_named(protocol).options, **fields.pop("options", {})}
        fields = {
            "model": "test-model-1",
            "api_key": "sk-canary-of-the-fault-server",
            "timeout": self._patience,
            **fields,
        }
        provider = protocol.partition(".")[0]
        return ProviderConfig(provider, base_url=self.base_url(protocol), options=options, **fields)

    def will(self, *items: Script) -> None:
        """Add to the script."""
        self._script.extend(map(_checked, items))

    async def until_asked(self, count: int = 1) -> None:
        """Return when so many requests have come; `TimeoutError` after `patience`."""
        await self._until(lambda: self.count >= count)

    async def until_hanging(self, count: int = 1) -> None:
        """Return when so many answers have come to hang; `TimeoutError` as above."""
        await self._until(lambda: self._hanging >= count)
        await turns()

    async def until_left(self) -> None:
        """Return when no answer is under way: the peer has left those that hang; `TimeoutError` as
        above. Before the first request none is.
        """
        await self._until(lambda: self._answering == 0)

    async def until_open(self, count: int) -> None:
        """Return when at most `count` connections are open; `TimeoutError` as above."""
        await self._raw.until_open(count, seconds=self._patience)

    async def stop(self) -> None:
        """Close every connection, and take no more."""
        await self._raw.__aexit__()

    async def __aenter__(self) -> Self:
        await self._raw.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        await self.stop()
        if error is None and self._failures:
            raise self._failures[0]
        for failure in self._failures:
            if error is not failure and error is not None:
                error.add_note(f"A FaultServer could not answer: {failure!r}")

    async def _serve(self, connection: Connection) -> None:
        while data := await connection.read_request():
            served = Served(parsed(data))
            self.served.append(served)
            self._answering += 1
            self._changed.set()
            try:
                reusable = await self._answer(connection, served)
            except (ConnectionError, asyncio.CancelledError):
                raise
            except Exception as error:  # noqa: BLE001  # it is the test's, which gets it at the end
                self._failures.append(error)
                served.outcome = "cut"
                return
            finally:
                if served.outcome == "pending":
                    served.outcome = "left"
                self._answering -= 1
                self._changed.set()
            if not reusable:
                return

    async def _answer(self, connection: Connection, served: Served) -> bool:
        """Whether the connection can be used again."""
        if "chunked" in served.request.headers.get("transfer-encoding", ""):
            raise InputError("A FaultServer reads requests that say their content-length alone.")
        script = self._script.popleft() if self._script else self.reply
        made = script(served.request) if callable(script) else script
        item = await made if isinstance(made, Awaitable) else made
        if isinstance(item, Answer):
            return await self._send(connection, item, served, None)
        reply, faults = self._told(item)
        wire = self._wire or wire_of(served.request.path)
        if wire is None:
            return await self._send_nothing_there(connection, served)
        served.faults = tuple(fault.name for fault in faults)
        answer, settled = written(wire, reply, served.request)
        situation = Situation(wire, served.request, reply, settled)
        for fault in faults:
            answer = fault.change(answer, situation)
        ran = all(fault.billed for fault in faults)
        return await self._send(connection, answer, served, situation if ran else None)

    async def _send(
        self,
        connection: Connection,
        answer: Answer,
        served: Served,
        ran: Situation | None,
    ) -> bool:
        streaming = ran is not None and ran.streaming
        if ran is not None:
            served.bill(ran.reply, share=0.0 if streaming else 1.0)
        if answer.delay and not await connection.peer_stays(answer.delay):
            return False
        opening = b""
        for number, (data, pieces, out) in enumerate(answer.writes()):
            if number and not answer.pause:
                await turns()
            elif number and not await connection.peer_stays(answer.pause):
                return False
            if connection.peer_has_left:
                return False
            await connection.write(data)
            served.bytes_written += len(data)
            served.pieces = pieces
            if served.status is None and len(opening) < _LONGEST_STATUS:
                opening += data[:_LONGEST_STATUS]
                line = _STATUS.match(opening)
                served.status = int(line[1]) if line else None
            if ran is not None and streaming:
                said = out if answer.model_pieces is None else min(out, answer.model_pieces)
                served.bill(ran.reply, share=said / ran.settled)
        served.outcome = "cut" if answer.is_cut else "whole"
        if answer.ending == "hanging":
            self._hanging += 1
            self._changed.set()
            await connection.wait_closed_by_peer()
        elif answer.ending == "reset":
            connection.reset()
        return answer.ending == "whole" and answer.framing != "close" and answer.raw is None

    async def _send_nothing_there(self, connection: Connection, served: Served) -> bool:
        path = served.request.path.partition("?")[0]
        message = (
            f"A FaultServer was asked for {path!r}, which is no path of the protocols that it "
            "speaks. Is the base URL that of FaultServer.base_url?"
        )
        self._failures.append(InputError(message))
        body = json.dumps({"error": {"message": message}}).encode()
        headers = (("content-type", "application/json"),)
        return await self._send(
            connection, Answer([body], status=404, headers=headers), served, None
        )

    def _told(self, item: _Plain) -> tuple[Reply, list[Fault]]:
        """The reply that an item says, or the server's own, and what is to be done to it."""
        items = _parts(item)
        faults = [each for each in items if isinstance(each, Fault)]
        texts = [each for each in (self.reply, *items) if isinstance(each, str | Reply)]
        reply = texts[-1] if texts else HELLO
        return Reply(reply) if isinstance(reply, str) else reply, faults

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(self._patience):
            while not reached():
                self._changed.clear()
                await self._changed.wait()


async def turns(count: int = _TURNS) -> None:
    """Let everything else in the loop have its turn, so often."""
    for _ in range(count):
        await asyncio.sleep(0)


def _checked(script: Script) -> Script:
    if not (callable(script) or isinstance(script, Answer)):
        _parts(script)
    return script


def _parts(item: _Plain) -> Sequence[str | Reply | Fault]:
    """What an item is made of. What is not understood must not be passed over."""
    is_one = isinstance(item, str | bytes) or not isinstance(item, Sequence)
    parts: Any = [item] if is_one else item
    for part in parts:
        if not isinstance(part, str | Reply | Fault):
            raise InputError(
                "A FaultServer is told texts, Replies, faults, lists of these, Answers, or "
                f"functions that return one of them, not {part!r}."
            )
    return cast("Sequence[str | Reply | Fault]", parts)
