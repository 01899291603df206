"""Which provider and model a client gets: configuration, environment, names, keys, registration."""

from __future__ import annotations

from typing import Any

import pytest

from aether import Aether, AetherError, Agent, ProviderConfig, register_provider
from aether.errors import ConfigurationError, ProviderError, UnknownNameError
from aether.extensions.llm.factory import build_provider
from aether.llm.contracts import LLMRequest, LLMResponse, Message, ToolCall
from aether.llm.streaming import final_chunk
from aether.registry import Registry
from aether.testing import FakeProvider

VENDORS = (
    "ollama",
    "vllm",
    "llamacpp",
    "lmstudio",
    "groq",
    "openrouter",
    "deepseek",
    "mistral",
    "xai",
    "together",
    "cerebras",
    "perplexity",
    "azure",
)
CLOUD = ("openai", "groq", "openrouter", "deepseek", "mistral", "xai", "together", "cerebras")


class Fitted:
    """Keeps what it was made with."""

    made: list[Fitted]

    def __init__(
        self,
        api_key: str | None = "the adapter's own",
        default_model: str = "own-model",
        *,
        base_url: str = "own-url",
        transport: Any = "own-transport",
        timeout: Any = "own-timeout",
        flavour: str = "plain",
    ) -> None:
        self.api_key = api_key
        self.default_model = default_model
        self.base_url = base_url
        self.transport = transport
        self.timeout = timeout
        self.flavour = flavour
        self.requests: list[LLMRequest] = []
        type(self).made.append(self)

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        self.requests.append(request)
        return LLMResponse(text=f"from {type(self).__name__}", model=request.model or "?")


class Other(Fitted):
    pass


@pytest.fixture(autouse=True)
def fitted(aether_registry: Registry) -> None:
    """Two registered providers, `fitted` and `other`, each with its own variables."""
    for cls in (Fitted, Other):
        cls.made = []
        name = cls.__name__.lower()
        register_provider(
            name,
            api_key_env=f"{name.upper()}_API_KEY",
            model_env=f"{name.upper()}_MODEL",
            base_url_env=f"{name.upper()}_BASE_URL",
        )(cls)


def made(config: ProviderConfig | None = None) -> Fitted:
    """The adapter that a client of this configuration is built around."""
    current: Any = Aether(config=config).provider
    while hasattr(current, "inner"):
        current = current.inner
    assert isinstance(current, Fitted)
    return current


# --- the environment --------------------------------------------------------------------------


def test_openai_is_the_default_and_its_missing_key_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"OPENAI_API_KEY.*LLM_PROVIDER=local"):
        Aether()


def test_llm_provider_names_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "fitted")
    assert type(made()) is Fitted
    monkeypatch.setenv("LLM_PROVIDER", "  other\n")
    assert type(made()) is Other


def test_environment_is_read_when_the_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "fitted")
    client = Aether()
    monkeypatch.setenv("LLM_PROVIDER", "other")
    assert repr(client).endswith("Fitted)")
    assert repr(Aether()).endswith("Other)")


def test_key_model_and_address_come_from_the_variables_of_the_registration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "fitted")
    monkeypatch.setenv("FITTED_API_KEY", "key-1")
    monkeypatch.setenv("FITTED_MODEL", "model-1")
    monkeypatch.setenv("FITTED_BASE_URL", "http://127.0.0.1/v1")
    adapter = made()
    assert (adapter.api_key, adapter.default_model) == ("key-1", "model-1")
    assert adapter.base_url == "http://127.0.0.1/v1"


def test_what_nobody_configured_is_the_adapters_own_but_the_key_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "fitted")
    adapter = made()
    assert adapter.api_key is None
    assert (adapter.default_model, adapter.base_url) == ("own-model", "own-url")
    assert (adapter.transport, adapter.timeout) == ("own-transport", "own-timeout")


def test_empty_variables_are_unset_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "fitted")
    for name in ("AETHER_MODEL", "FITTED_API_KEY", "FITTED_MODEL", "FITTED_BASE_URL"):
        monkeypatch.setenv(name, "   ")
    adapter = made()
    assert (adapter.api_key, adapter.default_model, adapter.base_url) == (
        None,
        "own-model",
        "own-url",
    )


def test_aether_model_beats_llm_provider_and_the_model_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "fitted")
    monkeypatch.setenv("OTHER_MODEL", "from-the-model-variable")
    monkeypatch.setenv("AETHER_MODEL", "other:chosen")
    adapter = made()
    assert type(adapter) is Other
    assert adapter.default_model == "chosen"


