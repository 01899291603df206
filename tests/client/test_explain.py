"""`client.explain()`: what runs, how it is set, where that is from, which order breaks what."""

from __future__ import annotations

from itertools import combinations

import pytest

from aether import Aether, Hedge, ProviderConfig
from aether.extensions.caches import InMemoryCache
from aether.extensions.llm import (
    CircuitBreakerProvider,
    CostTrackingProvider,
    FakeProvider,
    RetryingProvider,
)
from aether.extensions.llm.explaining import ORDER
from aether.extensions.llm.fallback import FallbackProvider
from aether.extensions.llm.hedging import HedgingProvider
from aether.llm.contracts import LLMProvider
from aether.llm.wrapper import ProviderWrapper
from aether.registry import Registry

KEY = "sk-canary-0123456789"


def row(text: str, name: str) -> list[str]:
    """The cells of the line that begins with that name."""
    [line] = [line for line in text.splitlines() if line.split()[:1] == [name]]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


class Logging(ProviderWrapper):
    def settings(self) -> str:
        return "to a file"


def test_it_prints_what_it_returns(capsys: pytest.CaptureFixture[str]) -> None:
    text = Aether(FakeProvider("hello")).explain()
    assert capsys.readouterr().out == f"{text}\n"


def test_layers_stand_in_the_order_in_which_a_request_meets_them() -> None:
    text = Aether(config=ProviderConfig(provider="fake"), layers=[Logging]).explain()
    names = [line.split()[0] for line in text.split("\n\n")[0].splitlines()[1:]]
    assert names == ["Logging", "Budget", "CostTracking", "CircuitBreaker", "Retrying", "Fake"]
    assert row(text, "Retrying")[1:] == [
        "up to 3 attempts, 0.5 to 8 s apart; Retry-After up to 120 s",
        "default",
    ]
    assert row(text, "Logging") == ["Logging", "to a file", "argument"]


