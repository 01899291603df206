"""What an adapter sends: all that it was given, to whom it belongs, and nothing that cannot be.

It must not know a protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from aether.llm.contracts import Message, ProviderState, ToolCall
from aether.testing._provider_tests.answering import ADD
from aether.testing._provider_tests.harness import (
    BOTH_WAYS,
    FULL,
    HELLO,
    agrees,
    outcome,
)
from aether.testing._provider_tests.sending import LOOK_UP, USER, SendingHarness, holds
from aether.testing.faults import Answer

__all__ = ["RequestTests"]

CALLS = [
    ToolCall("call000Aa", "add", {"a": 1, "note": "first-argument"}),
    ToolCall("call000Bb", "add", {"a": 2, "note": "second-argument"}),
]
ASKED = Message(role="assistant", content="", tool_calls=CALLS)
RESULTS = [
    Message(role="tool", content="first-result", tool_call_id="call000Aa"),
    Message(role="tool", content="second-result", tool_call_id="call000Bb", is_error=True),
]
STRAY = Message(role="tool", content="stray-result", tool_call_id="call000Zz")
NO_CONVERSATIONS: dict[str, list[Message]] = {
    "no message": [],
    "a result of no call": [USER, STRAY],
    "a result of another call": [USER, ASKED, RESULTS[0], STRAY],
    "two results of one call": [USER, ASKED, RESULTS[0], RESULTS[0], RESULTS[1]],
    "a call without a result": [USER, ASKED, RESULTS[0], USER],
    "an end before the results": [USER, ASKED, RESULTS[0]],
}


class RequestTests(SendingHarness):
    """Conversations, the key, and state that must come back."""

    @BOTH_WAYS
    async def test_what_was_said_is_sent(self, streaming: bool) -> None:
        said = ["Grüße an 日本 \U0001f600", "I am an assistant.", "And then?", "Be brief."]
        messages = [
            Message(role="system", content=said[3]),
            Message(role="user", content=said[0]),
            Message(role="assistant", content=said[1]),
            Message(role="user", content=said[2]),
        ]
        sent = await self._sent(self.request(messages=messages), streaming)
        for text in said:
            assert holds(sent, text), f"{text!r} is not in {sent.body!r}"

    @pytest.mark.parametrize("turned", [False, True], ids=["in order", "turned round"])
    @BOTH_WAYS
    async def test_calls_and_their_results_are_sent(self, streaming: bool, turned: bool) -> None:
        results = RESULTS[::-1] if turned else RESULTS
        messages = [USER, ASKED, *results, Message(role="user", content="Go on.")]
        sent = await self._sent(self.request(messages=messages, tools=[ADD]), streaming)
        for text in ("first-argument", "second-argument", "first-result", "second-result"):
            assert holds(sent, text), f"{text!r} is not in {sent.body!r}"

    @BOTH_WAYS
    async def test_tools_are_described(self, streaming: bool) -> None:
        sent = await self._sent(self.request(tools=[ADD, LOOK_UP]), streaming)
        for text in ("look_up_word", "Looks a word up.", "the_word", "Which word.", "add"):
            assert holds(sent, text), f"{text!r} is not in {sent.body!r}"

    @pytest.mark.parametrize("name", NO_CONVERSATIONS)
    @BOTH_WAYS
    async def test_messages_that_are_no_conversation_are_refused_before_anything_is_sent(
        self, streaming: bool, name: str
    ) -> None:
        await self._is_refused(self.request(messages=NO_CONVERSATIONS[name]), streaming)

    @BOTH_WAYS
    async def test_a_tool_that_no_server_takes_is_refused_before_anything_is_sent(
        self, streaming: bool
    ) -> None:
        tool = _Named("a name!")
        await self._is_refused(self.request(tools=[tool]), streaming)

    @BOTH_WAYS
    async def test_a_choice_of_a_tool_that_is_not_offered_is_refused(self, streaming: bool) -> None:
        await self._is_refused(self.request(tools=[ADD], tool_choice="look_up"), streaming)
        await self._is_refused(self.request(tool_choice="add"), streaming)

    @BOTH_WAYS
    async def test_a_request_with_tools_and_history_is_left_as_it_was(
        self, streaming: bool
    ) -> None:
        request = self.request(messages=[USER, ASKED, *RESULTS], tools=[ADD])
        before = request.model_dump_json()
        await self._sent(request, streaming)
        assert request.model_dump_json() == before

    @BOTH_WAYS
    async def test_a_turn_goes_back_with_its_state(self, streaming: bool) -> None:
        async with self._serving(FULL) as (provider, server):
            first = await outcome(provider, self.request(tools=[ADD]), streaming=streaming)
            message = first.succeeded().message
            server.reply = HELLO
            bodies = []
            stored = Message.model_validate_json(message.model_dump_json())
            for turn in (message, stored):
                results = [
                    Message(role="tool", content=f"result-{number}", tool_call_id=call.id)
                    for number, call in enumerate(turn.tool_calls)
                ]
                request = self.request(messages=[USER, turn, *results], tools=[ADD])
                came = await outcome(provider, request, streaming=streaming)
                agrees(came.succeeded(), HELLO, self.wire)
                bodies.append(server.requests[-1].body)
        assert bodies[0] == bodies[1], "a turn that was stored goes back otherwise"
        sent = server.requests[-1]
        lost = [text for text in self._to_go_back() if not holds(sent, text)]
        assert not lost, f"{lost} did not go back: {sent.body!r}"

    @BOTH_WAYS
    async def test_the_state_of_another_provider_is_not_sent(self, streaming: bool) -> None:
        foreign: ProviderState = {
            "somebody-else": {"content": [{"type": "text", "text": "foreign-state"}]}
        }
        call = CALLS[0].model_copy(update={"provider_state": foreign})
        asked = Message(
            role="assistant", content="Let me see.", tool_calls=[call], provider_state=foreign
        )
        messages = [USER, asked, RESULTS[0]]
        sent = await self._sent(self.request(messages=messages, tools=[ADD]), streaming)
        assert b"foreign-state" not in sent.body
        assert holds(sent, "Let me see.")

    @BOTH_WAYS
    async def test_the_key_goes_in_a_header_and_nowhere_else(self, streaming: bool) -> None:
        self._need_key()
        sent = await self._sent(self.request(), streaming)
        assert any(self.api_key in value for value in sent.headers.values()), (
            "no header has the key: does make_provider() use self.api_key?"
        )
        assert self.api_key not in sent.path
        assert self.api_key.encode() not in sent.body

    @BOTH_WAYS
    async def test_the_key_is_in_no_error(self, streaming: bool) -> None:
        self._need_key()
        said = f"Incorrect API key provided: {self.api_key}."
        refused = self.wire.error("authentication", said)
        answers = [
            Answer([refused.body], refused.status, refused.headers),
            Answer([said.encode()], 500),
            Answer([said.encode()]),
            Answer([self.wire.error_in_body("server", said)]),
            Answer(None, ending="reset"),
        ]
        if self.wire.can("error_event"):
            kind = {"content-type": self.wire.stream_type}
            answers.append(Answer([self.wire.error_event("server", said)], headers=kind))
        for answer in answers:
            error: BaseException | None = await self._refused(answer, streaming=streaming)
            while error is not None:
                shown = f"{error} {error!r} {vars(error)}"
                assert self.api_key not in shown, f"{answer} has the key in {error!r}"
                error = error.__cause__ or error.__context__

    async def test_the_key_is_not_shown_by_the_provider(self) -> None:
        self._need_key()
        async with self._serving(HELLO) as (provider, _):
            await provider.complete(self.request())
            assert (
                self.api_key not in f"{provider!r} {provider} {getattr(provider, '__dict__', '')}"
            )

    def _need_key(self) -> None:
        if not self.api_key:
            pytest.skip("this provider takes no key")

    def _to_go_back(self) -> Iterator[str]:
        yield FULL.text
        if self.wire.can("signature"):
            yield FULL.signature
        for number, call in enumerate(FULL.calls):
            yield call.name
            yield f"result-{number}"
            if self.wire.can("call_ids"):
                yield call.id


@dataclass(frozen=True)
class _Named:
    """A tool of somebody's own, which has any name."""

    name: str
    description: str = "Does something."
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