def test_aether_model_without_a_known_provider_is_a_plain_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "fitted")
    monkeypatch.setenv("FITTED_MODEL", "from-the-model-variable")
    for plain in ("llama3:8b", "gpt-6-luna", "deepseek/deepseek-r1:free", ":8b"):
        monkeypatch.setenv("AETHER_MODEL", plain)
        adapter = made()
        assert type(adapter) is Fitted
        assert adapter.default_model == plain


def test_a_misspelt_provider_in_aether_model_is_hinted_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "fitted")
    monkeypatch.setenv("AETHER_MODEL", "llama3:8b")
    made()
    assert caplog.messages == []
    monkeypatch.setenv("AETHER_MODEL", "antropic:claude")
    assert made().default_model == "antropic:claude"
    (said,) = caplog.messages
    assert "'antropic'" in said
    assert "'anthropic'" in said


def test_model_of_aether_model_may_have_a_colon_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHER_MODEL", "other:llama3:8b")
    assert made().default_model == "llama3:8b"


def test_aether_model_may_name_a_provider_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHER_MODEL", "other:")
    monkeypatch.setenv("OTHER_MODEL", "from-the-model-variable")
    adapter = made()
    assert type(adapter) is Other
    assert adapter.default_model == "from-the-model-variable"


# --- an explicit configuration ----------------------------------------------------------------


def test_what_is_given_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "other")
    monkeypatch.setenv("FITTED_API_KEY", "key-1")
    monkeypatch.setenv("FITTED_MODEL", "model-1")
    monkeypatch.setenv("FITTED_BASE_URL", "url-1")
    transport = object()
    adapter = made(
        ProviderConfig(
            provider="fitted",
            model="model-2",
            api_key="key-2",
            base_url="url-2",
            transport=transport,
            timeout=7,
            options={"flavour": "spicy"},
        )
    )
    assert type(adapter) is Fitted
    assert (adapter.api_key, adapter.default_model) == ("key-2", "model-2")
    assert (adapter.base_url, adapter.timeout) == ("url-2", 7)
    assert adapter.transport is transport
    assert adapter.flavour == "spicy"


def test_what_is_none_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "fitted")
    monkeypatch.setenv("FITTED_API_KEY", "key-1")
    monkeypatch.setenv("FITTED_MODEL", "model-1")
    adapter = made(ProviderConfig(base_url="url-2"))
    assert (adapter.api_key, adapter.default_model) == ("key-1", "model-1")
    assert adapter.base_url == "url-2"


def test_provider_of_the_configuration_beats_aether_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHER_MODEL", "other:chosen")
    adapter = made(ProviderConfig(provider="fitted"))
    assert type(adapter) is Fitted
    assert adapter.default_model == "own-model"


def test_aether_model_of_the_configured_provider_still_names_its_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FITTED_MODEL", "from-the-model-variable")
    monkeypatch.setenv("AETHER_MODEL", "fitted:chosen")
    assert made(ProviderConfig(provider="fitted")).default_model == "chosen"


def test_model_of_the_configuration_may_name_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHER_MODEL", "other:chosen")
    monkeypatch.setenv("FITTED_MODEL", "from-the-model-variable")
    adapter = made(ProviderConfig(model="fitted:mine"))
    assert type(adapter) is Fitted
    assert adapter.default_model == "mine"


def test_model_of_the_configuration_is_a_plain_name_otherwise() -> None:
    adapter = made(ProviderConfig(provider="fitted", model="llama3:8b"))
    assert adapter.default_model == "llama3:8b"


def test_configuration_shows_no_key() -> None:
    config = ProviderConfig(provider="fitted", api_key="canary-1", options={"token": "canary-2"})
    assert "canary" not in repr(config)
    assert "canary" not in str(config)


# --- a model per call -------------------------------------------------------------------------


async def test_call_may_name_another_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_API_KEY", "canary-of-other")
    client = Aether(config=ProviderConfig(provider="fitted", api_key="canary-of-fitted"))
    assert await client.ask("hi", model="other:big") == "from Other"
    assert await client.ask("hi", model="other:small") == "from Other"
    assert await client.ask("hi") == "from Fitted"
    assert [len(Fitted.made), len(Other.made)] == [1, 1]
    assert [request.model for request in Other.made[0].requests] == ["big", "small"]
    assert Other.made[0].api_key == "canary-of-other"
    assert client.usage.total_requests == 3