def test_each_setting_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_MODEL", "gpt-5-mini")
    monkeypatch.setenv("AETHER_MAX_TOOL_ITERATIONS", "5")
    monkeypatch.setenv("AETHER_PARALLEL_TOOLS", "perhaps")
    config = ProviderConfig(base_url="https://example.org/v1")
    text = Aether(config=config).explain()
    assert row(text, "provider") == ["provider", "openai", "default"]
    assert row(text, "model") == ["model", "gpt-5-mini", "OPENAI_MODEL"]
    assert row(text, "api_key") == ["api_key", "set", "OPENAI_API_KEY"]
    assert row(text, "base_url") == ["base_url", "https://example.org/v1", "argument"]
    assert row(text, "max_tool_iterations") == [
        "max_tool_iterations",
        "5",
        "AETHER_MAX_TOOL_ITERATIONS",
    ]
    assert row(text, "parallel_tools")[2] == (
        "the default 1, as AETHER_PARALLEL_TOOLS is not valid"
    )
    assert row(text, "temperature") == ["temperature", "0.7", "default"]
    assert KEY not in text


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, ["aiohttp", "default"]),
        ("aiohttp", ["aiohttp", "AETHER_HTTP"]),
        ("httpx", ["httpx", "AETHER_HTTP"]),
        ("none-such", ["aiohttp", "default, as AETHER_HTTP is not valid"]),
    ],
)
def test_the_transport_says_whether_its_variable_was_heeded(
    variable: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("AETHER_HTTP", variable)
    text = Aether(config=ProviderConfig(provider="fake")).explain()
    assert row(text, "transport")[1:] == expected


def test_the_time_that_is_waited_is_told() -> None:
    assert row(Aether(config=ProviderConfig(provider="ollama")).explain(), "timeout") == [
        "timeout",
        "the provider's own",
        "default",
    ]
    config = ProviderConfig(provider="ollama", timeout=30)
    assert row(Aether(config=config).explain(), "timeout") == ["timeout", "30", "argument"]


def test_a_cache_is_named_but_not_where_it_is() -> None:
    class Elsewhere(InMemoryCache):
        def __repr__(self) -> str:
            return "Elsewhere('redis://user:secret@host')"

    text = Aether(FakeProvider("hello"), cache=Elsewhere()).explain()
    assert row(text, "Caching") == ["Caching", "Elsewhere", "argument"]


def test_what_may_be_secret_in_an_address_is_not_shown() -> None:
    registry = Registry()

    @registry.register("llm_provider", "theirs")
    class Theirs(FakeProvider):
        def __init__(self, base_url: str | None = None) -> None:
            super().__init__("hello")

    address = "https://user:secret@example.org/v1?key=secret"
    config = ProviderConfig(provider="theirs", base_url=address)
    text = Aether(config=config, registry=registry).explain()
    assert row(text, "base_url") == ["base_url", "https://example.org/v1", "argument"]
    assert "secret" not in text


def test_a_model_reference_is_named_as_the_source_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHER_MODEL", "ollama:llama3")
    text = Aether().explain()
    assert row(text, "provider") == ["provider", "ollama", "AETHER_MODEL"]
    assert row(text, "model") == ["model", "llama3", "AETHER_MODEL"]


def test_an_argument_beats_the_environment_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHER_MODEL", "ollama:llama3")
    text = Aether(config=ProviderConfig(provider="fake", model="other")).explain()
    assert row(text, "provider") == ["provider", "fake", "argument"]
    assert row(text, "model") == ["model", "other", "argument"]


def test_a_stack_of_ones_own_is_told_as_given() -> None:
    text = Aether(CircuitBreakerProvider(RetryingProvider(FakeProvider("hello")))).explain()
    assert row(text, "CostTracking") == ["CostTracking", "default"]
    assert row(text, "CircuitBreaker")[-1] == row(text, "Retrying")[-1] == "given"
    assert "Warnings" not in text


def test_an_order_that_breaks_a_promise_is_warned_of() -> None:
    stack = RetryingProvider(CircuitBreakerProvider(FakeProvider("hello")))
    assert (
        "Retrying stands outside CircuitBreaker: each attempt counts as a failure of its own"
        in Aether(stack).explain()
    )


@pytest.mark.parametrize("place", ["fallback", "hedge"])
def test_the_order_of_another_line_is_warned_of_too(place: str) -> None:
    line = RetryingProvider(CircuitBreakerProvider(FakeProvider("hello")))
    stack = FakeProvider("hello")
    around = (
        FallbackProvider(stack, [FakeProvider("hello"), line])
        if place == "fallback"
        else HedgingProvider(stack, Hedge(after=2.0), other=line)
    )
    text = Aether(around, with_cost_tracking=False).explain()
    assert "Retrying stands outside CircuitBreaker" in text


def test_a_layer_that_stands_there_twice_is_warned_of() -> None:
    stack = RetryingProvider(RetryingProvider(FakeProvider("hello")))
    assert "Retrying stands there twice" in Aether(stack).explain()


@pytest.mark.parametrize(("outer", "inner"), list(combinations(ORDER, 2)))
def test_any_two_layers_the_wrong_way_round_are_warned_of(outer: str, inner: str) -> None:
    def layer(name: str, within: LLMProvider) -> LLMProvider:
        made: LLMProvider = type(name, (ProviderWrapper,), {})(within)
        return made

    right = layer(outer, layer(inner, FakeProvider("hello")))
    wrong = layer(inner, layer(outer, FakeProvider("hello")))
    assert "Warnings" not in Aether(right, with_cost_tracking=False).explain()
    if {outer, inner} == {"BudgetProvider", "CostTrackingProvider"}:
        assert "Warnings" not in Aether(wrong, with_cost_tracking=False).explain()
        return
    [_, warned] = Aether(wrong, with_cost_tracking=False).explain().split("Warnings:\n")
    names = [name.removesuffix("Provider") for name in (inner, outer)]
    assert warned.strip().startswith(f"{names[0]} stands outside {names[1]}: ")
    assert len(warned.splitlines()) == 1


def test_cost_tracking_that_is_off_is_no_layer() -> None:
    text = Aether(FakeProvider("hello"), with_cost_tracking=False).explain()
    assert CostTrackingProvider.__name__.removesuffix("Provider") not in text


def test_who_may_be_asked_in_its_place_is_told_with_the_sources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    fallbacks = ["anthropic:claude-haiku-5-5", "groq:llama-9"]
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    text = Aether(config=ProviderConfig(provider="fake"), fallbacks=fallbacks).explain()
    _, anthropic, groq = text.split("Settings of ")
    assert row(anthropic, "model") == ["model", "claude-haiku-5-5", "argument"]
    assert row(anthropic, "api_key") == ["api_key", "set", "ANTHROPIC_API_KEY"]
    assert row(groq, "model") == ["model", "llama-9", "argument"]
    assert row(groq, "api_key") == ["api_key", "set", "GROQ_API_KEY"]
    assert KEY not in text


def test_the_blocking_client_explains_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with Aether(FakeProvider("hello")).sync as client:
        assert client.explain() == capsys.readouterr().out.removesuffix("\n")
