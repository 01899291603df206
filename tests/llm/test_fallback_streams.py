"""What becomes of a stream that breaks: before its content, and after it by each policy."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether import Aether, Agent
from aether.errors import (
    AuthenticationError,
    CircuitOpenError,
    ContentFilterError,
    DeadlineExceededError,
    OverloadedError,
    ProviderError,
    ServerError,
    StreamInterruptedError,
)
from aether.events import Event
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.fallback import FallbackProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.extensions.memory import InMemorySessionStore
from aether.llm.contracts import (
    CallContext,
    ImagePart,
    LLMResponse,
    Message,
    StreamChunk,
    TextPart,
    ToolCall,
    ToolCallDelta,
)
from aether.llm.policies import AfterContent, Fallbacks
from aether.llm.streaming import final_chunk
from aether.testing import FaultServer, faults
from tests.llm.scripted import (
    Clock,
    Scripted,
    WithoutStream,
    a_request,
    an_answer,
    collect,
    deltas,
    text_until_error,
)

PREFILLS = "claude-sonnet-4-5"
POLICIES: list[AfterContent] = ["raise", "restart", "continue"]


def broken(*texts: str, error: Exception | None = None) -> list[Any]:
    """The chunks of a stream that breaks off."""
    return [*(StreamChunk(text=text) for text in texts), error or ServerError("down", status=500)]


def of(*scripts: Any, after: AfterContent = "raise", **options: Any) -> tuple[Any, list[Scripted]]:
    """A stack over a provider for each script, each of whose models goes on with a beginning."""
    providers = [
        Scripted(script, default_model=f"{PREFILLS}-{number}")
        for number, script in enumerate(scripts)
    ]
    stack = FallbackProvider(providers[0], providers[1:], after_content=after, **options)
    return stack, providers


def as_read(chunks: Sequence[StreamChunk]) -> str:
    """The text that a reader has who heeds the marks."""
    text = ""
    for chunk in chunks:
        text = chunk.text if chunk.restart else text + chunk.text
    return text


@pytest.fixture(autouse=True)
def _without_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class TestBeforeContent:
    @pytest.mark.parametrize("policy", POLICIES)
    async def test_it_falls_back_in_silence(self, policy: AfterContent) -> None:
        first = [StreamChunk(), StreamChunk(), ServerError("no")]
        stack, (a, b) = of(first, deltas("From ", "B."), after=policy)
        chunks = await collect(stack.stream(a_request()))
        assert [chunk.text for chunk in chunks] == ["", "", "From ", "B.", ""]
        assert not any(chunk.restart for chunk in chunks)
        assert chunks[-1].response is not None
        assert b.requests[0].messages == a_request().messages
        assert a.started == a.ended == b.started == b.ended == 1

    async def test_the_first_is_closed_before_another_is_asked(self) -> None:
        seen: list[int] = []
        a = Scripted([StreamChunk(), ServerError("no")])

        async def look() -> Any:
            seen.append(a.started - a.ended)
            return ANSWER

        await collect(FallbackProvider(a, [Scripted(look)]).stream(a_request()))
        assert seen == [0]

    @pytest.mark.parametrize("first", [[], [StreamChunk()]], ids=["nothing", "empty chunk"])
    async def test_an_end_without_a_final_chunk_is_a_failure(self, first: Any) -> None:
        stack, _ = of(first, deltas("From B."))
        assert as_read(await collect(stack.stream(a_request()))) == "From B."

    async def test_an_answer_that_is_none_is_asked_for_elsewhere(self) -> None:
        wrong: Any = StreamChunk(response="text")  # type: ignore[arg-type]
        for scripts in ([[wrong]], [ServerError("no"), [wrong]]):
            stack, _ = of(*scripts, deltas("From C."))
            assert as_read(await collect(stack.stream(a_request()))) == "From C."

    async def test_an_empty_answer_is_an_answer(self) -> None:
        stack, (_, b) = of([final_chunk(an_answer(""))], deltas("From B."))
        assert [chunk.text for chunk in await collect(stack.stream(a_request()))] == [""]
        assert b.calls == 0

    async def test_a_fallback_without_streams_gives_its_answer_in_one_chunk(self) -> None:
        b = WithoutStream(Scripted(an_answer("From B.")))
        stack = FallbackProvider(Scripted(ServerError("no")), [b])
        [chunk] = await collect(stack.stream(a_request()))
        assert (chunk.text, chunk.is_final) == ("From B.", True)

    async def test_if_all_fail_the_last_error_tells_how_the_others_did(self) -> None:
        stack, _ = of(ServerError("no", status=500), [StreamChunk(), OverloadedError("busy")])
        _, error = await text_until_error(stack.stream(a_request()))
        assert isinstance(error, OverloadedError)
        assert error.partial is None
        assert "ServerError (status 500): no" in "".join(error.__notes__)


ANSWER = an_answer("From B.")


class TestRaise:
    async def test_is_the_default_and_has_the_part(self) -> None:
        stack, (_, b) = of(broken("It ", "is"), deltas("From B."))
        text, error = await text_until_error(stack.stream(a_request()))
        assert text == "It is"
        assert isinstance(error, StreamInterruptedError)
        assert error.partial is not None
        assert error.partial.text == "It is"
        assert b.calls == 0

    @pytest.mark.parametrize(
        "content",
        [StreamChunk(reasoning="Hm."), StreamChunk(tool_call=ToolCallDelta(0, name="add"))],
        ids=["reasoning", "tool call"],
    )
    async def test_reasoning_and_tool_calls_are_content_too(self, content: StreamChunk) -> None:
        stack, (_, b) = of([content, ServerError("no")], deltas("From B."))
        _, error = await text_until_error(stack.stream(a_request()))
        assert isinstance(error, StreamInterruptedError)
        assert b.calls == 0

    async def test_a_fallback_that_breaks_tells_of_the_first(self) -> None:
        stack, (_, _, c) = of(ServerError("no", status=503), broken("Fr"), deltas("From C."))
        text, error = await text_until_error(stack.stream(a_request()))
        assert text == "Fr"
        assert isinstance(error, StreamInterruptedError)
        assert "ServerError (status 503): no" in "".join(error.__notes__)
        assert error.attempts == 2
        assert c.calls == 0

    @pytest.mark.parametrize("policy", POLICIES)
    async def test_what_fails_behind_the_final_chunk_is_raised(self, policy: AfterContent) -> None:
        error = ServerError("late")
        stack, (_, b) = of([*deltas("Whole."), error], deltas("From B."), after=policy)
        text, raised = await text_until_error(stack.stream(a_request()))
        assert (text, raised) == ("Whole.", error)
        assert b.calls == 0


class TestRestart:
    async def test_a_mark_and_then_the_whole_answer(self) -> None:
        stack, _ = of(broken("It ", "is"), deltas("From ", "B."), after="restart")
        chunks = await collect(stack.stream(a_request()))
        assert [(chunk.text, chunk.restart) for chunk in chunks] == [
            ("It ", False),
            ("is", False),
            ("", True),
            ("From ", False),
            ("B.", False),
            ("", False),
        ]
        final = chunks[-1].response
        assert final is not None
        assert final.text == as_read(chunks) == "From B."
        assert final.attempts == 2

    async def test_the_mark_comes_only_with_content(self) -> None:
        stack, _ = of(
            broken("It "), [StreamChunk(), ServerError("no")], deltas("From C."), after="restart"
        )
        chunks = await collect(stack.stream(a_request()))
        assert [chunk.restart for chunk in chunks] == [False, False, True, False, False]
        assert as_read(chunks) == "From C."

    async def test_it_may_begin_anew_more_than_once(self) -> None:
        stack, _ = of(broken("It "), broken("Fr"), deltas("From C."), after="restart")
        chunks = await collect(stack.stream(a_request()))
        assert [chunk.text for chunk in chunks] == ["It ", "", "Fr", "", "From C.", ""]
        assert sum(chunk.restart for chunk in chunks) == 2

    async def test_an_empty_answer_begins_anew_too(self) -> None:
        stack, _ = of(broken("It "), [final_chunk(an_answer(""))], after="restart")
        chunks = await collect(stack.stream(a_request()))
        assert [(chunk.text, chunk.restart) for chunk in chunks[1:]] == [("", True), ("", False)]

    async def test_if_nobody_takes_over_the_error_has_what_the_reader_has(self) -> None:
        stack, _ = of(broken("It ", "is"), OverloadedError("busy", status=529), after="restart")
        text, error = await text_until_error(stack.stream(a_request()))
        assert text == "It is"
        assert isinstance(error, StreamInterruptedError)
        assert isinstance(error.__cause__, OverloadedError)
        assert error.partial is not None
        assert error.partial.text == "It is"
        assert "ServerError (status 500): down" in "".join(error.__notes__)

    async def test_after_a_second_break_the_part_is_that_of_the_second(self) -> None:
        stack, _ = of(broken("It "), broken("Fr"), after="restart")
        text, error = await text_until_error(stack.stream(a_request()))
        assert text == "It Fr"
        assert isinstance(error, ProviderError)
        assert error.partial is not None
        assert error.partial.text == "Fr"

    async def test_a_wrong_key_of_the_other_is_raised_with_the_part(self) -> None:
        key = AuthenticationError("wrong key", status=401)
        stack, _ = of(broken("It "), key, after="restart")
        _, error = await text_until_error(stack.stream(a_request()))
        assert error is key
        assert key.partial is not None
        assert key.partial.text == "It "

    async def test_an_error_without_a_part_does_not_lose_it(self) -> None:
        stack, _ = of(
            OverloadedError("busy", status=529),
            broken("It "),
            ServerError("no"),
            CircuitOpenError("open", retry_after=1.0),
            after="restart",
        )
        _, error = await text_until_error(stack.stream(a_request()))
        assert isinstance(error, StreamInterruptedError)
        assert error.partial is not None
        assert error.partial.text == "It "
        assert "".join(error.__notes__).replace(PREFILLS, "m") == (
            "No other could answer: Scripted ('m-0'): OverloadedError (status 529): busy; "
            "Scripted ('m-2'): ServerError: no; Scripted ('m-3'): CircuitOpenError: open"
        )
        assert error.attempts == 3

    async def test_a_callers_own_fault_is_raised(self) -> None:
        refused = ContentFilterError("no")
        stack, (_, b) = of(broken("It ", error=refused), deltas("From B."), after="restart")
        _, error = await text_until_error(stack.stream(a_request()))
        assert error is refused
        assert refused.partial is not None
        assert refused.partial.text == "It "
        assert b.calls == 0

    async def test_at_the_deadline_nobody_begins_anew(self) -> None:
        clock = Clock()
        stack, (_, b) = of(broken("It "), deltas("From B."), after="restart", clock=clock)
        request = a_request(context=CallContext(deadline=clock.now))
        _, error = await text_until_error(stack.stream(request))
        assert isinstance(error, StreamInterruptedError)
        assert "deadline has come" in "".join(error.__notes__)
        assert b.calls == 0

    async def test_a_deadline_of_the_other_has_the_part(self) -> None:
        late = DeadlineExceededError("over")
        stack, _ = of(broken("It "), late, after="restart")
        _, error = await text_until_error(stack.stream(a_request()))
        assert error is late
        assert late.partial is not None
        assert late.partial.text == "It "


class TestContinue:
    async def test_the_deltas_go_on(self) -> None:
        stack, (_, b) = of(broken("It ", "is"), deltas(" fo", "rty."), after="continue")
        chunks = await collect(stack.stream(a_request()))
        assert [chunk.text for chunk in chunks] == ["It ", "is", " fo", "rty.", ""]
        assert not any(chunk.restart for chunk in chunks)
        final = chunks[-1].response
        assert final is not None
        assert final.text == final.message.text == "It is forty."
        assert (final.input_tokens, final.output_tokens) == (10, 5)
        assert final.attempts == 2
        assert b.requests[0].messages == (*a_request().messages, Message("assistant", "It is"))

    async def test_no_reasoning_is_asked_for(self) -> None:
        stack, (_, b) = of(broken("It"), deltas(" is."), after="continue")
        await collect(stack.stream(a_request(reasoning="high")))
        assert b.requests[0].reasoning is None

    @pytest.mark.parametrize(
        ("begun", "more", "whole"),
        [
            ("It is ", " 42.", "It is 42."),
            ("It is ", "42.", "It is 42."),
            ("It is \n\n", "\n42.", "It is \n\n\n42."),
            ("It is\n\n", "\n\n42.", "It is\n\n42."),
            ("It is\n\n", "\n42.", "It is\n\n42."),
            ("It is", " 42.", "It is 42."),
        ],
    )
    async def test_white_space_at_the_seam_is_said_once(
        self, begun: str, more: str, whole: str
    ) -> None:
        for pieces in ([more], list(more)):
            stack, (_, b) = of(broken(begun), deltas(*pieces), after="continue")
            chunks = await collect(stack.stream(a_request()))
            assert as_read(chunks) == whole
            assert chunks[-1].response is not None
            assert chunks[-1].response.text == whole
            assert b.requests[0].messages[-1].text == begun.rstrip()

    async def test_only_by_a_model_that_is_known_to(self) -> None:
        cannot = Scripted(deltas("From B."), default_model="gpt-6-luna")
        unknown = Scripted(deltas("From C."))
        can = Scripted(deltas(" is."), default_model=PREFILLS)
        error: Any = None
        for others, text in (([cannot, unknown, can], "It is."), ([cannot, unknown], "It")):
            stack = FallbackProvider(Scripted(broken("It")), others, after_content="continue")
            seen, error = await text_until_error(stack.stream(a_request()))
            assert seen == text
            assert (error is None) is (can in others)
        assert cannot.calls == unknown.calls == 0
        assert isinstance(error, StreamInterruptedError)
        assert error.partial is not None
        assert error.partial.text == "It"

    @pytest.mark.parametrize(
        ("begun", "fields"),
        [
            ([StreamChunk(reasoning="Hm.")], {}),
            ([StreamChunk(text=" \n")], {}),
            ([StreamChunk(text="I "), StreamChunk(tool_call=ToolCallDelta(0, name="add"))], {}),
            ([StreamChunk(text="{")], {"output_schema": {"type": "object"}}),
            ([StreamChunk(text="I ")], {"tool_choice": "required"}),
        ],
        ids=["reasoning", "white space", "tool call", "schema", "forced tool"],
    )
    async def test_not_what_cannot_be_gone_on_with(self, begun: Any, fields: Any) -> None:
        stack, (_, b) = of([*begun, ServerError("no")], deltas("B"), after="continue")
        _, error = await text_until_error(stack.stream(a_request(**fields)))
        assert isinstance(error, StreamInterruptedError)
        assert b.calls == 0

    async def test_not_behind_a_beginning_of_the_callers(self) -> None:
        stack, (_, b) = of(broken("is"), deltas("B"), after="continue")
        request = a_request()
        request = request.replace(messages=(*request.messages, Message("assistant", "It")))
        _, error = await text_until_error(stack.stream(request))
        assert isinstance(error, StreamInterruptedError)
        assert b.calls == 0

    async def test_it_may_break_again(self) -> None:
        stack, (_, _, c) = of(broken("It "), broken("is "), deltas("42."), after="continue")
        chunks = await collect(stack.stream(a_request()))
        assert as_read(chunks) == "It is 42."
        assert c.requests[0].messages[-1].text == "It is"
        stack, _ = of(broken("It "), broken("is "), after="continue")
        text, error = await text_until_error(stack.stream(a_request()))
        assert text == "It is "
        assert isinstance(error, ProviderError)
        assert error.partial is not None
        assert error.partial.text == error.partial.message.text == "It is "
        assert error.partial.model == f"{PREFILLS}-1"

    async def test_what_an_inner_layer_says_of_the_part_is_not_all(self) -> None:
        lines = [
            RetryingProvider(Scripted(broken(text), default_model=PREFILLS), max_attempts=1)
            for text in ("It ", "is ")
        ]
        stack = FallbackProvider(lines[0], lines[1:], after_content="continue")
        text, error = await text_until_error(stack.stream(a_request()))
        assert text == "It is "
        assert isinstance(error, StreamInterruptedError)
        assert error.partial is not None
        assert error.partial.text == "It is "

    async def test_if_nobody_goes_on_the_error_has_the_part(self) -> None:
        stack, _ = of(broken("It "), OverloadedError("busy"), after="continue")
        text, error = await text_until_error(stack.stream(a_request()))
        assert text == "It "
        assert isinstance(error, StreamInterruptedError)
        assert error.partial is not None
        assert error.partial.text == "It "

    async def test_calls_parts_and_no_foreign_state_are_in_the_message(self) -> None:
        call = ToolCall("1", "add", {"a": 1})
        image = ImagePart(url="https://example.com/a.png")
        message = Message(
            "assistant",
            [TextPart(text=" is."), image],
            tool_calls=[call],
            provider_state={"anthropic": {"blocks": [{"type": "text", "text": " is."}]}},
        )
        answer = an_answer(" is.", tool_calls=[call], message=message)
        stack, _ = of(broken("It"), deltas(" is.", answer=answer), after="continue")
        final = (await collect(stack.stream(a_request())))[-1].response
        assert final is not None
        assert final.message.content == [TextPart(text="It is."), image]
        assert final.message.tool_calls == final.tool_calls == [call]
        assert final.message.provider_state == {}

    async def test_reasoning_before_the_text_stays_in_the_response(self) -> None:
        first = [StreamChunk(reasoning="Hm."), *broken("It")]
        stack, _ = of(first, deltas(" is."), after="continue")
        final = (await collect(stack.stream(a_request())))[-1].response
        assert final is not None
        assert (final.reasoning, final.text) == ("Hm.", "It is.")

    async def test_an_answer_in_one_final_chunk_is_joined_too(self) -> None:
        whole = [final_chunk(an_answer(" is."), text=" is.")]
        stack, _ = of(broken("It"), whole, after="continue")
        chunks = await collect(stack.stream(a_request()))
        assert as_read(chunks) == "It is."
        assert chunks[-1].response is not None
        assert chunks[-1].response.text == "It is."

    async def test_both_calls_are_in_the_ledger(self) -> None:
        stack, _ = of(broken("It"), deltas(" is."), after="continue")
        tracked = CostTrackingProvider(stack)
        await collect(tracked.stream(a_request()))
        entries = tracked.usage.ledger
        assert [each.state for each in entries] == ["estimated", "exact"]
        assert [each.error for each in entries] == ["ServerError", None]

    async def test_over_the_wire_the_part_is_prefilled(self, aftermath: Any) -> None:
        cut: Any = [faults.cut(texts=2), faults.Reply("One two three four five six seven.")]
        async with FaultServer(cut) as first, FaultServer("and so on.") as second:
            other = Aether(config=second.config("anthropic", api_key=aftermath.key, model=PREFILLS))
            config = first.config("openai", api_key=aftermath.key)
            fallbacks = Fallbacks([other.provider], after_content="continue")
            async with other, Aether(config=config, fallbacks=fallbacks) as client:
                chunks = [chunk async for chunk in client.stream("Count.")]
        final = chunks[-1].response
        assert final is not None
        begun = final.text.removesuffix("and so on.")
        assert begun
        assert "One two three".startswith(begun.strip()[:9])
        assert as_read(chunks) == final.text == final.message.text
        [sent] = second.requests
        assert begun.rstrip() in sent.body.decode()


class TestAroundAnother:
    """Of several, one may be a fallback itself, whose answer begins anew."""

    @staticmethod
    def restarting(*scripts: Any) -> FallbackProvider:
        return of(*scripts, after="restart")[0]  # type: ignore[no-any-return]

    async def test_what_is_void_is_not_gone_on_with(self) -> None:
        inner = self.restarting(broken("It "), broken("Fr"))
        other = Scripted(deltas("om C."), default_model=PREFILLS)
        stack = FallbackProvider(inner, [other], after_content="continue")
        chunks = await collect(stack.stream(a_request()))
        assert other.requests[0].messages[-1].text == "Fr"
        assert chunks[-1].response is not None
        assert chunks[-1].response.text == as_read(chunks) == "From C."

    async def test_what_is_void_is_no_part_of_an_error(self) -> None:
        restarting = [StreamChunk(text="It "), StreamChunk(restart=True), *broken("Fr")]
        for after in POLICIES:
            stack, _ = of(restarting, CircuitOpenError("open", retry_after=1.0), after=after)
            _, error = await text_until_error(stack.stream(a_request()))
            assert isinstance(error, StreamInterruptedError)
            assert error.partial is not None
            assert error.partial.text == "Fr"

    @pytest.mark.parametrize("more", ["was.", " was."])
    async def test_one_that_goes_on_and_begins_anew_voids_its_own_part(self, more: str) -> None:
        inner = self.restarting(broken("is "), deltas(more))
        first = Scripted([StreamChunk(reasoning="Hm."), *broken("It ")])
        stack = FallbackProvider(first, [inner], after_content="continue")
        chunks = await collect(stack.stream(a_request()))
        [mark] = [chunk for chunk in chunks if chunk.restart]
        assert (mark.reasoning, mark.text) == ("Hm.", "It ")
        final = chunks[-1].response
        assert final is not None
        assert final.text == as_read(chunks) == "It was."
        assert final.reasoning == "Hm."

    async def test_and_so_does_a_part_that_breaks_again(self) -> None:
        inner = self.restarting(broken("is "), broken("was "))
        last = Scripted(deltas("42."), default_model=PREFILLS)
        stack = FallbackProvider(Scripted(broken("It ")), [inner, last], after_content="continue")
        chunks = await collect(stack.stream(a_request()))
        assert last.requests[0].messages[-1].text == "It was"
        assert chunks[-1].response is not None
        assert chunks[-1].response.text == as_read(chunks) == "It was 42."


class TestReaders:
    """Who reads a stream that begins anew, whatever it is of, gets no text twice in silence."""

    @staticmethod
    def client(*first: str, second: Any = None, **options: Any) -> Aether:
        b = Scripted(second or deltas("From ", "B."))
        fallbacks = Fallbacks([b], after_content="restart")
        return Aether(Scripted(broken(*(first or ("It ",)))), fallbacks=fallbacks, **options)

    async def test_a_client_hands_out_the_mark(self) -> None:
        async with self.client() as client:
            chunks = [chunk async for chunk in client.stream("Hi")]
        assert [(chunk.text, chunk.restart) for chunk in chunks[:3]] == [
            ("It ", False),
            ("", True),
            ("From ", False),
        ]
        assert chunks[-1].response is not None
        assert chunks[-1].response.text == as_read(chunks) == "From B."

    @pytest.mark.parametrize("way", ["client", "session", "agent", "sync"])
    async def test_text_alone_is_an_error_that_says_what_to_read(self, way: str) -> None:
        async with self.client() as client:
            sources: dict[str, Any] = {
                "client": client,
                "session": client.session("s"),
                "agent": Agent("a", client=client),
                "sync": client.sync,
            }
            texts = sources[way].stream_text("Hi")

            async def following() -> Any:
                return next(texts) if way == "sync" else await anext(texts)

            assert await following() == "It "
            with pytest.raises(StreamInterruptedError, match=r"Read stream\(\)") as caught:
                await following()
            assert not caught.value.retryable

    async def test_text_of_which_there_was_none_may_begin_anew(self) -> None:
        thinking = Scripted([StreamChunk(reasoning="Hm."), ServerError("down")])
        fallbacks = Fallbacks([Scripted(deltas("From ", "B."))], after_content="restart")
        async with Aether(thinking, fallbacks=fallbacks) as client:
            assert [text async for text in client.stream_text("Hi")] == ["From ", "B."]

    async def test_a_session_stores_the_answer_alone(self) -> None:
        store = InMemorySessionStore()
        async with self.client(memory_store=store) as client:
            async for _ in client.session("s").stream("Hi"):
                pass
            assert [each.text for each in await client.session("s").history()] == ["Hi", "From B."]

    async def test_a_preview_begins_anew(self) -> None:
        second = deltas("[4", "2]")
        async with self.client("[1, ", "2", second=second) as client:
            seen = [
                (chunk.restart, chunk.partial)
                async for chunk in client.stream("Hi", output=list[int])
            ]
        assert seen[:2] == [(False, [1]), (False, [1])]
        at = [restart for restart, _ in seen].index(True)
        assert seen[at] == (True, None)
        assert all(partial in ([], [42], None) for _, partial in seen[at:])

    async def test_the_mark_is_published(self) -> None:
        events: list[Event] = []
        client = self.client()
        for name in ("stream.start", "stream.chunk", "stream.complete", "stream.error"):
            client.on(name)(events.append)
        async with client:
            async for _ in client.stream("Hi"):
                pass
        told = [event.chunk.restart for event in events if event.chunk is not None]
        assert told == [False, True, False, False]
        assert [events[0].name, events[-1].name] == ["stream.start", "stream.complete"]


class TestClosing:
    @pytest.mark.parametrize("policy", ["restart", "continue"])
    @pytest.mark.parametrize("count", range(1, 6))
    async def test_leaving_at_any_chunk_closes_what_is_open(
        self, policy: AfterContent, count: int
    ) -> None:
        stack, providers = of(broken("It ", "is "), deltas("so ", "it ", "is."), after=policy)
        stream = stack.stream(a_request())
        for _ in range(count):
            await anext(stream)
        await stream.aclose()
        assert [each.started - each.ended for each in providers] == [0, 0]

    @pytest.mark.parametrize("policy", POLICIES)
    @pytest.mark.parametrize("end", ["whole", "down", "open", "again"])
    async def test_nothing_of_a_call_waits_for_the_collector(
        self, policy: AfterContent, end: str
    ) -> None:
        """Neither an error nor the call is part of a cycle: they go with the last reference."""

        class Raising:
            default_model = PREFILLS

            def __init__(self, end: str) -> None:
                self._end = end

            async def complete(self, request: Any) -> Any:
                raise NotImplementedError

            async def stream(self, request: Any) -> Any:
                if self._end == "open":
                    raise CircuitOpenError("open", retry_after=1.0)
                if self._end != "down":
                    yield StreamChunk(text="It ")
                if self._end != "whole":
                    raise ServerError("down")
                yield final_chunk(an_answer("It "))

        providers = [Raising("again"), Raising(end)]
        stack = FallbackProvider(providers[0], providers[1:], after_content=policy)
        await text_until_error(stack.stream(a_request()))
        gc.collect()
        await text_until_error(stack.stream(a_request()))
        assert not [each for each in _garbage() if type(each).__name__ in ("_Call", "Branch")]


def _garbage() -> list[Any]:
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return list(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


# --- random scripts ---------------------------------------------------------------------------

PIECES = st.lists(st.sampled_from(["a", "b ", "c", " d", ""]), max_size=3)
ENDS: dict[str, Callable[[], Exception]] = {
    "down": lambda: ServerError("down"),
    "open": lambda: CircuitOpenError("open", retry_after=1.0),
    "own": lambda: AuthenticationError("no", status=401),
    "odd": lambda: RuntimeError("odd"),
}
SCRIPTS = st.tuples(PIECES, st.sampled_from(["whole", "cut", *ENDS]))


@given(st.lists(SCRIPTS, min_size=2, max_size=4), st.sampled_from(POLICIES))
def test_a_reader_has_one_whole_answer_or_an_error_with_what_he_has(
    scripts: list[tuple[list[str], str]], policy: AfterContent
) -> None:
    asyncio.run(_play(scripts, policy))


async def _play(scripts: list[tuple[list[str], str]], policy: AfterContent) -> None:
    played: list[list[Any]] = []
    scripts = [([], end) if end == "open" else (texts, end) for texts, end in scripts]
    for texts, end in scripts:
        chunks: list[Any] = [StreamChunk(text=text) for text in texts]
        if end == "whole":
            chunks.append(final_chunk(an_answer("".join(texts))))
        elif end != "cut":
            chunks.append(ENDS[end]())
        played.append(chunks)
    stack, providers = of(*played, after=policy)
    tracked = CostTrackingProvider(stack)
    seen: list[StreamChunk] = []
    error: Exception | None = None
    try:
        async for chunk in tracked.stream(a_request()):
            seen.append(chunk)  # noqa: PERF401 - an error comes out of the loop
    except Exception as raised:  # noqa: BLE001 - whatever it is, it is judged
        error = raised
    read = as_read(seen)
    assert [each.started - each.ended for each in providers] == [0] * len(providers)
    asked = [number for number, each in enumerate(providers) if each.calls]
    assert asked == list(range(len(asked))) or policy == "continue"
    last_texts, last_end = scripts[asked[-1]]
    if error is None:
        assert last_end == "whole"
        final = seen[-1].response
        assert final is not None
        assert final.text == final.message.text == read
        assert sum(chunk.is_final for chunk in seen) == 1
        if policy != "continue":
            assert read == "".join(last_texts)
        else:
            assert read.replace(" ", "") == "".join(
                "".join(scripts[number][0]) for number in asked
            ).replace(" ", "")
    else:
        assert last_end != "whole"
        assert not any(chunk.is_final for chunk in seen)
        if read and isinstance(error, ProviderError):
            assert error.partial is not None
            assert error.partial.text == read
    sent = [number for number in asked if scripts[number][1] != "open"]  # else nothing was
    assert len(tracked.usage.ledger) == len(sent)


async def test_a_retry_inside_is_asked_first() -> None:
    a = Scripted([StreamChunk(), ServerError("no")], deltas("From ", "A."))
    b = Scripted(deltas("From B."))
    stack = FallbackProvider(RetryingProvider(a, random=lambda: 0.0), [b])
    assert as_read(await collect(stack.stream(a_request()))) == "From A."
    assert b.calls == 0


async def test_a_final_chunk_without_a_response_is_made_whole_by_the_client() -> None:
    bare = [StreamChunk(text=" is."), StreamChunk(finish_reason="stop")]
    a, b = Scripted(broken("It")), Scripted(bare, default_model=PREFILLS)
    fallbacks = Fallbacks([b], after_content="continue")
    async with Aether(a, fallbacks=fallbacks) as client:
        chunks = [chunk async for chunk in client.stream("Hi")]
    final = chunks[-1].response
    assert isinstance(final, LLMResponse)
    assert final.text == "It is."