async def test_call_may_name_its_own_provider() -> None:
    client = Aether(config=ProviderConfig(provider="fitted"))
    assert await client.ask("hi", model="fitted:big") == "from Fitted"
    assert len(Fitted.made) == 1
    assert Fitted.made[0].requests[0].model == "big"


async def test_plain_model_name_with_a_colon_stays_with_the_clients_provider() -> None:
    client = Aether(config=ProviderConfig(provider="fitted"))
    await client.ask("hi", model="llama3:8b")
    assert Fitted.made[0].requests[0].model == "llama3:8b"


async def test_provider_alone_in_a_call_means_its_default_model() -> None:
    client = Aether(config=ProviderConfig(provider="fitted"))
    await client.ask("hi", model="other:")
    assert Other.made[0].requests[0].model == "own-model"


async def test_streams_sessions_and_agents_may_name_another_provider() -> None:
    client = Aether(config=ProviderConfig(provider="fitted"))
    assert [text async for text in client.stream_text("hi", model="other:m")] == ["from Other"]
    assert await client.session("s").ask("hi", model="other:m") == "from Other"
    assert await Agent("a", model="other:m", client=client).run_text("hi") == "from Other"


async def test_call_that_names_a_provider_without_a_key_is_a_configuration_error() -> None:
    client = Aether(config=ProviderConfig(provider="fitted"))
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        await client.ask("hi", model="openai:gpt-6-luna")
    assert await client.ask("hi") == "from Fitted"


