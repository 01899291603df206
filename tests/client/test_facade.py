"""The facade: what it is made of, what it is asked, and what it answers."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

import aether
from aether import Aether, AetherError, Agent, Message, ProviderConfig, Tool
from aether.errors import (
    ClientClosedError,
    ConfigurationError,
    InputError,
    ProtocolError,
    UnknownNameError,
)
from aether.events import EventBus
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.extensions.memory import InMemorySessionStore
from aether.llm.contracts import LLMProvider, LLMRequest, LLMResponse, StreamChunk, ToolCall
from aether.registry import Registry
from aether.testing import FakeProvider


def wrapped(provider: LLMProvider) -> list[type]:
    """The classes of a stack, outermost first."""
    found: list[type] = []
    current: Any = provider
    while current is not None:
        found.append(type(current))
        current = getattr(current, "inner", None)
    return found


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def calling(name: str, **arguments: Any) -> LLMResponse:
    return LLMResponse(
        text=f"I call {name}. ",
        model="fake-model",
        tool_calls=[ToolCall("c1", name, arguments)],
        finish_reason="tool_calls",
    )


class Plain:
    """Can only complete, and has no default model."""

    def __init__(self) -> None:
        self.requests: list[LLMRequest] = []
        self.closed = 0

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        self.requests.append(request)
        return LLMResponse(text="plain answer", model="served-model")

    async def aclose(self) -> None:
        self.closed += 1


# --- what is imported -------------------------------------------------------------------------


def test_top_level_names_are_those_promised() -> None:
    promised = {
        "Aether",
        "Agent",
        "Budget",
        "Hedge",
        "Message",
        "ProviderConfig",
        "RateLimit",
        "SessionStore",
        "Tool",
        "register",
        "register_provider",
        "register_tool",
        "AetherError",
        "__version__",
    }
    assert set(aether.__all__) == promised
    assert all(hasattr(aether, name) for name in promised)
    assert isinstance(aether.__version__, str)


def test_signature_is_the_promised_one() -> None:
    parameters = inspect.signature(Aether).parameters
    assert parameters["provider"].kind is inspect.Parameter.POSITIONAL_ONLY
    keywords = {name: p for name, p in parameters.items() if name != "provider"}
    assert {p.kind for p in keywords.values()} == {inspect.Parameter.KEYWORD_ONLY}
    defaults = {name: p.default for name, p in keywords.items()}
    assert (
        defaults.items()
        >= {
            "config": None,
            "with_retry": True,
            "with_circuit_breaker": True,
            "with_cost_tracking": True,
            "events": None,
            "memory_store": None,
            "tool_middleware": (),
        }.items()
    )


def test_import_reads_no_environment_and_loads_no_http_library() -> None:
    code = (
        "import os, sys\n"
        "os.environ['LLM_PROVIDER'] = 'nobody'\n"
        "os.environ['AETHER_MODEL'] = 'nobody:nothing'\n"
        "import aether\n"
        "os.environ['LLM_PROVIDER'] = 'fake'\n"
        "os.environ['AETHER_MODEL'] = 'fake:other'\n"
        "client = aether.Aether()\n"
        "assert client.provider.default_model == 'other'\n"
        "loaded = {'aiohttp', 'httpx2', 'httpx', 'genai_prices', 'openai'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- what it is made of -----------------------------------------------------------------------


def test_default_stack_is_adapter_retry_breaker_cost_inside_out() -> None:
    client = Aether(config=ProviderConfig(provider="fake"))
    assert wrapped(client.provider) == [
        CostTrackingProvider,
        CircuitBreakerProvider,
        RetryingProvider,
        FakeProvider,
    ]
    assert repr(client) == "Aether(CostTracking > CircuitBreaker > Retrying > Fake)"


@pytest.mark.parametrize(
    ("flag", "left_out"),
    [
        ("with_retry", RetryingProvider),
        ("with_circuit_breaker", CircuitBreakerProvider),
        ("with_cost_tracking", CostTrackingProvider),
    ],
)
def test_each_layer_can_be_left_out(flag: str, left_out: type) -> None:
    flags: dict[str, Any] = {flag: False}
    client = Aether(config=ProviderConfig(provider="fake"), **flags)
    everything = [CostTrackingProvider, CircuitBreakerProvider, RetryingProvider, FakeProvider]
    assert wrapped(client.provider) == [layer for layer in everything if layer is not left_out]


def test_own_provider_gets_cost_tracking_alone_whatever_the_flags() -> None:
    fake = FakeProvider()
    client = Aether(fake, with_retry=True, with_circuit_breaker=True)
    assert wrapped(client.provider) == [CostTrackingProvider, FakeProvider]


def test_own_provider_is_left_bare_on_request() -> None:
    fake = FakeProvider()
    assert Aether(fake, with_cost_tracking=False).provider is fake


@pytest.mark.parametrize("flag", [True, False])
async def test_own_stack_with_cost_tracking_gets_no_second_one(flag: bool) -> None:
    tracking = CostTrackingProvider(FakeProvider())
    stack = RetryingProvider(tracking)
    client = Aether(stack, with_cost_tracking=flag)
    assert client.provider is stack
    await client.ask("hi")
    assert client.usage is tracking.usage
    assert client.usage.total_requests == 1


async def test_usage_without_cost_tracking_stays_at_zero_and_says_so() -> None:
    client = Aether(FakeProvider(), with_cost_tracking=False)
    await client.ask("hi")
    assert client.usage.total_requests == 0
    assert client.usage.total_cost_usd == 0
    assert "off" in repr(client.usage)
    assert "with_cost_tracking" in repr(client.usage)


async def test_usage_is_live() -> None:
    client = Aether(FakeProvider())
    usage = client.usage
    assert usage.total_requests == 0
    await client.ask("four letters")
    assert (usage.total_requests, usage.total_input_tokens) == (1, 3)


def test_provider_and_config_together_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="not both"):
        Aether(FakeProvider(), config=ProviderConfig())


@pytest.mark.parametrize("wrong", ["openai", object(), ProviderConfig(), FakeProvider])
def test_what_is_no_provider_is_a_type_error_that_helps(wrong: Any) -> None:
    with pytest.raises(TypeError, match="provider"):
        Aether(wrong)


def test_config_of_another_type_is_a_type_error() -> None:
    wrong: Any = {"provider": "fake"}
    with pytest.raises(TypeError, match="ProviderConfig"):
        Aether(config=wrong)


@pytest.mark.parametrize("wrong", ["5", True, 0, -1, float("nan"), float("inf")])
def test_config_refuses_a_timeout_that_is_none(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        ProviderConfig(timeout=wrong)


def test_config_refuses_values_that_are_no_strings() -> None:
    wrong: Any = 5
    with pytest.raises(ConfigurationError, match="model"):
        ProviderConfig(model=wrong)


async def test_client_uses_the_registry_that_it_is_given_and_no_other(
    aether_registry: Registry,
) -> None:
    own = Registry()

    class Own(FakeProvider):
        pass

    own.add("llm_provider", "own", Own)
    own.add("tool", "add", add)
    store = InMemorySessionStore()
    own.add("session_store", "memory", lambda: store)
    client = Aether(
        config=ProviderConfig(
            provider="own", options={"responses": [calling("add", a=1, b=2), "3"]}
        ),
        registry=own,
    )
    assert await client.session("s").ask("1 + 2", tools=["add"]) == "3"
    assert await store.exists("s")
    assert ("llm_provider", "own") not in aether_registry
    with pytest.raises(UnknownNameError):
        Aether(config=ProviderConfig(provider="own"))


# --- what it is asked -------------------------------------------------------------------------


async def test_ask_gives_text() -> None:
    assert await Aether(FakeProvider("hello")).ask("hi") == "hello"


async def test_complete_gives_the_response() -> None:
    response = await Aether(FakeProvider("hello")).complete("hi")
    assert isinstance(response, LLMResponse)
    assert (response.text, response.model, response.finish_reason) == (
        "hello",
        "fake-model",
        "stop",
    )


async def test_prompt_of_text_is_one_user_message() -> None:
    fake = FakeProvider()
    await Aether(fake).ask("hi")
    assert list(fake.requests[0].messages) == [Message("user", "hi")]


async def test_list_of_messages_is_sent_as_it_is_and_never_mutated() -> None:
    fake = FakeProvider(responses=[calling("add", a=1, b=2), "3"])
    messages = [Message("system", "Be brief."), Message("user", "1 + 2?")]
    before = [message.model_copy(deep=True) for message in messages]
    client = Aether(fake)
    await client.ask(messages, tools=[add])
    assert messages == before
    assert list(fake.requests[0].messages) == before
    assert len(fake.requests[1].messages) == 4


@pytest.mark.parametrize(
    "wrong", [None, 5, Message("user", "x"), {"role": "user"}, [{"role": "u"}]]
)
async def test_prompt_of_another_type_is_a_type_error_that_helps(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a prompt is a string or a sequence of Message"):
        await Aether(FakeProvider()).ask(wrong)


async def test_empty_list_of_messages_is_refused_before_anything_is_sent() -> None:
    fake = FakeProvider()
    with pytest.raises(InputError):
        await Aether(fake).ask([])
    assert fake.requests == []


async def test_option_that_nobody_knows_is_a_type_error_that_lists_the_known() -> None:
    options: Any = {"temprature": 0.1}
    with pytest.raises(TypeError, match=r"temprature.*temperature"):
        await Aether(FakeProvider()).ask("hi", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 0},
        {"max_tokens": "many"},
        {"temperature": "warm"},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": float("nan")},
        {"max_tool_iterations": 0},
        {"max_tool_iterations": True},
        {"max_tool_iterations": 2.5},
        {"tool_choice": "required"},
        {"tool_choice": "nobody", "tools": [add]},
        {"model": 5},
        {"tools": "add"},
        {"tools": [5]},
        {"tool_choice": 5, "tools": [add]},
    ],
)
async def test_option_that_cannot_be_sent_is_refused_before_anything_is(
    options: dict[str, Any],
) -> None:
    fake = FakeProvider()
    with pytest.raises((InputError, TypeError)):
        await Aether(fake).ask("hi", **options)
    assert fake.requests == []


async def test_model_is_the_argument_else_the_providers_default() -> None:
    fake = FakeProvider(default_model="usual")
    client = Aether(fake)
    await client.ask("hi")
    await client.ask("hi", model="special")
    assert [request.model for request in fake.requests] == ["usual", "special"]


async def test_model_is_none_for_a_provider_without_a_default() -> None:
    plain = Plain()
    await Aether(plain).ask("hi")
    assert plain.requests[0].model is None


async def test_temperature_is_argument_before_environment_before_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeProvider()
    client = Aether(fake)
    await client.ask("hi")
    monkeypatch.setenv("AETHER_DEFAULT_TEMPERATURE", "0.2")
    await client.ask("hi")
    await client.ask("hi", temperature=1.1)
    assert [request.temperature for request in fake.requests] == [0.7, 0.2, 1.1]
    assert [request.temperature_is_default for request in fake.requests] == [True, False, False]


async def test_chosen_temperature_equal_to_the_default_is_chosen_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeProvider()
    client = Aether(fake)
    await client.ask("hi", temperature=0.7)
    monkeypatch.setenv("AETHER_DEFAULT_TEMPERATURE", "0.7")
    await client.ask("hi")
    assert [request.temperature_is_default for request in fake.requests] == [False, False]


async def test_invalid_temperature_of_the_environment_is_nobodys_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AETHER_DEFAULT_TEMPERATURE", "hot")
    fake = FakeProvider()
    await Aether(fake).ask("hi")
    assert fake.requests[0].temperature == 0.7
    assert fake.requests[0].temperature_is_default


async def test_other_options_reach_the_request() -> None:
    fake = FakeProvider()
    await Aether(fake).ask("hi", max_tokens=12, top_p=0.5, seed=1, stop="END", tools=[add])
    request = fake.requests[0]
    assert (request.max_tokens, request.top_p, request.seed) == (12, 0.5, 1)
    assert list(request.stop) == ["END"]
    assert [tool.name for tool in request.tools] == ["add"]
    assert all(isinstance(tool, Tool) for tool in request.tools)


async def test_tools_are_names_tool_objects_and_functions_mixed(aether_registry: Registry) -> None:
    @aether.register_tool
    def registered() -> str:
        """A registered tool."""
        return "r"

    by_hand = Tool(
        name="by_hand",
        description="By hand.",
        parameters={"type": "object", "properties": {}},
        handler=lambda: "h",
    )
    fake = FakeProvider()
    await Aether(fake).ask("hi", tools=["registered", by_hand, add])
    assert [tool.name for tool in fake.requests[0].tools] == ["registered", "by_hand", "add"]


async def test_unknown_tool_name_is_an_error_that_lists_close_matches(
    aether_registry: Registry,
) -> None:
    @aether.register_tool
    def weather() -> str:
        """Tell the weather."""
        return "sun"

    with pytest.raises(UnknownNameError, match="weather"):
        await Aether(FakeProvider()).ask("hi", tools=["wether"])


@pytest.mark.parametrize("choice", ["required", "add"])
async def test_forced_tool_choice_holds_for_the_first_turn(choice: str) -> None:
    fake = FakeProvider(responses=[calling("add", a=1, b=2), "3"])
    await Aether(fake).ask("1 + 2", tools=[add], tool_choice=choice)
    assert fake.requests[0].tool_choice == choice
    assert fake.requests[1].tool_choice in (None, "auto")


@pytest.mark.parametrize("choice", ["auto", "none"])
async def test_tool_choice_that_forces_nothing_lasts(choice: str) -> None:
    fake = FakeProvider(responses=[calling("add", a=1, b=2), "3"])
    await Aether(fake).ask("1 + 2", tools=[add], tool_choice=choice)
    assert [request.tool_choice for request in fake.requests] == [choice, choice]


async def test_tool_turns_are_argument_before_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHER_MAX_TOOL_ITERATIONS", "2")
    for chosen, turns in ((None, 2), (3, 3)):
        fake = FakeProvider(responses=[calling("add", a=1, b=2)] * 5)
        with pytest.raises(AetherError, match="max_tool_iterations"):
            await Aether(fake).ask("1 + 2", tools=[add], max_tool_iterations=chosen)
        assert len(fake.requests) == turns


@pytest.mark.parametrize(
    ("environment", "argument", "together"),
    [(None, None, 2), ("0", None, 1), ("0", True, 2), ("1", False, 1), (None, False, 1)],
)
async def test_parallel_tools_is_argument_before_environment_before_default(
    environment: str | None,
    argument: bool | None,
    together: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if environment is not None:
        monkeypatch.setenv("AETHER_PARALLEL_TOOLS", environment)
    running: list[int] = []
    counts: list[int] = []

    async def work(number: int) -> None:
        """Work."""
        running.append(number)
        await asyncio.sleep(0.002)
        counts.append(len(running))
        running.remove(number)

    both = [ToolCall("1", "work", {"number": 1}), ToolCall("2", "work", {"number": 2})]
    fake = FakeProvider(responses=[LLMResponse(text="", model="m", tool_calls=both), "done"])
    await Aether(fake).ask("hi", tools=[work], parallel_tools=argument)
    assert max(counts) == together


async def _by_client(client: Aether, **options: Any) -> None:
    await client.complete("hi", **options)


async def _by_stream(client: Aether, **options: Any) -> None:
    async for _ in client.stream("hi", **options):
        pass


async def _by_stream_text(client: Aether, **options: Any) -> None:
    async for _ in client.stream_text("hi", **options):
        pass


async def _by_session(client: Aether, **options: Any) -> None:
    await client.session("s").ask("hi", **options)


async def _by_session_stream(client: Aether, **options: Any) -> None:
    async for _ in client.session("s").stream("hi", **options):
        pass


async def _by_session_stream_text(client: Aether, **options: Any) -> None:
    async for _ in client.session("s").stream_text("hi", **options):
        pass


async def _by_agent(client: Aether, **options: Any) -> None:
    await Agent("a", client=client).run_text("hi", **options)


@pytest.mark.parametrize(
    "way",
    [
        _by_client,
        _by_stream,
        _by_stream_text,
        _by_session,
        _by_session_stream,
        _by_session_stream_text,
        _by_agent,
    ],
)
async def test_every_way_to_ask_takes_the_same_options(way: Callable[..., Any]) -> None:
    fake = FakeProvider()
    await way(
        Aether(fake),
        model="m",
        temperature=0.1,
        max_tokens=5,
        tools=[add],
        tool_choice="none",
        parallel_tools=False,
        max_tool_iterations=2,
    )
    request = fake.requests[0]
    assert (request.model, request.temperature, request.max_tokens) == ("m", 0.1, 5)
    assert ([tool.name for tool in request.tools], request.tool_choice) == (["add"], "none")


async def test_ask_gives_the_last_turns_text_and_stream_text_that_of_every_turn() -> None:
    script: list[LLMResponse | str] = [calling("add", a=1, b=2), "It is 3."]
    assert await Aether(FakeProvider(responses=script)).ask("1 + 2", tools=[add]) == "It is 3."
    stream = Aether(FakeProvider(responses=script)).stream_text("1 + 2", tools=[add])
    assert "".join([text async for text in stream]) == "I call add. It is 3."


@pytest.mark.parametrize("streamed", [False, True])
async def test_session_saves_what_ask_would_have_returned(streamed: bool) -> None:
    session = Aether(FakeProvider(responses=[calling("add", a=1, b=2), "It is 3."])).session("s")
    if streamed:
        async for _ in session.stream_text("1 + 2", tools=[add]):
            pass
    else:
        await session.ask("1 + 2", tools=[add])
    saved = [(message.role, message.text) for message in await session.history()]
    assert saved == [("user", "1 + 2"), ("assistant", "It is 3.")]


async def test_tool_middleware_of_the_client_is_around_each_dispatch() -> None:
    seen: list[str] = []

    async def note(call: Any, next: Any) -> Any:
        seen.append(call.name)
        return await next(call)

    fake = FakeProvider(responses=[calling("add", a=1, b=2), "3"])
    await Aether(fake, tool_middleware=[note]).ask("1 + 2", tools=[add])
    assert seen == ["add"]


async def test_session_store_is_the_one_that_was_given() -> None:
    store = InMemorySessionStore()
    await Aether(FakeProvider(), memory_store=store).session("s").ask("hi")
    assert [message.text for message in await store.load("s")] == ["hi", "hello"]


async def test_session_of_one_id_is_one_object() -> None:
    client = Aether(FakeProvider())
    first = client.session("s")
    assert client.session("s") is first
    assert client.session("t") is not first


async def test_on_subscribes_and_returns_the_function_unchanged() -> None:
    client = Aether(FakeProvider())
    seen: list[str] = []

    def note(event: Any) -> None:
        seen.append(event.name)

    assert client.on("request.start")(note) is note
    await client.ask("hi")
    assert seen == ["request.start"]


def test_events_is_the_bus_that_was_given_or_one_of_its_own() -> None:
    bus = EventBus()
    assert Aether(FakeProvider(), events=bus).events is bus
    assert Aether(FakeProvider()).events is not Aether(FakeProvider()).events


async def test_what_a_provider_may_not_return_is_an_error() -> None:
    class Wrong:
        async def complete(self, request: LLMRequest, /) -> Any:
            return "just text"

    with pytest.raises(ProtocolError, match="str"):
        await Aether(Wrong()).ask("hi")


async def test_errors_of_a_foreign_provider_come_out_as_aether_errors_with_their_cause() -> None:
    original = RuntimeError("out of cheese")

    class Foreign:
        async def complete(self, request: LLMRequest, /) -> LLMResponse:
            raise original

        async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
            yield StreamChunk(text="x")
            raise original

    client = Aether(Foreign())
    with pytest.raises(AetherError, match="out of cheese") as raised:
        await client.ask("hi")
    assert raised.value.__cause__ is original
    with pytest.raises(AetherError, match="out of cheese"):
        async for _ in client.stream("hi"):
            pass


# --- the one-liner ----------------------------------------------------------------------------


async def test_one_liner_builds_asks_and_closes(
    monkeypatch: pytest.MonkeyPatch, aether_registry: Registry
) -> None:
    from aether.llm import ask

    made: list[Plain] = []

    def make() -> Plain:
        made.append(Plain())
        return made[-1]

    aether.register_provider("plain")(make)
    monkeypatch.setenv("LLM_PROVIDER", "plain")
    assert await ask("hi", temperature=0.1) == "plain answer"
    assert made[0].requests[0].temperature == 0.1
    assert [plain.closed for plain in made] == [1]


async def test_one_liner_closes_after_an_error_too(
    monkeypatch: pytest.MonkeyPatch, aether_registry: Registry
) -> None:
    from aether.llm import ask

    plain = Plain()
    aether.register_provider("plain")(lambda: plain)
    monkeypatch.setenv("LLM_PROVIDER", "plain")
    with pytest.raises(InputError):
        await ask([])
    assert plain.closed == 1


def test_client_closed_error_is_an_aether_error() -> None:
    assert issubclass(ClientClosedError, AetherError)
