"""A client's stack in words: its layers in their order, its settings and where they came from.

It must not know how a layer works: each says itself how it is set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aether import config
from aether.extensions.llm.factory import Choice, Setting
from aether.extensions.llm.settings import Settings
from aether.http.contracts import KIND as HTTP
from aether.llm.wrapper import describe, layers_of
from aether.registry import default_registry

__all__ = ["explain"]

ORDER = (
    "CachingProvider",
    "FallbackProvider",
    "HedgingProvider",
    "BudgetProvider",
    "CostTrackingProvider",
    "CircuitBreakerProvider",
    "RetryingProvider",
    "RateLimitingProvider",
    "TimeoutProvider",
)
"""From the outside in."""

_BROKEN = {
    ("RetryingProvider", "CircuitBreakerProvider"): (
        "each attempt counts as a failure of its own, so the circuit opens too early"
    ),
    (
        "RetryingProvider",
        "CostTrackingProvider",
    ): "a call that was retried is counted several times",
    ("RetryingProvider", "BudgetProvider"): "each attempt is a call of its own to the budget",
    ("CircuitBreakerProvider", "CostTrackingProvider"): (
        "what the breaker refuses does not appear in the usage"
    ),
    ("CostTrackingProvider", "CachingProvider"): "answers from the cache pass the cost tracking",
    ("CostTrackingProvider", "FallbackProvider"): (
        "what a fallback answers is priced as if the first provider had"
    ),
    ("CostTrackingProvider", "HedgingProvider"): "two calls are counted as one",
    ("BudgetProvider", "FallbackProvider"): (
        "what is set aside is for the first model, whatever the other one costs"
    ),
    ("BudgetProvider", "HedgingProvider"): "what is set aside is for one call, and two are made",
    ("BudgetProvider", "CachingProvider"): "an answer from the cache needs room in the budget",
    ("RateLimitingProvider", "RetryingProvider"): "attempts after the first are not held back",
    ("TimeoutProvider", "RetryingProvider"): "its limits hold for all attempts together",
    ("RetryingProvider", "FallbackProvider"): "a fallback is tried anew with each attempt",
    ("RetryingProvider", "HedgingProvider"): "each attempt may be made twice",
    ("CircuitBreakerProvider", "FallbackProvider"): (
        "an open circuit keeps calls from the fallbacks, too"
    ),
    ("FallbackProvider", "CachingProvider"): "equal calls at once each ask a fallback",
}
"""What breaks where the first stands outside the second."""

_HARMLESS = ("CostTrackingProvider", "BudgetProvider")
"""As where a client puts cost tracking around a stack of the user's with a budget in it."""


def explain(
    provider: object,
    settings: Settings,
    *,
    choice: Choice | None,
    others: Sequence[Choice],
    given: object | None,
) -> str:
    """The text: layers from the outside in, settings with their sources, and warnings."""
    lines = ["Layers, the outermost first:"]
    lines += _table(_layers(provider, settings, choice, given))
    lines += ["", "Settings, and where they come from:"]
    lines += _table(_settings(provider, choice))
    for other in others:
        lines += ["", f"Settings of {other.name}, which may be asked in its place or besides:"]
        lines += _table(_chosen(other, "the provider's own"))
    warned = list(warnings_about(provider))
    if warned:
        lines += ["", "Warnings:", *(f"  {warning}" for warning in warned)]
    return "\n".join(lines)


def warnings_about(provider: object) -> Iterator[str]:
    """What the order of the layers breaks, and what stands there twice; in other lines too."""
    names = [type(layer).__name__ for layer in layers_of(provider)]
    known = [name for name in names if name in ORDER]
    for place, outer in enumerate(known):
        if outer in known[:place]:
            yield f"{_short(outer)} stands there twice: what it does, it does to itself too."
            continue
        for inner in dict.fromkeys(known[place + 1 :]):
            if ORDER.index(inner) < ORDER.index(outer) and (outer, inner) != _HARMLESS:
                why = _BROKEN.get((outer, inner), "it belongs inside it")
                yield f"{_short(outer)} stands outside {_short(inner)}: {why}."
    for layer in layers_of(provider):
        for other in (*getattr(layer, "fallbacks", ()), *_other(layer)):
            for warning in warnings_about(other):
                yield f"{describe(other)}: {warning}"


def _layers(
    provider: object, settings: Settings, choice: Choice | None, given: object | None
) -> Iterator[Sequence[str]]:
    sources = settings.sources
    source = "argument"  # of the layers that are the user's own
    for layer in layers_of(provider):
        if layer is given:
            sources, source = {}, "given"
        elif choice is not None and not hasattr(layer, "inner"):
            source = choice.provider.source
        name = type(layer).__name__
        words = getattr(layer, "settings", None)
        said = words() if callable(words) else ""
        yield _short(name), said if isinstance(said, str) else "", sources.get(name, source)
        for label, others in (("or", getattr(layer, "fallbacks", ())), ("and", _other(layer))):
            for other in others:
                yield f"  {label}", describe(other), ""


def _other(layer: object) -> tuple[object, ...]:
    other = getattr(layer, "other", None)
    return () if other is None else (other,)


def _settings(provider: object, choice: Choice | None) -> Iterator[Sequence[str]]:
    if choice is not None:
        yield from _chosen(choice, getattr(provider, "default_model", None) or "none")
    for name, value, source in config.call_settings():
        yield name, str(value), source


def _chosen(choice: Choice, default_model: str) -> Iterator[Sequence[str]]:
    yield "provider", choice.name, choice.provider.source
    yield "model", choice.model.value or default_model, choice.model.source
    yield "api_key", choice.api_key.value or "not set", choice.api_key.source
    yield "base_url", choice.base_url.value or "the provider's own", choice.base_url.source
    transport = _transport(choice.transport)
    yield "transport", str(transport.value), transport.source
    yield "timeout", choice.timeout.value or "the provider's own", choice.timeout.source


def _transport(given: Setting) -> Setting:
    """The one that was given; else what the environment says, which is read when it is needed."""
    if given.value is not None:
        return given
    asked = config.environment("AETHER_HTTP")
    used = config.http_transport(lambda name: (HTTP, name) in default_registry)
    if asked is None:
        return Setting(used, given.source)
    is_known = asked == used
    return Setting(used, "AETHER_HTTP" if is_known else "default, as AETHER_HTTP is not valid")


def _table(rows: Iterator[Sequence[str]]) -> list[str]:
    cells = list(rows)
    widths = [max(map(len, column), default=0) for column in zip(*cells, strict=True)]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _short(name: str) -> str:
    return name.removesuffix("Provider") or name