# --- names and keys ---------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["environment", "configuration"])
def test_unknown_provider_is_an_error_that_lists_the_known(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = None
    if where == "environment":
        monkeypatch.setenv("LLM_PROVIDER", "fited")
    else:
        config = ProviderConfig(provider="fited")
    with pytest.raises(UnknownNameError) as raised:
        Aether(config=config)
    message = str(raised.value)
    for known in ("openai", "local", "fake", "fitted", *VENDORS):
        assert known in message
    assert "'fitted'" in message.partition("Known")[0]
    assert isinstance(raised.value, ConfigurationError)


@pytest.mark.parametrize("name", CLOUD)
def test_cloud_provider_without_a_key_names_the_variable_and_a_way_without(name: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Aether(config=ProviderConfig(provider=name))
    assert f"{name.upper()}_API_KEY" in str(raised.value)
    assert "LLM_PROVIDER=local" in str(raised.value)


@pytest.mark.parametrize("name", VENDORS)
def test_named_vendors_are_made_from_their_variables(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{name.upper()}_API_KEY", "sk-canary-0123456789")
    monkeypatch.setenv(f"{name.upper()}_MODEL", "a-model")
    monkeypatch.setenv(f"{name.upper()}_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("LLM_PROVIDER", name)
    adapter: Any = Aether(
        with_retry=False, with_circuit_breaker=False, with_cost_tracking=False
    ).provider
    assert adapter.default_model == "a-model"
    assert adapter.base_url == "http://127.0.0.1:9/v1"


@pytest.mark.parametrize("name", ["ollama", "vllm", "llamacpp", "lmstudio"])
def test_servers_of_ones_own_need_no_key(name: str) -> None:
    client = Aether(config=ProviderConfig(provider=name, model="m"))
    assert "OpenAICompatible" in repr(client)


def test_key_is_required_where_the_parameter_has_no_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @register_provider("strict", api_key_env="STRICT_API_KEY")
    class Strict(Fitted):
        def __init__(self, api_key: str) -> None:
            super().__init__(api_key)

    Strict.made = []
    config = ProviderConfig(provider="strict")
    with pytest.raises(ConfigurationError, match=r"STRICT_API_KEY.*LLM_PROVIDER=local"):
        Aether(config=config)
    with pytest.raises(ConfigurationError, match="STRICT_API_KEY"):
        Aether(config=ProviderConfig(provider="strict", api_key=""))
    monkeypatch.setenv("STRICT_API_KEY", "key-1")
    assert made(config).api_key == "key-1"


def test_required_key_without_a_variable_is_asked_for_in_the_configuration() -> None:
    @register_provider("strict")
    class Strict(Fitted):
        def __init__(self, api_key: str) -> None:
            super().__init__(api_key)

    Strict.made = []
    with pytest.raises(ConfigurationError, match="ProviderConfig"):
        Aether(config=ProviderConfig(provider="strict"))
    assert made(ProviderConfig(provider="strict", api_key="key-1")).api_key == "key-1"


def test_several_variables_are_tried_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    @register_provider("double", api_key_env=("FIRST_API_KEY", "SECOND_API_KEY"))
    class Double(Fitted):
        def __init__(self, api_key: str) -> None:
            super().__init__(api_key)

    Double.made = []
    config = ProviderConfig(provider="double")
    with pytest.raises(ConfigurationError, match="FIRST_API_KEY or SECOND_API_KEY"):
        Aether(config=config)
    monkeypatch.setenv("SECOND_API_KEY", "two")
    assert made(config).api_key == "two"
    monkeypatch.setenv("FIRST_API_KEY", "one")
    assert made(config).api_key == "one"


@pytest.mark.parametrize("key", ["can ary", "canary\nX: y", "canäry", "canary\r", "can\tary"])
def test_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Aether(config=ProviderConfig(provider="openai", api_key=key))
    assert key not in str(raised.value)
    assert "ary" not in str(raised.value)


# --- registration -----------------------------------------------------------------------------


async def test_registered_provider_works_with_the_whole_default_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @register_provider("ollama", api_key_env="OLLAMA_API_KEY", model_env="OLLAMA_MODEL")
    class OllamaProvider:
        def __init__(self, api_key: str | None = None, default_model: str = "llama3") -> None:
            self.default_model = default_model

        async def complete(self, request: LLMRequest) -> LLMResponse:
            return LLMResponse(text="from my own", model=request.model or "")

    monkeypatch.setenv("LLM_PROVIDER", "ollama")
    async with Aether() as client:
        assert repr(client) == "Aether(CostTracking > CircuitBreaker > Retrying > Ollama)"
        response = await client.complete("hi")
        assert (response.text, response.model) == ("from my own", "llama3")
        assert [text async for text in client.stream_text("hi")] == ["from my own"]
        assert client.usage.total_requests == 2
    monkeypatch.setenv("OLLAMA_MODEL", "qwen")
    async with Aether() as client:
        assert (await client.complete("hi")).model == "qwen"


def test_registering_returns_the_class_unchanged() -> None:
    class Mine(FakeProvider):
        pass

    assert register_provider("mine")(Mine) is Mine


def test_two_origins_for_one_name_are_an_error_unless_replaced() -> None:
    class One(FakeProvider):
        pass

    class Two(FakeProvider):
        pass

    register_provider("mine")(One)
    register_provider("mine")(One)
    with pytest.raises(ConfigurationError, match=r"One.*Two") as raised:
        register_provider("mine")(Two)
    assert "replace=True" in str(raised.value)
    assert repr(Aether(config=ProviderConfig(provider="mine"))).endswith("One)")
    register_provider("mine", replace=True)(Two)
    assert repr(Aether(config=ProviderConfig(provider="mine"))).endswith("Two)")


def test_function_that_makes_a_provider_can_be_registered() -> None:
    @register_provider("made")
    def make(default_model: str = "m") -> FakeProvider:
        return FakeProvider(default_model=default_model)

    client = Aether(config=ProviderConfig(provider="made", model="n"))
    assert repr(client).endswith("Fake)")


def test_function_that_takes_anything_gets_all_that_is_configured() -> None:
    got: dict[str, Any] = {}

    @register_provider("made")
    def make(**arguments: Any) -> FakeProvider:
        got.update(arguments)
        return FakeProvider()

    Aether(config=ProviderConfig(provider="made", api_key="k", model="n", options={"x": 1}))
    assert got == {"api_key": "k", "default_model": "n", "x": 1}


@pytest.mark.parametrize(
    "config",
    [
        ProviderConfig(provider="bare", base_url="http://127.0.0.1"),
        ProviderConfig(provider="bare", transport="httpx"),
        ProviderConfig(provider="bare", timeout=3),
        ProviderConfig(provider="bare", options={"nonsense": 1}),
    ],
)
def test_what_the_provider_does_not_take_is_an_error_and_not_dropped(
    config: ProviderConfig,
) -> None:
    register_provider("bare")(FakeProvider)
    with pytest.raises(ConfigurationError, match="does not take"):
        Aether(config=config)


@pytest.mark.parametrize("wrong", [object, lambda: None, 5])
def test_what_makes_no_provider_is_an_error_that_names_it(wrong: Any) -> None:
    register_provider("wrong")(wrong)
    with pytest.raises(ConfigurationError, match="wrong"):
        Aether(config=ProviderConfig(provider="wrong"))


def test_provider_can_be_built_without_a_client() -> None:
    from aether.registry import default_registry

    choice, provider = build_provider(ProviderConfig(provider="fitted"), default_registry)
    assert choice.name == "fitted"
    assert isinstance(provider, Fitted)


# --- the fake ---------------------------------------------------------------------------------


def request(text: str = "hi", **fields: Any) -> LLMRequest:
    return LLMRequest([Message("user", text)], **fields)


async def streamed(fake: FakeProvider) -> list[str]:
    return [chunk.text async for chunk in fake.stream(request()) if chunk.text]


async def test_fake_answers_always_the_same() -> None:
    fake = FakeProvider(canned_response="hello")
    assert [(await fake.complete(request(str(n)))).text for n in range(3)] == ["hello"] * 3


async def test_fake_plays_its_script_in_order_streaming_or_not() -> None:
    call = LLMResponse(text="", model="m", tool_calls=[ToolCall("1", "t", {})])
    fake = FakeProvider(responses=[LLMResponse(text="one", model="m"), call, "three"])
    assert (await fake.complete(request())).text == "one"
    chunks = [chunk async for chunk in fake.stream(request())]
    assert chunks[-1] == final_chunk(call)
    assert "".join(await streamed(fake)) == "three"


async def test_exhausted_script_is_an_error_that_says_so() -> None:
    fake = FakeProvider(responses=[LLMResponse(text="one", model="m")])
    await fake.complete(request())
    with pytest.raises(AetherError, match="exhausted"):
        await fake.complete(request())
    with pytest.raises(AetherError, match="exhausted"):
        await streamed(fake)


async def test_exhausted_script_is_not_retried() -> None:
    client = Aether(config=ProviderConfig(provider="fake", options={"responses": []}))
    with pytest.raises(ProviderError, match="exhausted") as raised:
        await client.ask("hi")
    assert raised.value.attempts == 1
    assert not raised.value.retryable


def test_script_of_one_string_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="list"):
        FakeProvider(responses="hello")


@pytest.mark.parametrize("text", ["42", "yes", "four", "hello", "Hello, world", "äöü €"])
async def test_fake_streams_in_several_deltas_that_join_to_the_text(text: str) -> None:
    for fake in (FakeProvider(text), FakeProvider(responses=[LLMResponse(text=text, model="m")])):
        deltas = await streamed(fake)
        assert "".join(deltas) == text
        assert len(deltas) > 1


@pytest.mark.parametrize(("text", "deltas"), [("", []), ("x", ["x"])])
async def test_fake_streams_what_cannot_be_cut(text: str, deltas: list[str]) -> None:
    assert await streamed(FakeProvider(text)) == deltas


async def test_fake_has_a_default_model_and_uses_the_one_that_it_is_asked_for() -> None:
    fake = FakeProvider()
    assert fake.default_model
    assert (await fake.complete(request())).model == fake.default_model
    assert (await fake.complete(request(model="m"))).model == "m"


async def test_fake_records_its_requests() -> None:
    fake = FakeProvider()
    requests = [request("1"), request("2")]
    await fake.complete(requests[0])
    async for _ in fake.stream(requests[1]):
        pass
    assert fake.requests == requests


async def test_fake_counts_tokens_and_always_the_same() -> None:
    one, two = [await FakeProvider("hello").complete(request("four four")) for _ in range(2)]
    assert one == two
    assert one.input_tokens
    assert one.output_tokens
    longer = await FakeProvider("hello").complete(request("four four four four"))
    assert longer.input_tokens is not None
    assert longer.input_tokens > one.input_tokens


async def test_a_second_provider_sends_as_the_client_was_told_to(
    monkeypatch: pytest.MonkeyPatch, aether_registry: Registry
) -> None:
    made: list[dict[str, Any]] = []

    class Second(FakeProvider):
        def __init__(self, timeout: float | None = None) -> None:
            super().__init__("second")
            made.append({"timeout": timeout})

    class Plain(FakeProvider):
        def __init__(self) -> None:
            super().__init__("plain")

    aether_registry.add("llm_provider", "second", Second)
    aether_registry.add("llm_provider", "plain", Plain)
    config = ProviderConfig(provider="second", timeout=7)
    async with Aether(config=config) as client:
        assert await client.ask("hi", model="plain:m") == "plain"
    async with Aether(
        config=ProviderConfig(provider="openai", api_key="sk-canary-0123456789", timeout=8)
    ) as client:
        assert await client.ask("hi", model="second:m") == "second"
    assert made == [{"timeout": 7}, {"timeout": 8}]
