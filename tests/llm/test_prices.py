"""The public list prices, as the ledger asks for them."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot
from genai_prices.types import ClauseEquals, ModelInfo, Provider
from hypothesis import given
from hypothesis import strategies as st

from aether.extensions.prices.genai import GenAIPrices
from aether.llm.pricing import KIND
from aether.llm.usage import LedgerEntry
from aether.registry import Registry

WHEN = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PRICES = GenAIPrices()


def entry(provider: str | None, model: str | None, **counts: Any) -> LedgerEntry:
    return LedgerEntry(provider, model, "exact", started_at=counts.pop("at", WHEN), **counts)


def a_million(provider: str | None, model: str | None, **counts: Any) -> Decimal | None:
    return PRICES.cost(entry(provider, model, **{"input_tokens": 0, "output_tokens": 0, **counts}))


# Dollars for a million tokens, from the providers' price pages of November 2026.
LIST_PRICES = [
    ("anthropic", "claude-opus-5-5", "4", "0.2", "5", "20"),
    ("anthropic", "claude-sonnet-5-5", "2", "0.1", "2.5", "10"),
    ("openai", "gpt-4o-mini", "0.15", "0.075", None, "0.6"),
    ("gemini", "gemini-2.5-flash", "0.3", "0.03", None, "2.5"),
    ("openai", "gpt-4.1-mini", "0.4", "0.1", None, "1.6"),
]


@pytest.mark.parametrize(("provider", "model", "read_in", "cached", "written", "out"), LIST_PRICES)
def test_each_token_is_priced_once(
    provider: str, model: str, read_in: str, cached: str, written: str | None, out: str
) -> None:
    million = 1_000_000
    assert a_million(provider, model, input_tokens=million) == Decimal(read_in)
    assert a_million(provider, model, output_tokens=million) == Decimal(out)
    assert a_million(provider, model, input_tokens=million, cache_read_tokens=million) == Decimal(
        cached
    )
    half_cached = a_million(provider, model, input_tokens=million, cache_read_tokens=million // 2)
    assert half_cached == (Decimal(read_in) + Decimal(cached)) / 2
    if written is not None:
        assert a_million(
            provider, model, input_tokens=million, cache_write_tokens=million
        ) == Decimal(written)
    assert a_million(
        provider, model, output_tokens=million, reasoning_tokens=million // 2
    ) == Decimal(out)


@pytest.mark.parametrize(
    ("provider", "model", "counts", "dollars"),
    [
        ("openai", "gpt-audio", {"input_audio_tokens": 500_000}, "27.25"),
        ("openai", "gpt-audio", {"output_audio_tokens": 250_000}, "26"),
        ("gemini", "gemini-2.5-flash", {"input_audio_tokens": 1_000_000}, "3.5"),
        ("gemini", "gemini-2.5-flash-image", {"output_image_tokens": 1_000_000}, "30.3"),
        ("gemini", "gemini-2.5-flash", {"input_image_tokens": 1_000_000}, "2.8"),
    ],
)
def test_sound_and_images_have_their_own_price_where_there_is_one(
    provider: str, model: str, counts: dict[str, int], dollars: str
) -> None:
    million = 1_000_000
    cost = a_million(
        provider, model, input_tokens=million, output_tokens=million, token_details=counts
    )
    assert cost == Decimal(dollars)


def test_a_cache_that_is_kept_for_an_hour_is_dearer() -> None:
    counts = {"input_tokens": 1000, "cache_write_tokens": 800}
    short = PRICES.cost(entry("anthropic", "claude-sonnet-5-5", **counts))
    for_an_hour = entry(
        "anthropic",
        "claude-sonnet-5-5",
        **counts,
        token_details={"cache_write_1h_tokens": 500},
    )
    assert short == (200 * Decimal(2) + 800 * Decimal("2.5")) / 1_000_000
    assert PRICES.cost(for_an_hour) == short + 500 * (Decimal(4) - Decimal("2.5")) / 1_000_000


def test_what_overlaps_in_a_way_that_was_not_told_is_not_priced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """How much of the sound came from the cache decides its price."""
    counted = entry(
        "gemini",
        "gemini-2.5-flash",
        input_tokens=1000,
        cache_read_tokens=300,
        token_details={"input_audio_tokens": 900},
    )
    with caplog.at_level(logging.WARNING, "aether.prices"):
        assert PRICES.cost(counted) is None
    [record] = caplog.records
    assert "cannot be priced" in record.getMessage()


def test_a_detail_that_nobody_knows_changes_nothing() -> None:
    plain = entry("openai", "gpt-6-luna", input_tokens=1000)
    strange = entry("openai", "gpt-6-luna", input_tokens=1000, token_details={"input_smells": 9})
    assert PRICES.cost(strange) == PRICES.cost(plain)


def test_a_large_call_is_priced_by_its_size() -> None:
    small = PRICES.cost(entry("anthropic", "claude-haiku-5-5", input_tokens=100_000))
    large = PRICES.cost(entry("anthropic", "claude-haiku-5-5", input_tokens=200_000))
    assert small == Decimal("0.01")
    assert large == Decimal("0.1")


def test_a_call_is_priced_by_its_time() -> None:
    now = PRICES.cost(entry("gemini", "gemini-3.8-flash", input_tokens=1_000_000))
    later = entry(
        "gemini", "gemini-3.8-flash", input_tokens=1_000_000, at=datetime(2027, 1, 2, tzinfo=UTC)
    )
    assert now == Decimal("0.75")
    assert PRICES.cost(later) == Decimal("1.5")


def test_an_unknown_provider_is_priced_by_the_models_name_alone() -> None:
    known = PRICES.cost(entry("openai", "gpt-6-luna", input_tokens=1000))
    assert known is not None
    assert PRICES.cost(entry(None, "gpt-6-luna", input_tokens=1000)) == known
    assert PRICES.cost(entry("my-gateway", "gpt-6-luna", input_tokens=1000)) == known


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-6.2-sol"),
        ("openai", "llama3"),
        (None, "no-such-model"),
        ("fake", "fake-model"),
        (None, None),
        ("ollama", "deepseek-r1:7b"),
        ("vllm", "kimi-k2"),
        ("local", "gpt-4o-mini"),
    ],
)
def test_a_price_that_is_not_known_is_not_guessed(provider: str | None, model: str | None) -> None:
    assert PRICES.cost(entry(provider, model, input_tokens=10, output_tokens=10)) is None


@pytest.mark.parametrize(("provider", "model"), [("azure", "mai-ds-r1:free")])
def test_a_model_that_the_table_lists_without_a_price_has_none(provider: str, model: str) -> None:
    assert PRICES.cost(entry(provider, model, input_tokens=10, output_tokens=10)) is None


def test_unknown_counts_are_not_priced() -> None:
    assert PRICES.cost(entry("openai", "gpt-6-luna")) is None
    assert PRICES.cost(entry("openai", "gpt-6-luna", output_tokens=1000)) == Decimal("0.0005")
    without_its_whole = entry(
        "openai",
        "gpt-6-luna",
        output_tokens=1000,
        cache_read_tokens=500,
        reasoning_tokens=5,
        token_details={"input_audio_tokens": 9},
    )
    assert PRICES.cost(without_its_whole) == Decimal("0.0005")


@pytest.mark.parametrize(
    "counts",
    [
        {"input_tokens": 10, "cache_read_tokens": 11},
        {"input_tokens": 10, "cache_read_tokens": 6, "cache_write_tokens": 6},
        {"output_tokens": 10, "reasoning_tokens": 11},
        {"input_tokens": -1},
        {"input_tokens": 10, "cache_write_tokens": -1},
        {"input_tokens": 10, "token_details": {"input_audio_tokens": 11}},
        {"input_tokens": 10, "token_details": {"cache_write_1h_tokens": 1}},
        {"input_tokens": 10, "token_details": {"input_image_tokens": -1}},
    ],
)
def test_counts_that_cannot_be_are_not_priced_and_logged(
    counts: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "aether.prices"):
        assert PRICES.cost(entry("anthropic", "claude-haiku-5-5", **counts)) is None
    [record] = caplog.records
    assert "claude-haiku-5-5" in record.getMessage()


def _models() -> list[tuple[str, str]]:
    providers = get_snapshot().providers
    return [(provider.id, model.id) for provider in providers for model in provider.models]


def table_cost(counted: LedgerEntry) -> Decimal:
    """What genai-prices itself makes of it."""
    usage = Usage(
        input_tokens=counted.input_tokens,
        output_tokens=counted.output_tokens,
        cache_read_tokens=counted.cache_read_tokens,
        cache_write_tokens=counted.cache_write_tokens,
        output_reasoning_tokens=counted.reasoning_tokens,
    )
    with localcontext() as context:
        context.prec = 60
        return calc_price(
            usage,
            str(counted.model),
            provider_id=counted.provider,
            genai_request_timestamp=counted.started_at,
        ).total_price


def test_it_agrees_with_the_table_for_every_model() -> None:
    priced = 0
    for provider, model in _models():
        counted = entry(
            provider,
            model,
            input_tokens=1009,
            output_tokens=307,
            cache_read_tokens=211,
            cache_write_tokens=101,
            reasoning_tokens=53,
        )
        cost = PRICES.cost(counted)
        if cost is not None:
            priced += 1
            assert cost == table_cost(counted), model
    assert priced > 0.8 * len(_models())


@given(
    where=st.sampled_from(
        [
            ("openai", "gpt-6.1-sol"),
            ("anthropic", "claude-haiku-5-5"),
            ("deepseek", "deepseek-v4-flash"),
        ]
    ),
    counts=st.tuples(*[st.integers(0, 500_000)] * 2),
    percent=st.tuples(*[st.integers(0, 50)] * 3),
    at=st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001  # the zone is the strategy's
)
def test_it_agrees_with_the_table_at_any_size_and_time(
    where: tuple[str, str], counts: tuple[int, int], percent: tuple[int, int, int], at: datetime
) -> None:
    (sent, received), (cached, written, reasoning) = counts, percent
    counted = entry(
        *where,
        input_tokens=sent,
        output_tokens=received,
        cache_read_tokens=sent * cached // 100,
        cache_write_tokens=sent * written // 100,
        reasoning_tokens=received * reasoning // 100,
        at=at,
    )
    assert PRICES.cost(counted) == table_cost(counted)


def test_a_model_without_any_price_has_none() -> None:
    listed = ModelInfo("m", ClauseEquals("m"), prices=[])
    table = DataSnapshot([Provider("p", "P", "https://p", models=[listed])], from_auto_update=True)
    set_custom_snapshot(table)
    try:
        assert GenAIPrices().cost(entry("p", "m", input_tokens=10)) is None
    finally:
        set_custom_snapshot(None)


def test_the_precision_of_the_calling_thread_does_not_matter() -> None:
    counts = {"input_tokens": 123_456_789, "output_tokens": 987_654_321}
    expected = GenAIPrices().cost(entry("openai", "gpt-6-luna", **counts))
    with localcontext() as context:
        context.prec = 3
        assert GenAIPrices().cost(entry("openai", "gpt-6-luna", **counts)) == expected


def test_an_update_of_the_table_is_followed() -> None:
    prices = GenAIPrices()
    assert prices.cost(entry("openai", "gpt-6-luna", input_tokens=10)) is not None
    set_custom_snapshot(DataSnapshot(providers=[], from_auto_update=True))
    try:
        assert prices.cost(entry("openai", "gpt-6-luna", input_tokens=10)) is None
    finally:
        set_custom_snapshot(None)
    assert prices.cost(entry("openai", "gpt-6-luna", input_tokens=10)) is not None


def test_threads_may_load_at_once() -> None:
    prices, costs = GenAIPrices(), []
    at_once = threading.Barrier(8)

    def load() -> None:
        at_once.wait(5)
        prices.load()
        costs.append(prices.cost(entry("openai", "gpt-6-luna", input_tokens=1000)))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert costs == [Decimal("0.0001")] * 8


def test_it_is_found_by_name() -> None:
    assert Registry().get(KIND, "genai") is GenAIPrices


def test_nothing_is_loaded_before_the_first_use() -> None:
    code = (
        "import sys; from aether.extensions.prices.genai import GenAIPrices; GenAIPrices();"
        "sys.exit('genai_prices' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
