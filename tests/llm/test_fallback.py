"""Whom a call falls back to, after which errors, and what it says of it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from aether import Aether
from aether.config import ProviderConfig
from aether.errors import (
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    CircuitOpenError,
    ClientClosedError,
    ConfigurationError,
    ContentFilterError,
    ContextLengthError,
    DeadlineExceededError,
    InputError,
    MissingExtraError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
    UnknownNameError,
)
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.fake import FakeProvider
from aether.extensions.llm.fallback import FallbackProvider
from aether.extensions.llm.hedging import HedgingProvider
from aether.extensions.llm.openai import OpenAIProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.budget import Budget
from aether.llm.contracts import CallContext, LLMProvider, LLMResponse, Message
from aether.llm.policies import Fallbacks, Hedge
from aether.testing import FaultServer, faults
from aether.testing.providers import AdapterConformance, ProviderConformance
from aether.testing.wires import OpenAIChatWire
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


class TheirError(ProviderError):
    """A third party's own class of errors."""


class TheirOwnError(Exception):
    """Nobody has foreseen it."""


def _broken_off(cause: Exception) -> StreamInterruptedError:
    error = StreamInterruptedError("broke off")
    error.__cause__ = cause
    return error


AGAINST_THE_PROVIDER = [
    ProviderConnectionError("reset"),
    ProviderConnectionError("bad certificate", retryable=False),
    RequestTimeoutError("slow"),
    RequestTimeoutError("slow", status=408, retryable=False),
    OverloadedError("busy", status=529),
    ServerError("no", status=500),
    ServerError("no", status=501, retryable=False),
    RateLimitError("slow down", status=429),
    RateLimitError("slow down", status=429, retryable=False),
    QuotaExceededError("no credit", status=429),
    QuotaExceededError("no credit", status=402),
    CircuitOpenError("open", retry_after=1.0),
    ProtocolError("an HTML page", status=200),
    StreamInterruptedError("cut"),
    _broken_off(ServerError("no")),
    ProviderError("nobody knows"),
    ProviderError("conflict", status=409, retryable=True),
    TheirError("bad gateway", status=502),
    RuntimeError("boom"),
    TheirOwnError("boom"),
    OSError("no route"),
    TimeoutError("slow"),
]
THE_CALLERS_OWN = [
    BadRequestError("no", status=400),
    ContextLengthError("too long", status=400),
    ContentFilterError("no"),
    AuthenticationError("no", status=401),
    PermissionDeniedError("no", status=403),
    NotFoundError("no", status=404),
    ProviderError("teapot", status=418),
    TheirError("teapot", status=418),
    _broken_off(ContentFilterError("no")),
    InputError("no"),
    ConfigurationError("no"),
    MissingExtraError("no"),
    BudgetExceededError("nothing left"),
    DeadlineExceededError("over"),
    ClientClosedError("closed"),
]
ANSWERED = an_answer("From B.", model="b-1", provider="b")


def two(first: Any, *second: Any, **options: Any) -> tuple[FallbackProvider, Scripted, Scripted]:
    a = Scripted(first, default_model="a-1")
    b = Scripted(*(second or (ANSWERED,)), default_model="b-1")
    return FallbackProvider(a, [b], **options), a, b


async def error_of(provider: Any, request: Any = None) -> Any:
    with pytest.raises(Exception) as caught:
        await provider.complete(request or a_request())
    return caught.value


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


