"""The server of faults: its script, its ledger, its end, and clients that are pointed at it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aether import Aether
from aether.errors import (
    AetherError,
    ConfigurationError,
    InputError,
    QuotaExceededError,
    RateLimitError,
)
from aether.llm.contracts import TokenUsage, ToolCall
from aether.testing import FaultServer, faults
from aether.testing._raw_server import Connection, RawServer
from aether.testing.faults import Answer, Reply, WireRequest
from aether.testing.faults.protocols import REQUEST_ID
from aether.testing.faults.server import HELLO
from tests.testing.plain_peer import (
    WIRES,
    answered,
    asked,
    ended,
    plain_peer,
    request_of,
    taken_apart,
    whole_pieces,
)

by_protocol = pytest.mark.parametrize("protocol", WIRES)


async def body_of(server: FaultServer, protocol: str = "openai") -> bytes:
    """The body of one answer that is no stream."""
    async with asyncio.timeout(30), plain_peer(server) as peer:
        await peer.send(protocol, streaming=False)
        await peer.pieces()
        return taken_apart(peer.data).body


def written(text: str, protocol: str = "openai") -> bytes:
    return WIRES[protocol].body(Reply(text), request_of(protocol, streaming=False))


class TestScript:
    @by_protocol
    async def test_items_are_answered_in_their_order_and_then_the_reply(
        self, protocol: str
    ) -> None:
        async with FaultServer("One.", Reply("Two."), reply="Last.") as server:
            came = [await body_of(server, protocol) for _ in range(2)]
            server.will("Three.", "Four.")
            came += [await body_of(server, protocol) for _ in range(4)]
        expected = ("One.", "Two.", "Three.", "Four.", "Last.", "Last.")
        assert came == [written(text, protocol) for text in expected]

    async def test_without_a_reply_it_says_hello(self) -> None:
        async with FaultServer() as server:
            data = taken_apart(await answered(server, "openai", streaming=True))
        events = WIRES["openai"].stream(HELLO, request_of("openai", streaming=True)).events
        assert data.chunks == list(events)
        assert ("x-request-id", REQUEST_ID) in data.headers

    async def test_a_fault_changes_the_reply_and_in_a_list_the_text_beside_it(self) -> None:
        fault = faults.edit(lambda pieces: [*pieces, b"!"])
        async with FaultServer(fault, [fault, "Mine."], ["Mine.", fault], reply="Own.") as server:
            came = [await body_of(server) for _ in range(3)]
        assert came == [written("Own.") + b"!", *[written("Mine.") + b"!"] * 2]

    async def test_faults_of_a_list_are_applied_in_their_order(self) -> None:
        one = faults.edit(lambda _: [b"one"], "one")
        two = faults.edit(lambda _: [b"two"], "two")
        async with FaultServer([one, two], [two, one]) as server:
            assert [await body_of(server) for _ in range(2)] == [b"two", b"one"]
        assert [served.faults for served in server.served] == [("one", "two"), ("two", "one")]

    async def test_an_answer_is_written_byte_for_byte_whatever_was_asked(self) -> None:
        answer = Answer([b"{}"], status=418, headers={"X-Odd": "Yes"})
        async with FaultServer(answer) as server, plain_peer(server) as peer:
            await peer.send(path="/nothing/here")
            await peer.pieces()
        assert peer.data == (
            b"HTTP/1.1 418 I'm a Teapot\r\ntransfer-encoding: chunked\r\nX-Odd: Yes\r\n\r\n"
            b"2\r\n{}\r\n0\r\n\r\n"
        )
        assert not server.served[0].billed

    async def test_a_function_is_asked_with_the_request(self) -> None:
        seen: list[WireRequest] = []

        def tell(request: WireRequest) -> str:
            seen.append(request)
            return f"Request {len(seen)}."

        async with FaultServer(reply=tell) as server:
            came = [await body_of(server) for _ in range(2)]
        assert came == [written("Request 1."), written("Request 2.")]
        body, path = asked("openai", streaming=False)
        assert (seen[0].method, seen[0].path, seen[0].body) == ("POST", path, body)
        assert seen[0].headers["x-case"] == "Kept"
        assert seen[0].json["messages"] == []
        assert server.requests == seen

    @pytest.mark.parametrize(
        "item",
        [
            "Text.",
            Reply("Text."),
            ["Text.", faults.delay(0)],
            Answer([written("Text.")]),
        ],
        ids=["text", "reply", "list", "answer"],
    )
    async def test_a_function_may_be_async_and_return_any_item(self, item: Any) -> None:
        async def later(_: WireRequest) -> Any:
            await asyncio.sleep(0)
            return item

        async with FaultServer(later, lambda _: item) as server:
            assert [await body_of(server) for _ in range(2)] == [written("Text.")] * 2

    async def test_the_wire_that_is_given_is_spoken_on_every_path(self) -> None:
        async with (
            FaultServer("Hi.", wire=WIRES["anthropic"]) as server,
            plain_peer(server) as peer,
        ):
            await peer.send(streaming=False, path="/elsewhere")
            await peer.pieces()
        assert taken_apart(peer.data).body == written("Hi.", "anthropic")

    @pytest.mark.parametrize(
        "item",
        [b"bytes", 7, None, {"a": 1}, ["Text.", 7], [faults.drop], (b"x",)],
        ids=["bytes", "number", "nothing", "mapping", "number in list", "function", "tuple"],
    )
    async def test_what_is_no_item_is_refused_at_once(self, item: Any) -> None:
        server = FaultServer()
        with pytest.raises(InputError, match="is told texts"):
            FaultServer(item)
        with pytest.raises(InputError, match="is told texts"):
            server.will(item)
        if item is not None:
            with pytest.raises(InputError, match="is told texts"):
                FaultServer(reply=item)
        with pytest.raises(InputError, match="is told texts"):
            async with FaultServer(lambda _: item) as server:
                assert await ended(server, "openai", streaming=True) == (b"", "fin")


class TestFailures:
    async def fail_later(self, _: WireRequest) -> str:
        await asyncio.sleep(0)
        raise ZeroDivisionError("of the test's")

    def fail(self, _: WireRequest) -> str:
        raise ZeroDivisionError("of the test's")

    @pytest.mark.parametrize("name", ["fail", "fail_later"])
    async def test_an_error_of_a_function_ends_its_connection_and_is_raised_at_the_end(
        self, name: str
    ) -> None:
        with pytest.raises(ZeroDivisionError, match="of the test's"):  # noqa: PT012 - at the end
            async with FaultServer(getattr(self, name), "Fine.") as server:
                first = await ended(server, "openai", streaming=True)
                second = await body_of(server)
        assert (first, second) == ((b"", "fin"), written("Fine."))
        assert [served.outcome for served in server.served] == ["cut", "whole"]
        assert not server.served[0].billed

    async def test_an_error_of_a_fault_is_raised_at_the_end(self) -> None:
        with pytest.raises(ZeroDivisionError):
            async with FaultServer(faults.edit(lambda _: [b"%d" % (1 // 0)])) as server:
                assert await ended(server, "openai", streaming=True) == (b"", "fin")

    async def test_an_error_among_the_pieces_is_raised_at_the_end(self) -> None:
        def pieces() -> Iterator[bytes]:
            yield b"one"
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            async with FaultServer(Answer(pieces())) as server:
                data, how = await ended(server, "openai", streaming=True)
        assert (taken_apart(data).chunks, taken_apart(data).ended, how) == ([b"one"], False, "fin")
        assert server.served[0].outcome == "cut"

    async def test_it_is_noted_on_the_error_that_the_test_ends_with(self) -> None:
        with pytest.raises(AetherError) as caught:
            async with (
                FaultServer(reply=self.fail) as server,
                Aether(config=server.config(), with_retry=False) as client,
            ):
                await client.ask("Hi")
        assert 'ZeroDivisionError("of the test\'s")' in "".join(caught.value.__notes__)

    @pytest.mark.parametrize("path", ["/", "/v1/chat", "/v1/models/m:countTokens", "/chat/complet"])
    async def test_a_path_of_no_protocol_is_not_found_and_raised_at_the_end(
        self, path: str
    ) -> None:
        with pytest.raises(InputError, match=f"asked for '{path}'.*base URL"):  # noqa: PT012 - as above
            async with FaultServer("Hi.") as server, plain_peer(server) as peer:
                await peer.send(path=f"{path}?key=secret")
                await peer.pieces()
        answer = taken_apart(peer.data)
        assert answer.status == 404
        assert b"no path of the protocols" in answer.body
        assert (server.served[0].status, server.served[0].billed) == (404, False)

    async def test_a_request_in_chunks_is_refused(self) -> None:
        data = b"POST /v1/messages HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
        with pytest.raises(InputError, match="content-length"):  # noqa: PT012 - as above
            async with FaultServer() as server, plain_peer(server) as peer:
                await peer.send_bytes(data)
                assert await peer.until_end() in ("fin", "rst")

    @pytest.mark.parametrize("protocol", ["openia", "", "openai.chat"])
    async def test_a_protocol_that_it_does_not_speak_is_an_error(self, protocol: str) -> None:
        async with FaultServer() as server:
            with pytest.raises(ConfigurationError, match=r"'openai', 'openai\.responses'"):
                server.base_url(protocol)
            with pytest.raises(ConfigurationError):
                server.config(protocol)


class TestLedger:
    REPLY = Reply(
        "Text of some length.",
        usage=TokenUsage(
            input_tokens=100, output_tokens=50, cache_read_tokens=60, cache_write_tokens=20
        ),
        model="big-model-2",
    )

    @by_protocol
    @pytest.mark.parametrize("streaming", [True, False])
    async def test_a_whole_answer_is_billed_as_it_says(
        self, protocol: str, streaming: bool
    ) -> None:
        async with FaultServer(reply=self.REPLY) as server:
            await answered(server, protocol, streaming=streaming)
        for served in server.served:
            assert served.billed
            assert served.model == "big-model-2"
            assert (served.input_tokens, served.output_tokens) == (100, 50)
            assert (served.cache_read_tokens, served.cache_write_tokens) == (60, 20)
        assert server.billed == TokenUsage(
            requests=2,
            input_tokens=200,
            output_tokens=100,
            cache_read_tokens=120,
            cache_write_tokens=40,
            reasoning_tokens=0,
        )

    async def test_what_an_answer_does_not_say_is_a_token_for_four_letters(self) -> None:
        call = ToolCall("1", "four", {})
        async with FaultServer(Reply("x" * 100, calls=[call])) as server:
            await body_of(server)
        (served,) = server.served
        assert served.input_tokens == -(-len(served.request.body) // 4)
        assert served.output_tokens == -(-(100 + len("four") + len("{}")) // 4)

    @by_protocol
    async def test_a_peer_that_leaves_is_billed_what_was_sent_by_then(self, protocol: str) -> None:
        async with FaultServer(reply=self.REPLY) as server:
            full = await answered(server, protocol, streaming=True)
        async with (
            FaultServer(faults.drip(30, seconds=0.001), reply=self.REPLY) as server,
            plain_peer(server) as peer,
        ):
            await peer.send(protocol)
            await peer.exactly(400)
            peer.leave()
            await server.until_left()
        (served,) = server.served
        assert served.outcome == "left"
        assert served.bytes_written >= 400
        assert served.pieces == whole_pieces(full, served.bytes_written)
        settled = WIRES[protocol].stream(self.REPLY, served.request).settled
        assert served.output_tokens == -(-50 * served.pieces // settled) < 50

    async def test_what_was_refused_or_never_read_is_not_billed(self) -> None:
        async with FaultServer(faults.refuse("quota"), faults.reset(), faults.close()) as server:
            await body_of(server)
            await ended(server, "openai", streaming=True)
            await ended(server, "openai", streaming=True)
        assert server.count == 3
        assert server.billed == TokenUsage(
            input_tokens=0,
            output_tokens=0,
            cache_read_tokens=0,
            cache_write_tokens=0,
            reasoning_tokens=0,
        )

    async def test_an_answer_under_way_is_pending(self) -> None:
        async with (
            FaultServer(faults.delay(600)) as server,
            plain_peer(server) as peer,
        ):
            await peer.send()
            await server.until_asked()
            outcomes = [server.served[0].outcome]
        outcomes.append(server.served[0].outcome)
        assert outcomes == ["pending", "left"]


class TestConnections:
    async def test_two_are_answered_at_once(self) -> None:
        turn = asyncio.Event()

        async def wait(_: WireRequest) -> str:
            await turn.wait()
            return "First."

        async with (
            FaultServer(wait, "Second.") as server,
            plain_peer(server) as one,
            plain_peer(server) as two,
        ):
            await one.send(streaming=False)
            await server.until_asked()
            await two.send(streaming=False)
            await two.pieces()
            assert server.open_connections == server.accepted == 2
            turn.set()
            await one.pieces()
            assert taken_apart(one.data).body == written("First.")
            assert taken_apart(two.data).body == written("Second.")
            two.leave()
            await server.until_open(1)
            assert server.open_connections == 1

    async def test_many_streams_at_once_do_not_mix(self) -> None:
        def tell(request: WireRequest) -> Reply:
            return Reply(request.path * 20)

        async def ask(server: FaultServer, number: int) -> bytes:
            async with plain_peer(server) as peer:
                await peer.send(path=f"/{number}/v1/chat/completions")
                await peer.pieces()
            return peer.data

        async with FaultServer(reply=tell) as server:
            came = await asyncio.gather(*(ask(server, n) for n in range(30)))
        for number, data in enumerate(came):
            path = f"/{number}/v1/chat/completions"
            body = taken_apart(data).body
            assert body.count(path.encode()) >= 18  # in three pieces, cut anywhere
            assert not any(f"/{n}/v1".encode() in body for n in range(30) if n != number)

    @pytest.mark.parametrize("name", ["until_asked", "until_hanging", "until_left", "until_open"])
    async def test_its_patience_is_limited(self, name: str) -> None:
        wait: dict[str, Callable[[FaultServer], Any]] = {
            "until_asked": lambda server: server.until_asked(2),
            "until_hanging": lambda server: server.until_hanging(2),
            "until_left": lambda server: server.until_left(),
            "until_open": lambda server: server.until_open(0),
        }
        async with (
            FaultServer(faults.hang(), patience=0.01) as server,
            plain_peer(server) as peer,
        ):
            await peer.send()
            await server.until_asked()
            async with asyncio.timeout(4) as much_longer:
                with pytest.raises(TimeoutError):
                    await wait[name](server)
            assert not much_longer.expired()

    async def test_before_the_first_request_nothing_is_under_way(self) -> None:
        async with FaultServer() as server:
            await server.until_left()
            await server.until_open(0)
            await server.until_asked(0)


HANGING: dict[str, Any] = {
    "hang": faults.hang(),
    "half": faults.cut(body=10, ending="hanging"),
    "delay": faults.delay(600),
    "drip": faults.drip(seconds=600),
    "endless": faults.keep_alive(),
    "huge": Answer([b"x" * 20_000_000]),
}


async def never(_: WireRequest) -> str:
    await asyncio.Event().wait()
    return ""


HANGING["function"] = never


def open_sockets() -> int:
    links = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
    return sum(link.startswith("socket:") for link in links)


def connected(server: FaultServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))


def until_it_has_ended(peer: socket.socket) -> None:
    with peer, suppress(ConnectionResetError):
        peer.settimeout(10)
        while peer.recv(1 << 20):
            pass


class TestEnd:
    @pytest.mark.parametrize("kind", HANGING)
    async def test_it_ends_at_once_whoever_still_waits(self, kind: str) -> None:
        tasks, sockets = asyncio.all_tasks(), open_sockets()
        peers: list[socket.socket] = []
        async with asyncio.timeout(10):
            async with FaultServer(reply=HANGING[kind]) as server:
                body, path = asked("openai", streaming=True)
                for _ in range(3):  # they ask, and read nothing of the answer
                    peers.append(connected(server))
                    head = f"POST {path} HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n"
                    peers[-1].sendall(head.encode() + body)
                await server.until_asked(3)
                for _ in range(20):
                    await asyncio.sleep(0)
                assert server.open_connections == 3
            assert asyncio.all_tasks() == tasks
            assert open_sockets() == sockets + len(peers)
        assert server.open_connections == 0
        for peer in peers:
            until_it_has_ended(peer)

    @pytest.mark.parametrize("turns", range(8))
    async def test_it_ends_at_once_for_who_has_only_just_connected(self, turns: int) -> None:
        tasks, sockets = asyncio.all_tasks(), open_sockets()
        async with asyncio.timeout(10):
            async with FaultServer(faults.hang()) as server:
                peers = [connected(server) for _ in range(3)]
                for _ in range(turns):
                    await asyncio.sleep(0)
            assert asyncio.all_tasks() == tasks
            assert open_sockets() == sockets + len(peers)
        assert server.open_connections == 0
        for peer in peers:
            until_it_has_ended(peer)

    async def test_it_ends_at_once_though_what_was_written_is_not_sent(self) -> None:
        written = asyncio.Event()

        async def write(connection: Connection) -> None:
            connection._writer.write(b"x" * 20_000_000)  # more than a socket holds
            written.set()

        tasks, sockets = asyncio.all_tasks(), open_sockets()
        async with asyncio.timeout(10):
            async with RawServer(write) as server:
                peer = socket.create_connection(("127.0.0.1", server.port))
                await written.wait()
            assert asyncio.all_tasks() == tasks
            assert open_sockets() == sockets + 1
        until_it_has_ended(peer)

    async def test_it_can_be_stopped_before_its_end_and_twice(self) -> None:
        async with FaultServer() as server, plain_peer(server) as peer:
            await peer.send()
            await peer.pieces()
            await server.stop()
            await server.stop()
            assert await peer.until_end() in ("fin", "rst")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        assert server.count == 1


class TestClients:
    @by_protocol
    @pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
    async def test_a_client_of_its_configuration_speaks_the_protocol(
        self, protocol: str, transport: str
    ) -> None:
        async with (
            FaultServer(faults.refuse("rate_limit"), "Hello.") as server,
            Aether(config=server.config(protocol, transport=transport), with_retry=False) as client,
        ):
            with pytest.raises(RateLimitError):
                await client.ask("Hi")
            assert await client.ask("Hi") == "Hello."
            assert "".join([text async for text in client.stream_text("Hi")]) == HELLO.text
            assert server.count == 3
        streams = [WIRES[protocol].wants_stream(request) for request in server.requests]
        assert streams == [False, False, True]
        paths = {
            "openai": "/v1/chat/completions",
            "openai.responses": "/v1/responses",
            "anthropic": "/v1/messages",
            "gemini": "/v1beta/models/test-model-1:generateContent",
        }
        assert server.requests[0].path == paths[protocol]

    @by_protocol
    async def test_a_configuration_takes_the_fields_that_it_is_given(self, protocol: str) -> None:
        async with FaultServer(patience=7.0) as server:
            plain = server.config(protocol)
            mine = server.config(protocol, api_key="mine", timeout=0.5, options={"x": 1})
        assert plain.provider == protocol.partition(".")[0]
        assert plain.base_url == server.base_url(protocol)
        assert (plain.timeout, plain.model) == (7.0, "test-model-1")
        assert (mine.api_key, mine.timeout) == ("mine", 0.5)
        assert mine.options == {**plain.options, "x": 1}

    @by_protocol
    async def test_before_its_start_it_has_no_address(self, protocol: str) -> None:
        server = FaultServer()
        for ask in (server.config, server.base_url, lambda _: server.url):
            with pytest.raises(ConfigurationError, match="not started yet"):
                ask(protocol)
        async with server:
            assert server.url in server.base_url(protocol)
            assert not server.url.endswith(":0")

    @by_protocol
    async def test_a_used_up_quota_is_understood_in_each_protocol(self, protocol: str) -> None:
        async with (
            FaultServer(faults.refuse("quota", retry_after=0)) as server,
            Aether(config=server.config(protocol)) as client,
        ):
            with pytest.raises(QuotaExceededError):
                await client.ask("Hi")
            assert server.count == 1

    async def test_a_refusal_that_is_not_retried_reaches_the_client(self) -> None:
        async with (
            FaultServer(faults.refuse("rate_limit", "Slow down.", retry_after=600)) as server,
            Aether(config=server.config()) as client,
        ):
            with pytest.raises(RateLimitError, match="Slow down") as caught:
                await client.ask("Hi")
        assert caught.value.retry_after == 600
