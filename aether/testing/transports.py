"""The conformance suite of HTTP transports: what every `Transport` must do, as tests.

It must not know an HTTP library. Run your own through it:

    from aether.testing.transports import TransportConformance

    class TestMyTransport(TransportConformance):
        def make_transport(self):
            return MyTransport()

pytest collects the inherited tests; they need pytest-asyncio, in any mode, or its like.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from aether.errors import (
    AetherError,
    ClientClosedError,
    InputError,
    ProtocolError,
    ProviderConnectionError,
    RequestTimeoutError,
    ToolError,
)
from aether.http.contracts import ERROR_BODY_MAX_BYTES, HTTPResponse, Timeout, Transport
from aether.testing._asynchronous import AsynchronousTests
from aether.testing._raw_server import Connection, RawServer

__all__ = ["TransportConformance"]

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_PATIENCE = Timeout(connect=5, read=5, total=10)
_MEGABYTE = 1024 * 1024

Script = Callable[[Connection], Awaitable[None]]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _answering(*answers: bytes) -> Script:
    """Answer one request after another with these bytes, then close."""

    async def script(connection: Connection) -> None:
        for answer in answers:
            if not await connection.read_request():
                return
            await connection.write(answer)

    return script


def _always(answer: bytes) -> Script:
    async def script(connection: Connection) -> None:
        while await connection.read_request():
            await connection.write(answer)

    return script


class TransportConformance(AsynchronousTests):
    """Inherit from it, and say how to make the transport."""

    def make_transport(self) -> Transport:
        """A new transport."""
        raise NotImplementedError("say how to make the transport")

    async def test_a_whole_answer_has_status_headers_and_body(self) -> None:
        answer = (
            b"HTTP/1.1 201 Fine\r\nX-One: a\r\nx-one: b\r\nX-Two: c\r\nContent-Length: 2\r\n\r\nok"
        )
        async with self._serving(_answering(answer)) as (transport, server):
            response = await _request(transport, server)
        assert response.status == 201
        assert response.body == b"ok"
        assert response.headers["x-one"] == "a, b"
        assert response.headers["x-two"] == "c"
        assert all(name == name.lower() for name in response.headers)

    async def test_the_request_is_sent_as_it_was_given(self) -> None:
        seen: list[bytes] = []

        async def script(connection: Connection) -> None:
            seen.append(await connection.read_request())
            await connection.write(_OK)

        async with self._serving(script) as (transport, server):
            await transport.request(
                "POST",
                f"{server.url}/v1/x?a=1",
                headers={"X-Key": "secret", "content-type": "application/json"},
                body=b'{"a": "\xc3\xa4"}',
                timeout=_PATIENCE,
                max_bytes=100,
            )
        head, _, body = seen[0].partition(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/x?a=1 HTTP/1.1\r\n")
        assert b"x-key: secret" in head.lower()
        assert head.lower().count(b"content-type:") == 1
        assert body == b'{"a": "\xc3\xa4"}'

    async def test_connections_are_used_again(self) -> None:
        async def script(connection: Connection) -> None:
            while await connection.read_request():
                await connection.write(_CHUNKED + _chunk(b"hello") + _LAST_CHUNK)

        async with self._serving(script) as (transport, server):
            for _ in range(3):
                assert (await _request(transport, server)).body == b"hello"
                assert await _read(transport, server) == [b"hello"]
            assert server.accepted == 1

    async def test_each_piece_comes_before_the_next_is_sent(self) -> None:
        shown = asyncio.Event()

        async def script(connection: Connection) -> None:
            await connection.read_request()
            await connection.write(_CHUNKED + _chunk(b"one"))
            await shown.wait()
            await connection.write(_chunk(b"two") + _LAST_CHUNK)

        pieces: list[bytes] = []
        async with (
            self._serving(script) as (transport, server),
            _stream(transport, server) as answer,
        ):
            assert answer.status == 200
            async for piece in answer.chunks():
                pieces.append(piece)
                shown.set()
        assert pieces == [b"one", b"two"]

    async def test_leaving_a_stream_early_closes_its_connection_at_once(self) -> None:
        closed = asyncio.Event()
        async with self._serving(_endless(closed)) as (transport, server), _no_collector():
            async with _stream(transport, server) as answer:
                async for _ in answer.chunks():
                    break
            await asyncio.wait_for(closed.wait(), 5)

    async def test_an_exception_while_reading_closes_the_connection_at_once(self) -> None:
        closed = asyncio.Event()
        async with self._serving(_endless(closed)) as (transport, server), _no_collector():

            async def read() -> None:
                async with _stream(transport, server) as answer:
                    async for _ in answer.chunks():
                        raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError) as kept:
                await read()
            await asyncio.wait_for(closed.wait(), 5)
            assert kept.value.__traceback__ is not None  # the frames are still there

    async def test_cancelling_a_stream_closes_the_connection_at_once(self) -> None:
        closed, reading = asyncio.Event(), asyncio.Event()

        async with self._serving(_endless(closed)) as (transport, server), _no_collector():

            async def read() -> None:
                async with _stream(transport, server) as answer:
                    async for _ in answer.chunks():
                        reading.set()

            await _cancel_after(reading, read())
            await asyncio.wait_for(closed.wait(), 5)

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_cancelling_before_the_headers_closes_the_connection_at_once(
        self, streaming: bool
    ) -> None:
        closed, asked = asyncio.Event(), asyncio.Event()

        async def script(connection: Connection) -> None:
            await connection.read_request()
            asked.set()
            await connection.wait_closed_by_peer()
            closed.set()

        async with self._serving(script) as (transport, server), _no_collector():
            call = _read(transport, server) if streaming else _request(transport, server)
            await _cancel_after(asked, call)
            await asyncio.wait_for(closed.wait(), 5)

    async def test_cancelling_within_the_body_closes_the_connection_at_once(self) -> None:
        closed, asked = asyncio.Event(), asyncio.Event()

        async def script(connection: Connection) -> None:
            await connection.read_request()
            await connection.write(_CHUNKED + _chunk(b"x"))
            asked.set()
            await connection.wait_closed_by_peer()
            closed.set()

        async with self._serving(script) as (transport, server), _no_collector():
            await _cancel_after(asked, _request(transport, server))
            await asyncio.wait_for(closed.wait(), 5)

    async def test_a_closed_transport_leaves_no_connection_open(self) -> None:
        async with RawServer(_always(_OK)) as server:
            transport = self.make_transport()
            await asyncio.gather(*(_request(transport, server) for _ in range(3)))
            await transport.aclose()
            await server.until_open(0)

    async def test_closing_twice_is_fine_and_a_use_after_it_is_an_error(self) -> None:
        async with RawServer(_always(_OK)) as server:
            transport = self.make_transport()
            await _request(transport, server)
            await transport.aclose()
            await transport.aclose()
            with pytest.raises(ClientClosedError):
                await _request(transport, server)
            with pytest.raises(ClientClosedError):
                await _read(transport, server)
            with pytest.raises(ClientClosedError):
                await _request(transport, server, check_address=lambda *_: None)

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_a_reset_before_the_headers_is_a_broken_connection(self, streaming: bool) -> None:
        async def script(connection: Connection) -> None:
            await connection.read_request()
            connection.reset()

        error = await self._failing(script, streaming)
        assert isinstance(error, ProviderConnectionError)
        assert error.kind == "reset"
        assert error.retryable

    @pytest.mark.parametrize("streaming", [False, True])
    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
            _CHUNKED + _chunk(b"hello"),
            _CHUNKED + b"a\r\nhello",
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Le",
        ],
        ids=["short body", "no last chunk", "cut chunk", "no answer", "cut head"],
    )
    async def test_an_answer_that_is_cut_off_is_a_broken_connection(
        self, answer: bytes, streaming: bool
    ) -> None:
        error = await self._failing(_answering(answer), streaming)
        assert isinstance(error, ProviderConnectionError)

    async def test_what_had_come_before_a_cut_is_handed_out(self) -> None:
        gone = asyncio.Event()
        pieces: list[bytes] = []

        async def script(connection: Connection) -> None:
            await connection.read_request()
            await connection.write(_CHUNKED + _chunk(b"one"))
            await connection.write(_chunk(b"two"))
            gone.set()

        async with self._serving(script) as (transport, server):

            async def read() -> None:
                async with _stream(transport, server) as answer:
                    await gone.wait()
                    await asyncio.sleep(0.01)  # while nobody reads
                    async for piece in answer.chunks():
                        pieces.append(piece)  # noqa: PERF401 - they outlive the error

            with pytest.raises(ProviderConnectionError):
                await read()
        assert b"".join(pieces) == b"onetwo"

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_a_broken_chunk_in_mid_body_is_an_error_at_once(self, streaming: bool) -> None:
        async def script(connection: Connection) -> None:
            await connection.read_request()
            await connection.write(_CHUNKED + _chunk(b"one"))
            await asyncio.sleep(0.01)  # so that the head has been read
            await connection.write(b"no number\r\ntwo\r\n")
            await connection.wait_closed_by_peer()

        error = await self._failing(script, streaming, timeout=Timeout(read=5))
        assert isinstance(error, ProtocolError | ProviderConnectionError)

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_a_request_is_sent_once(self, method: str) -> None:
        async def script(connection: Connection) -> None:
            await connection.read_request()
            connection.reset()

        async with self._serving(script) as (transport, server):
            with pytest.raises(ProviderConnectionError):
                await transport.request(
                    method, server.url, headers={}, timeout=_PATIENCE, max_bytes=100
                )
            assert server.accepted == 1

    async def test_a_long_body_is_sent_whole(self) -> None:
        seen: list[bytes] = []

        async def script(connection: Connection) -> None:
            seen.append(await connection.read_request())
            await connection.write(_OK)

        body = bytes(range(256)) * (3 * _MEGABYTE // 256)
        async with self._serving(script) as (transport, server):
            await transport.request(
                "POST", server.url, headers={}, body=body, timeout=_PATIENCE, max_bytes=100
            )
        assert seen[0].partition(b"\r\n\r\n")[2] == body

    async def test_a_slow_reader_holds_the_server_back(self) -> None:
        written = 0

        async def script(connection: Connection) -> None:
            nonlocal written
            await connection.read_request()
            await connection.write(_CHUNKED)
            while True:
                await connection.write(_chunk(b"x" * 65536))
                written += 65536

        async with (
            self._serving(script) as (transport, server),
            _stream(transport, server) as answer,
        ):
            assert answer.status == 200
            before = -1
            while before < written < 100 * _MEGABYTE:
                before = written
                await asyncio.sleep(0.02)
        assert written < 50 * _MEGABYTE  # most of it in the system's own buffers

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_what_is_not_http_is_a_protocol_error(self, streaming: bool) -> None:
        error = await self._failing(_answering(b"\x15\x03\x01 what?\r\n\r\n"), streaming)
        assert isinstance(error, ProtocolError | ProviderConnectionError)

    async def test_an_endless_head_is_an_error(self) -> None:
        async def script(connection: Connection) -> None:
            await connection.read_request()
            await connection.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                await connection.write(b"X-A: " + b"a" * 4000 + b"\r\n")

        error = await self._failing(script, streaming=False)
        assert isinstance(error, ProtocolError | ProviderConnectionError)

    async def test_a_refused_connection_says_so(self) -> None:
        async with RawServer(_always(_OK)) as server:
            gone = server.url
        transport = self.make_transport()
        with pytest.raises(ProviderConnectionError) as raised:
            await _request(transport, gone)
        await transport.aclose()
        assert raised.value.kind == "connect"
        assert raised.value.retryable

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_an_answer_that_does_not_begin_times_out(self, streaming: bool) -> None:
        async def script(connection: Connection) -> None:
            await connection.read_request()
            await connection.wait_closed_by_peer()

        error = await self._failing(script, streaming, timeout=Timeout(read=0.02))
        assert isinstance(error, RequestTimeoutError)
        assert error.kind == "read"

    async def test_a_stream_that_stalls_times_out(self) -> None:
        async def script(connection: Connection) -> None:
            await connection.read_request()
            await connection.write(_CHUNKED + _chunk(b"one"))
            await connection.wait_closed_by_peer()

        error = await self._failing(script, streaming=True, timeout=Timeout(read=0.02))
        assert isinstance(error, RequestTimeoutError)
        assert error.kind == "read"

    async def test_an_answer_that_drips_meets_the_total_limit(self) -> None:
        async def script(connection: Connection) -> None:
            await connection.read_request()
            await connection.write(_CHUNKED)
            while True:
                await connection.write(_chunk(b"x"))
                await asyncio.sleep(0.005)

        error = await self._failing(script, streaming=False, timeout=Timeout(total=0.04))
        assert isinstance(error, RequestTimeoutError)
        assert error.kind == "total"

    @pytest.mark.parametrize("passed", [0, -1])
    async def test_a_limit_that_has_passed_is_not_taken_for_none(self, passed: float) -> None:
        async def script(connection: Connection) -> None:
            await connection.read_request()
            await connection.wait_closed_by_peer()

        error = await self._failing(script, streaming=False, timeout=Timeout(total=passed))
        assert isinstance(error, RequestTimeoutError)

    async def test_a_body_over_the_limit_is_refused(self) -> None:
        body = b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + b"x" * 101
        async with self._serving(_always(body)) as (transport, server):
            with pytest.raises(ProtocolError):
                await _request(transport, server, max_bytes=100)
            assert len((await _request(transport, server, max_bytes=101)).body) == 101

    async def test_an_error_body_is_cut_not_refused(self) -> None:
        async def script(connection: Connection) -> None:
            await connection.read_request()
            await connection.write(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await connection.write(_chunk(b"x" * 4096))

        async with self._serving(script) as (transport, server):
            response = await _request(transport, server, max_bytes=10)
        assert response.status == 500
        assert len(response.body) == ERROR_BODY_MAX_BYTES

    async def test_a_broken_error_body_does_not_hide_the_status(self) -> None:
        answer = b"HTTP/1.1 502 Bad\r\nContent-Length: 50\r\n\r\n<html>"
        async with self._serving(_answering(answer)) as (transport, server):
            response = await _request(transport, server)
        assert response.status == 502
        assert response.body in (b"<html>", b"")

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_a_compressed_answer_is_decoded(self, streaming: bool) -> None:
        body = gzip.compress(b"hello " * 50)
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        async with self._serving(_always(head % len(body) + body)) as (transport, server):
            if streaming:
                assert b"".join(await _read(transport, server)) == b"hello " * 50
            else:
                assert (await _request(transport, server)).body == b"hello " * 50

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_a_compressed_answer_that_is_cut_is_an_error(self, streaming: bool) -> None:
        body = gzip.compress(bytes(range(256)) * 4)[:-20]
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        error = await self._failing(_always(head % len(body) + body), streaming)
        assert isinstance(error, ProviderConnectionError | ProtocolError)

    async def test_a_compression_bomb_is_stopped(self) -> None:
        body = gzip.compress(b"\0" * (50 * _MEGABYTE))
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        async with self._serving(_always(head % len(body) + body)) as (transport, server):
            with pytest.raises(ProtocolError):
                await _request(transport, server, max_bytes=_MEGABYTE)
            async with (
                _stream(transport, server) as answer,
                aclosing(_as_generator(answer)) as all_,
            ):
                first = await all_.__anext__()
            assert len(first) <= _MEGABYTE

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_an_unknown_coding_is_refused(self, streaming: bool) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: rot13\r\nContent-Length: 5\r\n\r\nuryyb"
        error = await self._failing(_always(answer), streaming)
        assert isinstance(error, ProtocolError)

    async def test_an_unknown_coding_does_not_hide_an_error_status(self) -> None:
        answer = b"HTTP/1.1 502 No\r\nContent-Encoding: rot13\r\nContent-Length: 5\r\n\r\nuryyb"
        async with self._serving(_always(answer)) as (transport, server):
            assert (await _request(transport, server)).status == 502

    async def test_a_header_can_be_printed_whatever_its_bytes(self) -> None:
        answer = b"HTTP/1.1 200 OK\r\nX-Name: J\xf6rg\r\nContent-Length: 0\r\n\r\n"
        async with self._serving(_always(answer)) as (transport, server):
            name = (await _request(transport, server)).headers["x-name"]
        assert name.encode().startswith(b"J")

    async def test_redirects_are_not_followed(self) -> None:
        answer = b"HTTP/1.1 307 Elsewhere\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
        async with self._serving(_always(answer)) as (transport, server):
            response = await _request(transport, server)
            assert server.accepted == 1
        assert response.status == 307
        assert response.headers["location"] == "/other"

    async def test_cookies_are_not_kept(self) -> None:
        seen: list[bytes] = []

        async def script(connection: Connection) -> None:
            while request := await connection.read_request():
                seen.append(request)
                await connection.write(
                    b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
                )

        async with self._serving(script) as (transport, server):
            await _request(transport, server)
            await _request(transport, server)
        assert len(seen) == 2
        assert not any(b"\r\ncookie:" in request.lower() for request in seen)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    @pytest.mark.parametrize("streaming", [False, True])
    async def test_an_address_is_refused_before_it_is_connected_to(
        self, host: str, streaming: bool
    ) -> None:
        asked: list[tuple[str, int]] = []

        def refuse(address: str, port: int) -> None:
            asked.append((address, port))
            raise ToolError("not there")

        async with self._serving(_always(_OK)) as (transport, server):
            url = server.url.replace("127.0.0.1", host)
            with pytest.raises(ToolError, match="not there"):
                await (_read if streaming else _request)(transport, url, check_address=refuse)
            assert server.accepted == 0
            assert asked
            assert all(port == server.port for _, port in asked)

    async def test_an_address_that_is_allowed_is_connected_to(self) -> None:
        asked: list[str] = []
        async with self._serving(_always(_OK)) as (transport, server):
            for _ in range(2):
                response = await _request(
                    transport, server, check_address=lambda address, _: asked.append(address)
                )
                assert response.body == b"hello"
            await _request(transport, server)
            await server.until_open(1)  # a checked connection is shared with nobody
        assert asked == ["127.0.0.1", "127.0.0.1"]

    @pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b"])
    async def test_a_line_break_in_a_header_is_refused_before_anything_is_sent(
        self, value: str
    ) -> None:
        async with self._serving(_always(_OK)) as (transport, server):
            for headers in ({"x-key": value}, {value: "x"}):
                with pytest.raises(InputError):
                    await _request(transport, server, headers=headers)
            assert server.accepted == 0

    @pytest.mark.parametrize("name", ["", "x key", "x:key", "x-k\u00e4y"])
    async def test_a_header_name_that_is_none_is_refused(self, name: str) -> None:
        async with self._serving(_always(_OK)) as (transport, server):
            with pytest.raises(InputError):
                await _request(transport, server, headers={name: "x"})

    @pytest.mark.parametrize("url", ["", "not a url", "http://", "/v1/chat", "ftp://127.0.0.1/x"])
    async def test_what_is_no_url_is_refused(self, url: str) -> None:
        transport = self.make_transport()
        with pytest.raises(InputError):
            await _request(transport, url)
        await transport.aclose()

    async def test_messages_tell_the_host_and_nothing_secret(self) -> None:
        async with RawServer(_always(_OK)) as server:
            port = server.port
        transport = self.make_transport()
        with pytest.raises(AetherError) as raised:
            await _request(
                transport,
                f"http://127.0.0.1:{port}/x?key=sk-in-query",
                headers={"authorization": "Bearer sk-in-header"},
            )
        await transport.aclose()
        assert "sk-in" not in str(raised.value)
        assert "127.0.0.1" in str(raised.value)

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_nothing_secret_hangs_on_to_an_error(self, streaming: bool) -> None:
        async with self._serving(_answering(b"no HTTP\r\n\r\n")) as (transport, server):
            with pytest.raises(AetherError) as raised:
                await (_read if streaming else _request)(
                    transport,
                    f"{server.url}/x?key=sk-in-query",
                    headers={"authorization": "Bearer sk-in-header"},
                )
        error: BaseException | None = raised.value
        while error is not None:
            assert "sk-in" not in f"{error} {error!r} {vars(error)}"
            error = error.__cause__ or error.__context__

    def test_one_transport_serves_one_loop_after_another(self) -> None:
        transport = self.make_transport()

        async def once() -> int:
            async with RawServer(_always(_OK)) as server:
                await _request(transport, server)
                assert await _read(transport, server) == [b"hello"]
                return server.accepted

        assert [asyncio.run(once()) for _ in range(3)] == [1, 1, 1]
        asyncio.run(transport.aclose())

    def test_one_transport_serves_several_threads_at_once(self) -> None:
        transport = self.make_transport()
        barrier = threading.Barrier(4)
        bodies: list[bytes] = []

        async def once() -> None:
            async with RawServer(_always(_OK)) as server:
                barrier.wait(10)
                bodies.extend([(await _request(transport, server)).body for _ in range(5)])

        threads = [threading.Thread(target=asyncio.run, args=(once(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        asyncio.run(transport.aclose())
        assert bodies == [b"hello"] * 20

    async def test_closing_reaches_the_connections_of_another_thread(self) -> None:
        asked, done = threading.Event(), threading.Event()

        async def ask_and_stay(url: str) -> None:
            await _request(transport, url)
            asked.set()
            await asyncio.to_thread(done.wait, 10)

        async with RawServer(_always(_OK)) as server:
            transport = self.make_transport()
            other = asyncio.create_task(asyncio.to_thread(asyncio.run, ask_and_stay(server.url)))
            await asyncio.to_thread(asked.wait, 10)
            await transport.aclose()
            await server.until_open(0)
            done.set()
            await other

    @asynccontextmanager
    async def _serving(self, script: Script) -> AsyncIterator[tuple[Transport, RawServer]]:
        async with RawServer(script) as server:
            transport = self.make_transport()
            assert isinstance(transport, Transport), (
                f"{type(transport).__name__} lacks one of request(), stream() and aclose()"
            )
            try:
                yield transport, server
            finally:
                await transport.aclose()

    async def _failing(
        self, script: Script, streaming: bool, timeout: Timeout = _PATIENCE
    ) -> AetherError:
        async with self._serving(script) as (transport, server):
            with pytest.raises(AetherError) as raised:
                async with asyncio.timeout(5):  # one that waits for ever is told so
                    await (_read if streaming else _request)(transport, server, timeout=timeout)
        return raised.value


async def _request(transport: Transport, server: RawServer | str, **options: Any) -> HTTPResponse:
    url = server if isinstance(server, str) else server.url
    options = {"headers": {}, "timeout": _PATIENCE, "max_bytes": _MEGABYTE, **options}
    return await transport.request("POST", url, body=b"{}", **options)


def _stream(transport: Transport, server: RawServer | str, **options: Any) -> Any:
    url = server if isinstance(server, str) else server.url
    options = {"headers": {}, "timeout": _PATIENCE, **options}
    return transport.stream("POST", url, body=b"{}", **options)


async def _read(transport: Transport, server: RawServer | str, **options: Any) -> list[bytes]:
    async with _stream(transport, server, **options) as answer:
        return [piece async for piece in answer.chunks()]


async def _as_generator(answer: Any) -> AsyncGenerator[bytes, None]:
    async for piece in answer.chunks():
        yield piece


def _endless(closed: asyncio.Event) -> Script:
    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(_CHUNKED + _chunk(b"one"))
        await connection.wait_closed_by_peer()
        closed.set()

    return script


async def _cancel_after(event: asyncio.Event, call: Any) -> None:
    task = asyncio.ensure_future(call)
    await event.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@asynccontextmanager
async def _no_collector() -> AsyncIterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
