"""The settings of a client's layers: what was given for each, checked and made whole.

It must not know how the layers are stacked, nor what they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from aether.config import ProviderConfig
from aether.errors import ConfigurationError
from aether.llm.budget import Budget, checked_budget
from aether.llm.caching import KIND as RESPONSE_CACHE
from aether.llm.caching import ResponseCache
from aether.llm.contracts import Layer, LLMProvider
from aether.registry import Registry

if TYPE_CHECKING:
    from aether.llm.policies import Fallbacks, Hedge, RateLimit

__all__ = ["Settings", "read_settings"]

SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which layers a client's stacks have, and how they are set."""

    with_retry: bool = True
    with_circuit_breaker: bool = True
    with_cost_tracking: bool = True
    budget: Budget | None = None
    cache: ResponseCache | None = None
    owns_cache: bool = False
    """Whether the cache was made here, and is to be closed with the client."""
    fallbacks: Fallbacks | None = None
    hedge: Hedge | None = None
    rate_limit: RateLimit | None = None
    layers: Sequence[Layer] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    """For the class of a layer that was asked for, where that was."""

    @property
    def with_budget(self) -> bool:
        """Whether a place is kept for budgets.

        A call's own may be put around a stack, but not around what may avoid or multiply it.
        """
        wanting = (self.budget, self.cache, self.fallbacks, self.hedge)
        return bool(self.layers) or any(setting is not None for setting in wanting)


def read_settings(
    config: ProviderConfig,
    *,
    registry: Registry,
    budget: Budget | None,
    cache: bool | str | ResponseCache | None,
    fallbacks: Sequence[str | LLMProvider] | Fallbacks | None,
    hedge: bool | Hedge | None,
    rate_limit: RateLimit | None,
    layers: Sequence[Layer],
    with_retry: bool,
    with_circuit_breaker: bool,
    with_cost_tracking: bool,
) -> Settings:
    """What the client was given, else what its configuration says.

    Values of a wrong type are a `TypeError`, others that cannot work a `ConfigurationError`.
    """
    given = config.cache if cache is None else cache
    return Settings(
        with_retry=with_retry,
        with_circuit_breaker=with_circuit_breaker,
        with_cost_tracking=with_cost_tracking,
        budget=checked_budget(config.budget if budget is None else budget),
        cache=_cache(given, registry),
        owns_cache=isinstance(given, bool | str),
        fallbacks=_fallbacks(config.fallbacks if fallbacks is None else fallbacks),
        hedge=_hedge(config.hedge if hedge is None else hedge),
        rate_limit=_rate_limit(config.rate_limit if rate_limit is None else rate_limit),
        layers=_layers(layers),
        sources={
            "CachingProvider": "argument" if cache is not None else "configuration",
            "FallbackProvider": "argument" if fallbacks is not None else "configuration",
            "HedgingProvider": "argument" if hedge is not None else "configuration",
            "BudgetProvider": _source_of_budget(budget, config),
            "CostTrackingProvider": "default",
            "CircuitBreakerProvider": "default",
            "RetryingProvider": "default",
            "RateLimitingProvider": "argument" if rate_limit is not None else "configuration",
            "TimeoutProvider": "configuration",
        },
    )


def _source_of_budget(budget: Budget | None, config: ProviderConfig) -> str:
    if budget is not None:
        return "argument"
    return "default" if config.budget is None else "configuration"


def _cache(given: object, registry: Registry) -> ResponseCache | None:
    if given is None or given is False:
        return None
    if given is True:
        return cast(ResponseCache, registry.get(RESPONSE_CACHE, "memory")())
    if isinstance(given, str):
        path = given.removeprefix(SQLITE)
        if path == given or not path:
            raise ConfigurationError(
                f"cache={given!r} is no cache: it is True, {SQLITE}file (with a fourth slash for "
                "a path from the root), or a cache object."
            )
        return cast(ResponseCache, registry.get(RESPONSE_CACHE, "sqlite")(path))
    if isinstance(given, type) or not isinstance(given, ResponseCache):
        raise TypeError(
            "a cache is an instance with async get, put, delete and clear, such as "
            f"InMemoryCache(), not {given!r}"
        )
    return given


def _fallbacks(given: Any) -> Fallbacks | None:
    if given is None:
        return None
    from aether.llm.policies import Fallbacks

    if isinstance(given, Fallbacks):
        return given
    return Fallbacks(given) if given else None


def _hedge(given: object) -> Hedge | None:
    if given is None or given is False:
        return None
    from aether.llm.policies import Hedge

    if given is True:
        return Hedge()
    if not isinstance(given, Hedge):
        raise TypeError(f"hedge is True or a Hedge, such as Hedge(after=2.0), not {given!r}")
    return given


def _rate_limit(given: object) -> RateLimit | None:
    if given is None:
        return None
    from aether.llm.policies import RateLimit

    if not isinstance(given, RateLimit):
        raise TypeError(
            f"rate_limit is a RateLimit, such as RateLimit(requests_per_minute=60), not {given!r}"
        )
    return given


def _layers(layers: object) -> Sequence[Layer]:
    if not isinstance(layers, Sequence) or not all(map(callable, layers)):
        raise TypeError(
            "layers is a list of what makes a provider of a provider: a decorator's class, or a "
            "function that takes the inner provider and returns another"
        )
    return tuple(layers)
