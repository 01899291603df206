"""What an adapter makes of refusals and faults: the error that says so, whatever shape it comes in.

It must not know a protocol.
"""

from __future__ import annotations

import pytest

from aether.errors import (
    AuthenticationError,
    NotFoundError,
    OverloadedError,
    ProviderConnectionError,
    ProviderError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from aether.testing._provider_tests.answering import ADD
from aether.testing._provider_tests.harness import (
    BOTH_WAYS,
    FULL,
    HELLO,
    AdapterHarness,
    outcome,
)
from aether.testing.faults import Answer
from aether.testing.faults.protocols import REQUEST_ID
from aether.testing.wires import FAILURES, Failure

__all__ = ["FailureTests"]

SAID = "no widget 4711 is there"
PASSING = frozenset({"rate_limit", "overloaded", "server"})
PAGE = b"<html><head><title>Bad gateway</title></head><body>nginx</body></html>"
PAGES: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    404: NotFoundError,
    429: RateLimitError,
    500: ServerError,
    502: ServerError,
    503: OverloadedError,
}
NO_ANSWERS = {
    "nothing": b"",
    "a page": PAGE,
    "null": b"null",
    "an empty object": b"{}",
    "an empty list": b"[]",
    "a number": b"3",
    "half an object": b'{"id": "x", ',
    "no text at all": b"\x80\xff\x00",
}


class FailureTests(AdapterHarness):
    """Statuses, errors in answers of status 200, and what is no answer."""

    @pytest.mark.parametrize("failure", FAILURES)
    @BOTH_WAYS
    async def test_a_refusal_is_the_error_of_its_kind(
        self, streaming: bool, failure: Failure
    ) -> None:
        if failure in self.wire.cannot:
            pytest.skip(f"{type(self.wire).__name__} cannot say: {failure}")
        sent = self.wire.error(failure, SAID)
        answer = Answer([sent.body], sent.status, sent.headers)
        async with self._serving(answer) as (provider, server):
            came = await outcome(provider, self.request(), streaming=streaming)
        error = came.failed()
        assert error.attempts == len(server.requests), "attempts are the requests that were made"
        assert isinstance(error, FAILURES[failure]), f"{failure} is {error!r}"
        assert error.status == sent.status
        assert error.retryable == (failure in PASSING), f"retryable is {error.retryable}"
        assert SAID in str(error), "the server's words are lost"

    @BOTH_WAYS
    async def test_an_error_says_how_long_to_wait_and_which_request_it_was(
        self, streaming: bool
    ) -> None:
        sent = self.wire.error("rate_limit", SAID, retry_after=7)
        named = {self.wire.request_id_header: REQUEST_ID} if self.wire.request_id_header else {}
        answer = Answer([sent.body], sent.status, {**sent.headers, **named})
        error = await self._refused(answer, streaming=streaming)
        assert error.retry_after == 7, f"retry_after is {error.retry_after!r}"
        if named:
            assert error.request_id == REQUEST_ID

    @pytest.mark.parametrize("status", PAGES)
    @pytest.mark.parametrize("body", [PAGE, b""], ids=["page", "nothing"])
    @BOTH_WAYS
    async def test_a_page_in_place_of_an_error_does_not_hide_the_status(
        self, streaming: bool, body: bytes, status: int
    ) -> None:
        answer = Answer([body], status, {"content-type": "text/html"})
        error = await self._refused(answer, streaming=streaming)
        assert isinstance(error, PAGES[status]), f"{status} is {error!r}"
        assert error.status == status

    @BOTH_WAYS
    async def test_a_redirect_is_not_followed(self, streaming: bool) -> None:
        answer = Answer([b""], 307, {"location": "/elsewhere"})
        async with self._serving(answer) as (provider, server):
            came = await outcome(provider, self.request(), streaming=streaming)
        came.failed()
        assert len(server.requests) == 1

    @BOTH_WAYS
    async def test_an_error_in_an_answer_of_status_200_is_raised(self, streaming: bool) -> None:
        body = self.wire.error_in_body("rate_limit", SAID)
        answer = Answer([body], headers={"content-type": "application/json"})
        error = await self._refused(answer, streaming=streaming)
        assert isinstance(error, RateLimitError), f"it is {error!r}"
        assert SAID in str(error)

    @pytest.mark.parametrize("name", NO_ANSWERS)
    @BOTH_WAYS
    async def test_what_is_no_answer_is_an_error(self, streaming: bool, name: str) -> None:
        for content_type in ("application/json", self.wire.stream_type):
            answer = Answer([NO_ANSWERS[name]], headers={"content-type": content_type})
            await self._refused(answer, streaming=streaming)

    @BOTH_WAYS
    async def test_an_error_whose_body_breaks_off_is_still_told_by_its_status(
        self, streaming: bool
    ) -> None:
        sent = self.wire.error("server", SAID)
        half = sent.body[: len(sent.body) // 2]
        answer = Answer([half], sent.status, sent.headers, ending="broken")
        error = await self._refused(answer, streaming=streaming)
        assert isinstance(error, ServerError), f"it is {error!r}"

    async def test_an_error_in_a_stream_is_raised_whenever_it_comes(self) -> None:
        self._need("error_event")
        event = self.wire.error_event("server", SAID)
        async with self._streaming(FULL) as (provider, server, stream):
            for count in range(stream.settled):
                server.reply = self._events([*stream.events[:count], event])
                came = await outcome(provider, self.request(tools=[ADD]), streaming=True)
                error = came.failed()
                assert SAID in str(error), f"the server's words are lost: {error!r}"
                if not came.shown:
                    assert isinstance(error, ServerError), f"before any content: {error!r}"
                    assert error.retryable
                    continue
                assert isinstance(error, StreamInterruptedError), f"after content: {error!r}"
                assert error.partial is not None, "the error does not have what had come"
                assert error.partial.text == came.text

    async def test_an_error_in_a_stream_closes_the_connection_at_once(self) -> None:
        self._need("error_event")
        event = self.wire.error_event("server", SAID)
        async with self._streaming(HELLO) as (provider, server, _):
            server.reply = self._events([event], "hanging")
            came = await outcome(provider, self.request(), streaming=True)
            assert isinstance(came.error, ServerError), f"it is {came.error!r}"
            await server.until_left()

    @BOTH_WAYS
    async def test_a_server_that_is_not_there_is_a_connection_error(self, streaming: bool) -> None:
        async with self._serving(HELLO) as (provider, server):
            await server.stop()
            came = await outcome(provider, self.request(), streaming=streaming)
        error = came.failed()
        assert isinstance(error, ProviderConnectionError), f"it is {error!r}"
        assert error.retryable
