"""The facade's switches for layers: what each takes, who beats whom, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aether import Aether, Budget, Hedge, ProviderConfig, RateLimit
from aether.errors import AetherError, ConfigurationError, InputError, RateLimitError
from aether.extensions.caches.in_memory import InMemoryCache
from aether.extensions.llm import FakeProvider
from aether.llm.policies import Fallbacks

FAKE = ProviderConfig(provider="fake")


def stack(**options: Any) -> str:
    return repr(Aether(config=FAKE, **options)).removeprefix("Aether(").removesuffix(")")


DEFAULT = "CostTracking > CircuitBreaker > Retrying"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, f"{DEFAULT} > Fake"),
        ({"budget": Budget(requests=5)}, f"Budget > {DEFAULT} > Fake"),
        ({"cache": True}, f"Caching > Budget > {DEFAULT} > Fake"),
        ({"cache": False}, f"{DEFAULT} > Fake"),
        ({"fallbacks": ["fake:other"]}, f"Fallback > Budget > {DEFAULT} > Fake"),
        ({"fallbacks": []}, f"{DEFAULT} > Fake"),
        ({"hedge": True}, f"Hedging > Budget > {DEFAULT} > Fake"),
        ({"hedge": False}, f"{DEFAULT} > Fake"),
        ({"rate_limit": RateLimit(60)}, f"{DEFAULT} > RateLimiting > Fake"),
        (
            {
                "cache": True,
                "fallbacks": ["fake:other"],
                "hedge": True,
                "budget": Budget(requests=5),
                "rate_limit": RateLimit(60),
            },
            f"Caching > Fallback > Hedging > Budget > {DEFAULT} > RateLimiting > Fake",
        ),
    ],
    ids=str,
)
def test_a_switch_puts_its_layer_in_its_place(options: dict[str, Any], expected: str) -> None:
    assert stack(**options) == expected


def test_layers_that_were_asked_for_stand_around_a_provider_of_ones_own_too() -> None:
    client = Aether(
        FakeProvider("hello"),
        cache=True,
        fallbacks=[FakeProvider("other")],
        hedge=True,
        budget=Budget(requests=5),
        rate_limit=RateLimit(60),
    )
    assert repr(client) == (
        "Aether(Caching > Fallback > Hedging > Budget > CostTracking > RateLimiting > Fake)"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("budget", Budget(requests=5)),
        ("cache", True),
        ("fallbacks", ["fake:other"]),
        ("hedge", True),
        ("rate_limit", RateLimit(60)),
    ],
)
def test_the_configuration_may_say_the_same_and_an_argument_beats_it(name: str, value: Any) -> None:
    config = ProviderConfig(provider="fake", **{name: value})
    assert repr(Aether(config=config)) == f"Aether({stack(**{name: value})})"
    if name in ("cache", "hedge"):
        off: dict[str, Any] = {name: False}
        assert repr(Aether(config=config, **off)) == f"Aether({DEFAULT} > Fake)"
    source = Aether(config=config).explain()
    assert "configuration" in source
    assert "configuration" not in Aether(config=FAKE, **{name: value}).explain()


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"budget": 5}, TypeError, r"budget is a Budget"),
        ({"budget": Budget}, TypeError, r"budget is a Budget"),
        ({"cache": 5}, TypeError, "a cache is an instance"),
        ({"cache": InMemoryCache}, TypeError, "a cache is an instance"),
        ({"cache": "redis://host"}, ConfigurationError, "sqlite:///file"),
        ({"cache": "sqlite:///"}, ConfigurationError, "sqlite:///file"),
        ({"fallbacks": ["nosuch:model"]}, ConfigurationError, "no known provider"),
        ({"fallbacks": ["gpt-5-mini"]}, ConfigurationError, "no known provider"),
        ({"fallbacks": "fake:other"}, ConfigurationError, "fallbacks is a list"),
        ({"fallbacks": [7]}, ConfigurationError, "A fallback is provider:model"),
        ({"fallbacks": [FakeProvider]}, ConfigurationError, "A fallback is provider:model"),
        ({"hedge": 2.0}, TypeError, "hedge is True or a Hedge"),
        ({"rate_limit": 60}, TypeError, "rate_limit is a RateLimit"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_when_the_client_is_made(
    options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        Aether(config=FAKE, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RateLimit(requests_per_minute=0),
        lambda: RateLimit(requests_per_minute=-1),
        lambda: RateLimit(tokens_per_minute=float("nan")),
        lambda: RateLimit(tokens_per_minute=True),
        lambda: RateLimit(max_waiting=-1),
        lambda: Hedge(after=-1.0),
        lambda: Hedge(after=float("inf")),
        lambda: Hedge(max_share=0.0),
        lambda: Hedge(max_share=1.5),
        lambda: Hedge(model=""),
        lambda: Fallbacks([]),
        lambda: Fallbacks(["fake:other"], after_content="again"),  # type: ignore[arg-type]
        lambda: Fallbacks(["fake:other"], on=RateLimitError),  # type: ignore[arg-type]
    ],
)
def test_a_policy_that_cannot_work_is_refused_when_it_is_made(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()


@pytest.mark.parametrize("cache", [7, "", object()])
async def test_a_calls_cache_option_is_a_switch_or_a_key(cache: Any) -> None:
    async with Aether(config=FAKE, cache=True) as client:
        with pytest.raises(InputError, match="cache is True, False or a key"):
            await client.ask("Hi", cache=cache)


@pytest.mark.parametrize("budget", [5, "5", Budget])
async def test_a_calls_budget_is_a_budget(budget: Any) -> None:
    async with Aether(config=FAKE) as client:
        with pytest.raises(TypeError, match="budget is a Budget"):
            await client.ask("Hi", budget=budget)
        with pytest.raises(TypeError, match="budget is a Budget"):
            client.session("one", budget=budget)


async def test_a_cache_that_the_client_made_is_closed_with_it(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    async with Aether(config=FAKE, cache=f"sqlite:///{path}") as client:
        first = await client.complete("Hi", temperature=0.0)
        again = await client.complete("Hi", temperature=0.0)
    assert (first.cached, again.cached) == (False, True)
    async with Aether(config=FAKE, cache=f"sqlite:///{path}") as client:
        assert (await client.complete("Hi", temperature=0.0)).cached


async def test_a_cache_that_was_passed_stays_open() -> None:
    cache = InMemoryCache()
    for expected in (False, True):
        async with Aether(config=FAKE, cache=cache) as client:
            assert (await client.complete("Hi", temperature=0.0)).cached is expected


async def test_all_providers_of_a_client_share_its_cache_and_its_budget() -> None:
    budget = Budget(requests=2)
    async with Aether(config=FAKE, cache=True, budget=budget) as client:
        await client.ask("Hi", temperature=0.0)
        await client.ask("Hi", temperature=0.0, model="fake:other")
        assert budget.spent_requests == 2
        with pytest.raises(AetherError):
            await client.ask("Something else")
        assert await client.ask("Hi", temperature=0.0)