class TestWhichErrors:
    @pytest.mark.parametrize("error", AGAINST_THE_PROVIDER, ids=repr)
    async def test_after_an_error_that_speaks_against_the_provider_another_is_asked(
        self, error: Exception
    ) -> None:
        stack, _, b = two(error)
        assert (await stack.complete(a_request())).text == "From B."
        assert (
            "".join([each.text for each in await collect(stack.stream(a_request()))]) == "From B."
        )
        assert b.calls == 2

    @pytest.mark.parametrize("error", THE_CALLERS_OWN, ids=repr)
    async def test_a_callers_own_fault_is_raised_as_it_is(self, error: Exception) -> None:
        stack, _, b = two(error)
        assert await error_of(stack) is error
        _, raised = await text_until_error(stack.stream(a_request()))
        assert raised is error
        assert b.calls == 0
        assert notes(error) == ""

    async def test_an_answer_that_is_none_is_asked_for_elsewhere(self) -> None:
        class Wrong:
            async def complete(self, request: Any) -> Any:
                return "text"

        stack = FallbackProvider(Wrong(), [Scripted(ANSWERED)])
        assert (await stack.complete(a_request())).text == "From B."

    async def test_the_user_may_decide_otherwise(self) -> None:
        asked: list[Exception] = []

        def too_long(error: Exception) -> bool:
            asked.append(error)
            return isinstance(error, ContextLengthError)

        stack, _, _ = two(ContextLengthError("too long"), on=too_long)
        assert (await stack.complete(a_request())).text == "From B."
        stack, _, b = two(RuntimeError("boom"), on=too_long)
        error = await error_of(stack)
        assert type(error) is ProviderError
        assert isinstance(error.__cause__, RuntimeError)
        assert b.calls == 0
        assert [type(each) for each in asked] == [ContextLengthError, ProviderError]

    @pytest.mark.parametrize(
        "error", [DeadlineExceededError("over"), ClientClosedError("closed")], ids=repr
    )
    async def test_but_not_of_an_end(self, error: Exception) -> None:
        stack, _, b = two(error, on=lambda _: True)
        assert await error_of(stack) is error
        assert b.calls == 0

    async def test_a_cancellation_goes_on(self) -> None:
        stack, _, b = two(asyncio.CancelledError(), on=lambda _: True)
        with pytest.raises(asyncio.CancelledError):
            await stack.complete(a_request())
        with pytest.raises(asyncio.CancelledError):
            await collect(stack.stream(a_request()))
        assert b.calls == 0

    async def test_when_no_time_is_left_nobody_else_is_asked(self) -> None:
        clock = Clock()

        async def slow() -> Any:
            await clock.wait(5.0)
            return ServerError("no")

        stack, _, b = two(slow, clock=clock)
        context = CallContext(deadline=clock.now + 5.0)
        [error] = await clock.run(stack.complete(a_request(context=context)))
        assert isinstance(error, ServerError)
        assert "deadline has come" in notes(error)
        assert b.calls == 0

    async def test_a_reservation_must_have_room_for_another_call(self) -> None:
        class Reserved:
            def __init__(self, room: int) -> None:
                self.room = room

            def extend(self) -> bool:
                self.room -= 1
                return self.room >= 0

        for room, calls in ((0, 0), (1, 1)):
            stack, _, b = two(ServerError("no"), ServerError("neither"))
            context = CallContext()
            context.reservation = Reserved(room)
            error = await error_of(stack, a_request(context=context))
            assert ("a budget does not have enough left" in notes(error)) is (room == 0)
            assert b.calls == calls


