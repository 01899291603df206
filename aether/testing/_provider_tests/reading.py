"""What an adapter reads of calls, counts and reasons: all that was sent, and nothing made up.

It must not know a protocol.
"""

from __future__ import annotations

from typing import Literal

import pytest

from aether.llm.contracts import LLMResponse, TokenUsage, ToolCall
from aether.testing._provider_tests.answering import ADD, COUNTS
from aether.testing._provider_tests.harness import (
    BOTH_WAYS,
    HELLO,
    AdapterHarness,
    agrees,
    outcome,
)
from aether.testing.faults.protocols import REQUEST_ID
from aether.testing.wires import Reply

__all__ = ["ReadingTests"]

FULL_COUNTS = TokenUsage(
    input_tokens=1000,
    output_tokens=200,
    cache_read_tokens=300,
    cache_write_tokens=50,
    reasoning_tokens=80,
)


class ReadingTests(AdapterHarness):
    """Calls, usage, and why an answer ended."""

    @BOTH_WAYS
    async def test_the_same_function_twice_is_two_calls(self, streaming: bool) -> None:
        calls = [ToolCall(f"call000{name}", "add", {"a": 1, "b": 2}) for name in ("Aa", "Bb", "Cc")]
        await self._agrees(Reply(calls=calls), streaming)

    @BOTH_WAYS
    async def test_two_calls_that_were_given_one_id_are_told_apart(self, streaming: bool) -> None:
        self._need("call_ids")
        calls = [ToolCall("call000Aa", "add", {"a": number, "b": 2}) for number in (1, 3)]
        response = await self._read(Reply(calls=calls), streaming)
        assert [call.arguments for call in response.tool_calls] == [
            each.arguments for each in calls
        ]
        ids = [call.id for call in response.tool_calls]
        assert len(set(ids)) == 2, f"two calls with the same id: {ids}"

    @BOTH_WAYS
    async def test_text_beside_calls_is_kept(self, streaming: bool) -> None:
        call = ToolCall("call000Aa", "add", {"a": 1, "b": 2})
        await self._agrees(Reply(text="Let me add them.", calls=[call]), streaming)

    @pytest.mark.parametrize("written", ["{}", ""], ids=["an object", "no text"])
    @BOTH_WAYS
    async def test_a_call_without_arguments_has_none(self, streaming: bool, written: str) -> None:
        call = ToolCall(id="call000Aa", name="add", invalid_arguments=written)
        response = await self._read(Reply(calls=[call], finish="tool_calls"), streaming)
        assert [call.name for call in response.tool_calls] == ["add"]
        assert response.tool_calls[0].arguments == {}
        assert response.tool_calls[0].invalid_arguments is None

    @pytest.mark.parametrize("written", ["", '{"a": 1, "b"', '{"a": "x'])
    @BOTH_WAYS
    async def test_a_call_cut_off_by_the_output_limit_cannot_be_run(
        self, streaming: bool, written: str
    ) -> None:
        self._need("cut_arguments" if streaming else "whole_cut_arguments")
        call = ToolCall(id="call000Aa", name="add", invalid_arguments=written)
        response = await self._read(Reply(calls=[call], finish="length"), streaming)
        assert response.finish_reason == "length"
        for read in response.tool_calls:
            assert read.invalid_arguments is not None, f"{read!r} looks whole"

    @BOTH_WAYS
    async def test_calls_are_read_from_the_calls_and_not_from_the_finish_reason(
        self, streaming: bool
    ) -> None:
        self._need("calls_under_stop")
        call = ToolCall("call000Aa", "add", {"a": 1, "b": 2})
        await self._agrees(Reply(calls=[call], finish="stop"), streaming)

    @BOTH_WAYS
    async def test_a_finish_reason_of_tool_calls_without_a_call_is_no_success(
        self, streaming: bool
    ) -> None:
        self._need("tool_calls_without_a_call")
        async with self._serving(Reply(finish="tool_calls")) as (provider, _):
            came = await outcome(provider, self.request(tools=[ADD]), streaming=streaming)
        came.failed()

    @pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
    @BOTH_WAYS
    async def test_a_finish_reason_is_the_neutral_one(
        self, streaming: bool, finish: Literal["stop", "length", "content_filter"]
    ) -> None:
        if finish == "content_filter":
            self._need("content_filter")
        reply = Reply(text="So far", finish=finish, usage=HELLO.usage)
        response = await self._read(reply, streaming)
        assert response.text == "So far"
        assert response.finish_reason == finish

    @BOTH_WAYS
    async def test_an_unknown_finish_reason_is_other_and_kept_as_it_was(
        self, streaming: bool
    ) -> None:
        self._need("unknown_finish")
        reply = Reply(text="So far", finish_raw="SOMETHING_NEW")
        response = await self._read(reply, streaming)
        assert response.finish_reason == "other"
        assert "SOMETHING_NEW" in (response.finish_reason_raw or "")

    @pytest.mark.parametrize(
        "usage",
        [
            FULL_COUNTS,
            TokenUsage(input_tokens=9, output_tokens=3),
            TokenUsage(input_tokens=9, output_tokens=3, cache_read_tokens=0),
            None,
        ],
        ids=["every count", "two counts", "a count of nothing", "no usage"],
    )
    @BOTH_WAYS
    async def test_counts_are_those_reported_and_unknown_is_none(
        self, streaming: bool, usage: TokenUsage | None
    ) -> None:
        response = await self._read(Reply(text="Hello.", usage=usage), streaming)
        for name in COUNTS:
            told = None if usage is None or name in self.wire.cannot else getattr(usage, name)
            count = getattr(response, name)
            assert count == told, f"{name} is {count!r}, where {told!r} was reported"

    @BOTH_WAYS
    async def test_the_server_s_name_for_the_request_is_kept(self, streaming: bool) -> None:
        if self.wire.request_id_header is None:
            pytest.skip("its server does not name requests in a header")
        assert (await self._read(HELLO, streaming)).request_id == REQUEST_ID

    async def _read(self, reply: Reply, streaming: bool) -> LLMResponse:
        async with self._serving(reply) as (provider, _):
            came = await outcome(provider, self.request(tools=[ADD]), streaming=streaming)
        return came.succeeded()

    async def _agrees(self, reply: Reply, streaming: bool) -> None:
        agrees(await self._read(reply, streaming), reply, self.wire)