class TestTheOrder:
    async def test_each_is_asked_in_turn_until_one_answers(self) -> None:
        failing = [Scripted(ServerError("no"), default_model=f"m-{n}") for n in range(3)]
        last = Scripted(ANSWERED)
        spare = Scripted(an_answer("too many"))
        stack = FallbackProvider(failing[0], [*failing[1:], last, spare])
        assert (await stack.complete(a_request())).text == "From B."
        assert [each.calls for each in (*failing, last, spare)] == [1, 1, 1, 1, 0]

    async def test_each_call_begins_with_the_first(self) -> None:
        stack, a, b = two(ServerError("no"))
        a.script = (ServerError("no"), an_answer("From A."))
        texts = [(await stack.complete(a_request())).text for _ in range(2)]
        assert texts == ["From B.", "From A."]
        assert b.calls == 1

    async def test_if_all_fail_the_last_error_tells_how_the_others_did(self) -> None:
        a = Scripted(OverloadedError("busy", status=529, provider="acme", model="a-1"))
        b = Scripted(CircuitOpenError("open", retry_after=1.0, provider="beta", model="b-1"))
        c = Scripted(RuntimeError("boom"), default_model="c-1")
        d = Scripted(ServerError("down", status=500), default_model="d-1")
        error = await error_of(FallbackProvider(a, [b, c, d]))
        assert isinstance(error, ServerError)
        assert notes(error) == (
            "Asked before, and failed: acme ('a-1'): OverloadedError (status 529): busy; "
            "beta ('b-1'): CircuitOpenError: open; Scripted ('c-1'): ProviderError: The provider "
            "raised RuntimeError: boom"
        )

    async def test_a_fallbacks_wrong_key_is_not_hidden(self) -> None:
        c = Scripted(ANSWERED)
        stack = FallbackProvider(
            Scripted(ServerError("no", status=500)),
            [Scripted(AuthenticationError("wrong key", status=401)), c],
        )
        error = await error_of(stack)
        assert isinstance(error, AuthenticationError)
        assert "ServerError (status 500): no" in notes(error)
        assert c.calls == 0

    async def test_the_same_error_raised_twice_has_its_notes_once(self) -> None:
        stack, _, _ = two(ServerError("no"), ServerError("neither"))
        first, second = [await error_of(stack) for _ in range(2)]
        assert first is second
        assert len(first.__notes__) == 1

    async def test_falling_back_is_logged_without_what_was_said(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        stack, _, _ = two(ServerError("sk-secret"))
        with caplog.at_level(logging.DEBUG):
            await stack.complete(a_request())
        assert "ServerError" in caplog.text
        assert "sk-secret" not in caplog.text

    async def test_a_fallback_equal_to_the_first_is_asked_again(self) -> None:
        a = Scripted(ServerError("no"), an_answer("Now."))
        assert (await FallbackProvider(a, [a]).complete(a_request())).text == "Now."


class TestWhatAFallbackIsSent:
    async def test_the_same_conversation_and_options_but_its_own_model(self) -> None:
        stack, a, b = two(ServerError("no"))
        request = a_request(
            model="a-2", temperature=0.5, max_tokens=7, tool_choice="none", stop=("x",), seed=3
        )
        await stack.complete(request)
        await collect(stack.stream(request))
        assert [each.model for each in a.requests] == ["a-2", "a-2"]
        for sent in b.requests:
            assert sent.replace(context=None) == request.replace(model=None)

    async def test_nothing_that_was_meant_for_the_first_alone(self) -> None:
        stack, a, b = two(ServerError("no"))
        request = a_request(
            extra_body={"store": True}, extra_headers={"X-Gateway-Key": "for A alone"}
        )
        await stack.complete(request)
        assert a.requests[0].extra_headers == {"X-Gateway-Key": "for A alone"}
        assert b.requests[0].extra_headers == {}
        assert b.requests[0].extra_body == {}

    async def test_a_context_of_its_own_with_the_calls_ids_and_limits(self) -> None:
        stack, a, b = two(ServerError("no"))
        context = CallContext(deadline=1e12, cache=False)
        context.kept["adapter"] = object()
        context.on_headers = lambda _: None
        await stack.complete(a_request(context=context))
        assert a.requests[0].context is context
        branch = b.requests[0].context
        assert branch is not None
        assert branch is not context
        assert (branch.run_id, branch.call_id) == (context.run_id, context.call_id)
        assert (branch.deadline, branch.cache) == (1e12, False)
        assert (branch.kept, branch.on_headers, branch.admission) == ({}, None, None)


class TestWhoAnswered:
    async def test_the_response_says_who(self) -> None:
        stack, _, _ = two(ServerError("no"))
        response = await stack.complete(a_request())
        assert (response.provider, response.model) == ("b", "b-1")
        final = (await collect(stack.stream(a_request())))[-1]
        assert final.response is not None
        assert (final.response.provider, final.response.model) == ("b", "b-1")

    async def test_a_first_that_answers_is_handed_out_as_it_is(self) -> None:
        answer = an_answer("From A.")
        stack, _, b = two(answer)
        assert await stack.complete(a_request()) is answer
        chunks = await collect(stack.stream(a_request()))
        assert chunks[-1].response is answer
        assert b.calls == 0

    async def test_attempts_count_those_of_all(self) -> None:
        def retrying(provider: Scripted) -> RetryingProvider:
            return RetryingProvider(provider, max_attempts=2, random=lambda: 0.0)

        a, b = Scripted(ServerError("no")), Scripted(ServerError("no"), ANSWERED, ServerError("no"))
        stack = FallbackProvider(retrying(a), [retrying(b)])
        assert (await stack.complete(a_request())).attempts == 4
        error = await error_of(stack)
        assert error.attempts == 4
        b.script = (*[ServerError("no")] * 5, deltas("From B."))
        final = (await collect(stack.stream(a_request())))[-1]
        assert final.response is not None
        assert final.response.attempts == 4


class TestTheLedger:
    """Whether cost tracking stands inside, around each, or outside, around all."""

    async def test_inside_each_line_has_its_attempts_in_order(self) -> None:
        a, b = Scripted(ServerError("no", status=500)), Scripted(ANSWERED)
        inner = [CostTrackingProvider(RetryingProvider(each, max_attempts=1)) for each in (a, b)]
        context = CallContext()
        stack = FallbackProvider(inner[0], [inner[1]])
        await stack.complete(a_request(context=context))
        assert [each.error for each in context.entries] == ["ServerError", None]
        assert [len(each.usage.ledger) for each in inner] == [1, 1]
        assert inner[1].usage.total_requests == 1

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_outside_every_call_is_in_it(self, streamed: bool) -> None:
        a, b, c = (Scripted(step) for step in (ServerError("no"), RuntimeError("no"), ANSWERED))
        stack = CostTrackingProvider(FallbackProvider(a, [b, c]))
        if streamed:
            await collect(stack.stream(a_request()))
        else:
            await stack.complete(a_request())
        errors = [each.error for each in stack.usage.ledger]
        assert errors == ["ServerError", "RuntimeError", None]
        assert stack.usage.by_model["b-1"].output_tokens == ANSWERED.output_tokens
        assert stack.usage.total_requests == 1

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_so_it_is_if_all_fail(self, streamed: bool) -> None:
        a, b = Scripted(ServerError("no")), Scripted(OverloadedError("no"))
        stack = CostTrackingProvider(FallbackProvider(a, [b]))
        if streamed:
            await text_until_error(stack.stream(a_request()))
        else:
            await error_of(stack)
        assert [each.error for each in stack.usage.ledger] == ["ServerError", "OverloadedError"]

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_so_it_is_inside_of_a_retry(self, streamed: bool) -> None:
        a, b = Scripted(ServerError("no")), Scripted(OverloadedError("no"), ANSWERED)
        stack = CostTrackingProvider(RetryingProvider(FallbackProvider(a, [b]), random=lambda: 0.0))
        if streamed:
            await collect(stack.stream(a_request()))
        else:
            assert (await stack.complete(a_request())).attempts == 4
        errors = [each.error for each in stack.usage.ledger]
        assert errors == ["ServerError", "OverloadedError", "ServerError", None]

    async def test_nor_has_one_that_was_cancelled_before_its_first_attempt(self) -> None:
        """The other calls to B have closed its gate, and this one waits there."""
        clock = Clock()
        a = Scripted(ServerError("no", status=500))
        b = Scripted(RateLimitError("slow down", status=429, retry_after=50.0), ANSWERED)
        line = RetryingProvider(b, clock=clock, sleep=clock.sleep, timeout=clock.timeout)
        stack = FallbackProvider(a, [line])
        context = CallContext()
        first = asyncio.ensure_future(stack.complete(a_request()))
        await Clock.settle()
        second = asyncio.ensure_future(stack.complete(a_request(context=context)))
        await Clock.settle()
        second.cancel()
        await clock.run(first, second)
        assert second.cancelled()
        assert [each.error for each in context.entries] == ["ServerError"]

    async def test_a_call_that_its_gate_held_back_has_no_entry(self) -> None:
        late = DeadlineExceededError("over", attempts=0)
        held = RateLimitError("not sent", attempts=0)
        stack = CostTrackingProvider(FallbackProvider(Scripted(held), [Scripted(late)]))
        await error_of(stack)
        assert stack.usage.ledger == ()

    async def test_what_was_not_sent_has_no_entry(self) -> None:
        stack = CostTrackingProvider(
            FallbackProvider(
                Scripted(CircuitOpenError("open", retry_after=1.0)), [Scripted(ANSWERED)]
            )
        )
        response = await stack.complete(a_request())
        assert [each.error for each in stack.usage.ledger] == [None]
        assert response.attempts == 1

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_cancelled_fallback_is_in_it(self, streamed: bool) -> None:
        stack = CostTrackingProvider(
            FallbackProvider(Scripted(ServerError("no")), [Scripted(asyncio.Event().wait)])
        )
        if streamed:
            task = asyncio.ensure_future(collect(stack.stream(a_request())))
        else:
            task = asyncio.ensure_future(stack.complete(a_request()))  # type: ignore[arg-type]  # of one of two types
        await Clock.settle()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert [each.error for each in stack.usage.ledger] == ["ServerError", "CancelledError"]

    async def test_a_stream_that_its_reader_leaves_is_in_it(self) -> None:
        b = Scripted(deltas("From ", "B."))
        stack = CostTrackingProvider(FallbackProvider(Scripted(ServerError("no")), [b]))
        stream = stack.stream(a_request())
        assert (await anext(stream)).text == "From "
        await stream.aclose()
        assert [each.error for each in stack.usage.ledger] == ["ServerError", "GeneratorExit"]
        assert b.started == b.ended == 1


class TestClosing:
    async def test_all_are_closed(self) -> None:
        providers = [Scripted(ANSWERED) for _ in range(3)]
        await FallbackProvider(providers[0], providers[1:]).aclose()
        assert all(each.closed for each in providers)

    async def test_each_once_also_behind_decorators(self) -> None:
        class Counted(Scripted):
            count = 0

            async def aclose(self) -> None:
                self.count += 1

        one, another = Counted(ANSWERED), Counted(ANSWERED)
        around = CostTrackingProvider(one)
        stack = FallbackProvider(around, [one, CircuitBreakerProvider(one), another, around])
        await stack.aclose()
        assert (one.count, another.count) == (1, 1)
        nested = FallbackProvider(one, [another])
        await FallbackProvider(nested, [nested]).aclose()
        assert (one.count, another.count) == (2, 2)

    async def test_but_not_at_the_price_of_one_that_only_a_fallback_has(self) -> None:
        one, another, third = (Scripted(ANSWERED) for _ in range(3))
        nested = FallbackProvider(one, [another])
        hedged = HedgingProvider(one, Hedge(after=1.0), other=third)
        await FallbackProvider(one, [nested, hedged]).aclose()
        assert all(each.closed for each in (one, another, third))

    @pytest.mark.parametrize("failing", range(3))
    async def test_one_that_fails_keeps_no_other_open(self, failing: int) -> None:
        class Stuck(Scripted):
            async def aclose(self) -> None:
                await super().aclose()
                raise OSError("stuck")

        providers = [Stuck(ANSWERED) if n == failing else Scripted(ANSWERED) for n in range(3)]
        with pytest.raises(OSError, match="stuck"):
            await FallbackProvider(providers[0], providers[1:]).aclose()
        assert all(each.closed for each in providers)

    async def test_one_without_aclose_is_fine(self) -> None:
        a = Scripted(ANSWERED)
        await FallbackProvider(WithoutStream(a), [WithoutStream(a)]).aclose()


class TestConfiguration:
    @pytest.mark.parametrize("fallbacks", [[], (), "anthropic:claude", [None], [Scripted], [""]])
    def test_what_is_no_list_of_providers_is_refused(self, fallbacks: Any) -> None:
        with pytest.raises(ConfigurationError, match="fallback"):
            FallbackProvider(Scripted(ANSWERED), fallbacks)

    def test_a_name_is_for_the_client(self) -> None:
        names: Any = ["anthropic:claude-haiku-5-5"]
        with pytest.raises(ConfigurationError, match="Aether"):
            FallbackProvider(Scripted(ANSWERED), names)

    def test_other_settings_are_checked(self) -> None:
        b: list[LLMProvider] = [Scripted(ANSWERED)]
        bad: Any = "again"
        with pytest.raises(ConfigurationError, match="raise, restart or continue"):
            FallbackProvider(Scripted(ANSWERED), b, after_content=bad)
        with pytest.raises(ConfigurationError, match="on="):
            FallbackProvider(Scripted(ANSWERED), b, on=bad)

    def test_a_client_refuses_a_fallback_that_is_unknown(self) -> None:
        with pytest.raises(UnknownNameError, match="nosuch:model"):
            Aether(config=ProviderConfig(provider="fake"), fallbacks=["nosuch:model"])

    def test_it_says_how_it_is_set(self) -> None:
        stack, _, _ = two(ANSWERED)
        assert stack.settings() == "after content: raise"
        stack, _, _ = two(ANSWERED, after_content="restart", on=lambda _: True)
        assert stack.settings() == "after content: restart; a rule of its own"

    def test_a_stack_shows_where_it_stands(self) -> None:
        stack = FallbackProvider(CostTrackingProvider(Scripted(ANSWERED)), [Scripted(ANSWERED)])
        assert repr(stack) == "Fallback > CostTracking > Scripted"


class TestOnAClient:
    async def test_the_switch_puts_it_there(self) -> None:
        b = FakeProvider("From B.")
        async with Aether(Scripted(ServerError("no")), fallbacks=[b]) as client:
            response = await client.complete("Hi")
            assert (response.text, response.provider) == ("From B.", "fake")
            assert [each.error for each in client.usage.ledger] == ["ServerError", None]
            assert client.usage.total_requests == 1

    async def test_the_policy_goes_with_it(self) -> None:
        fallbacks = Fallbacks([FakeProvider("From B.")], on=lambda error: "42" in str(error))
        async with Aether(
            Scripted(BadRequestError("42"), ServerError("43")), fallbacks=fallbacks
        ) as client:
            assert await client.ask("Hi") == "From B."
            with pytest.raises(ServerError):
                await client.ask("Hi")

    async def test_a_fallback_may_be_the_first_again(self) -> None:
        class Counted(Scripted):
            count = 0

            async def aclose(self) -> None:
                self.count += 1

        a = Counted(ServerError("no"), an_answer("Now."))
        async with Aether(a, fallbacks=[a]) as client:
            assert await client.ask("Hi") == "Now."
        assert a.count == 1

    async def test_a_named_fallback_has_its_whole_line(self) -> None:
        config = ProviderConfig(provider="fake")
        async with Aether(config=config, fallbacks=["fake:other"]) as client:
            assert repr(client.provider).startswith("Fallback > ")
            [line] = client.provider.fallbacks  # type: ignore[attr-defined]  # of the decorator
            assert "CircuitBreaker > Retrying > Fake" in repr(line)

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_each_call_counts_against_the_budget(self, streamed: bool) -> None:
        for limit in (1, 2):
            budget = Budget(requests=limit)
            a = Scripted(ServerError("no"), default_model="gpt-4.1-mini")
            b = Scripted(ANSWERED, default_model="gpt-4.1-mini")
            async with Aether(a, fallbacks=[b], budget=budget) as client:
                if streamed:
                    text, error = await text_until_error(client.stream("Hi", max_tokens=9).detach())
                else:
                    text, error = "", None
                    try:
                        text = await client.ask("Hi", max_tokens=9)
                    except BudgetExceededError as raised:
                        error = raised
            assert text == ("From B." if limit == 2 else "")
            assert isinstance(error, BudgetExceededError) is (limit == 1)
            assert budget.spent_requests == limit
            if error is not None:
                assert "ServerError: no" in notes(error)

    async def test_a_tool_loop_may_change_horses_between_turns(self) -> None:
        def add(a: int, b: int) -> int:
            """Add."""
            return a + b

        calling = LLMResponse(
            "",
            "a-1",
            tool_calls=[{"id": "1", "name": "add", "arguments": {"a": 1, "b": 2}}],  # type: ignore[list-item]  # made of it
            finish_reason="tool_calls",
        )
        a, b = Scripted(calling, ServerError("no")), Scripted(ANSWERED)
        async with Aether(a, fallbacks=[b]) as client:
            assert await client.ask("Hi", tools=[add]) == "From B."
        assert [each.role for each in b.requests[0].messages] == ["user", "assistant", "tool"]


class TestOverTheWire:
    """Of two protocols: what one provider alone may see reaches no other."""

    async def test_the_state_of_one_goes_to_no_other(self, aftermath: Any) -> None:
        thought = faults.Reply("Let me see.", reasoning="SECRET-THOUGHT")
        async with (
            FaultServer(thought, faults.refuse("overloaded"), patience=5.0) as first,
            FaultServer("From B.") as second,
        ):
            config = first.config("anthropic", api_key=aftermath.key)
            other = second.config("openai.responses", api_key=aftermath.key)
            async with (
                Aether(config=config, with_retry=False) as a,
                Aether(config=other, with_retry=False) as b,
            ):
                stack = FallbackProvider(a.provider, [b.provider])
                client = Aether(stack)
                begun = await client.complete("Hi")
                assert "anthropic" in repr(begun.message)
                messages = [Message("user", "Hi"), begun.message, Message("user", "Go on.")]
                response = await client.complete(
                    messages, extra_headers={"X-Own": "for-the-first"}, extra_body={"top_k": 1}
                )
                assert (response.text, response.provider) == ("From B.", "openai")
        [sent] = [each.body.decode() for each in second.requests]
        assert "Let me see." in sent
        assert "SECRET-THOUGHT" not in sent
        assert "signature" not in sent
        assert "top_k" not in sent
        assert "for-the-first" not in repr(second.requests[0].headers)
        assert "SECRET-THOUGHT" in first.requests[1].body.decode()

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_attempts_requests_and_ledger_agree(self, aftermath: Any, streamed: bool) -> None:
        async with (
            FaultServer(reply=faults.refuse("overloaded", retry_after=0)) as first,
            FaultServer("From B.") as second,
        ):
            built = Aether(config=second.config("gemini", api_key=aftermath.key))
            config = first.config("openai", api_key=aftermath.key)
            async with built, Aether(config=config, fallbacks=[built.provider]) as client:
                if streamed:
                    final = [chunk async for chunk in client.stream("Hi")][-1]
                    response = final.response
                else:
                    response = await client.complete("Hi")
                assert response is not None
                assert (response.text, response.provider) == ("From B.", "gemini")
                assert response.attempts == 4
                assert first.count == 3
                assert second.count == 1


class TestAround(ProviderConformance):
    def make_provider(self) -> LLMProvider:
        return FallbackProvider(FakeProvider("Hello there."), [FakeProvider("Unused.")])


class TestInPlaceOf(ProviderConformance):
    def make_provider(self) -> LLMProvider:
        down = Scripted(CircuitOpenError("open", retry_after=1.0))
        return FallbackProvider(down, [FakeProvider("Hello there.")])


class TestAroundAnAdapter(AdapterConformance):
    """It takes nothing away."""

    wire = OpenAIChatWire()
    cuts = 20
    lacks = frozenset({"parallel_tool_calls"})

    def make_provider(self, base_url: str) -> LLMProvider:
        adapter = OpenAIProvider(self.api_key, base_url=base_url, api="chat")
        return FallbackProvider(adapter, [FakeProvider("Unused.")], on=lambda _: False)
