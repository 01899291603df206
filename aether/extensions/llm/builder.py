"""From a configuration to the composed stack, in the one order there is.

It must not know how a call is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from aether._compose import compose
from aether.config import ProviderConfig
from aether.errors import UnknownNameError
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider, Usage
from aether.extensions.llm.factory import Choice, build_provider, config_of_another, split_model
from aether.extensions.llm.registry import KIND
from aether.extensions.llm.retrying import RetryingProvider
from aether.extensions.llm.settings import Settings
from aether.http.contracts import Timeout
from aether.llm.contracts import Layer, LLMProvider
from aether.llm.wrapper import layers_of
from aether.registry import Registry

if TYPE_CHECKING:
    from aether.llm.budget import Budget
    from aether.llm.policies import Hedge

__all__ = ["Stack", "build_stack", "wrap_provider", "wrap_run"]

P = TypeVar("P")

DEFAULTS = Settings()


@dataclass(frozen=True, slots=True)
class Stack:
    """A composed stack, with the handles that the client needs."""

    name: str | None
    """The provider's registered name; `None` for one that the user built."""
    provider: LLMProvider
    usage: Usage
    choice: Choice | None = None
    """What was chosen for the provider that was built here, and where that came from."""
    others: Sequence[Choice] = ()
    """The same for those that may be asked in its place, or besides."""
    given: LLMProvider | None = None
    """The provider that the user built."""
    with_budget: bool = False
    """Whether a layer for budgets stands inside of all that may avoid or multiply a call."""


def build_stack(
    config: ProviderConfig, *, registry: Registry, usage: Usage, settings: Settings = DEFAULTS
) -> Stack:
    """The stack around the configured provider.

    From the outside in: own layers > cache > fallback > hedge > budget > COST > CIRCUIT > RETRY >
    rate limit > timeout > adapter. What is in capitals is there by default. What may avoid or
    multiply a call stands outside the budget and the cost; what repeats one that failed stands
    inside: one call is one outcome for the breaker and one row for the cost, however often it is
    retried.
    """
    line = _Line(registry, usage, settings, config)
    choice, provider = line.build(config)
    provider = compose(provider, _around(line, choice.name))
    return Stack(
        choice.name,
        provider,
        usage,
        choice=line.choices[0],
        others=line.choices[1:],
        with_budget=settings.with_budget,
    )


def wrap_provider(
    given: LLMProvider, *, registry: Registry, usage: Usage, settings: Settings = DEFAULTS
) -> Stack:
    """A user's own provider or stack: used as it is, with what was asked for around it, and cost
    tracking if it has none yet.
    """
    tracking = _find(given, CostTrackingProvider)
    if tracking is not None:
        usage = tracking.usage
    line = _Line(registry, usage, settings, ProviderConfig())
    provider = compose(line.wrap(given), _around(line, None))
    return Stack(
        None,
        provider,
        usage,
        others=line.choices,
        given=given,
        with_budget=settings.with_budget,
    )


def wrap_run(stack: Stack, budgets: Sequence[Budget]) -> LLMProvider:
    """The stack's provider, held to budgets of one run where it has no layer for them.

    One that the user put into a stack by hand may stand where not all calls pass it.
    """
    if stack.with_budget or not budgets:
        return stack.provider
    from aether.extensions.llm.budget import BudgetProvider

    return BudgetProvider(stack.provider, provider=stack.name, prices=stack.usage.prices)


class _Line:
    """Makes what stands around one endpoint, from the budget inwards."""

    def __init__(
        self, registry: Registry, usage: Usage, settings: Settings, config: ProviderConfig
    ) -> None:
        self.settings = settings
        self.choices: list[Choice] = []
        """What was chosen for each provider that was built here, without secrets."""
        self._registry = registry
        self._usage = usage
        # How requests are sent, also to other providers; not the whole, which has the key.
        self._sending = ProviderConfig(transport=config.transport, timeout=config.timeout)

    def build(self, config: ProviderConfig) -> tuple[Choice, LLMProvider]:
        """The configured provider and its line."""
        choice, adapter = build_provider(config, self._registry)
        self.choices.append(choice.without_secrets())
        name = choice.name
        timeout = config.timeout if isinstance(config.timeout, Timeout) else Timeout()
        settings = self.settings
        order: tuple[tuple[bool, Layer], ...] = (
            (True, lambda inner: self._accounted(inner, name)),
            (
                settings.with_circuit_breaker,
                lambda inner: CircuitBreakerProvider(inner, provider=name),
            ),
            (settings.with_retry, lambda inner: RetryingProvider(inner, provider=name)),
            (True, lambda inner: self._rate_limited(inner, name)),
            (timeout.watches_content, lambda inner: _watched(inner, timeout, name)),
        )
        return choice, compose(adapter, [layer for wanted, layer in order if wanted])

    def wrap(self, provider: LLMProvider) -> LLMProvider:
        """A provider that is used as it is, and its line: no retry, no breaker."""
        return self._accounted(self._rate_limited(provider, None), None)

    def target(self, target: str | LLMProvider) -> LLMProvider:
        """Another provider that may be asked in place of the first, and its line."""
        if not isinstance(target, str):
            return self.wrap(target)
        provider, model = split_model(target, self._registry)
        if provider is None:
            raise UnknownNameError(
                f"{target!r} names no known provider: a fallback is provider:model, such as "
                f"anthropic:claude-haiku-5-5. Known: {', '.join(self._registry.names(KIND))}."
            )
        config = config_of_another(self._sending, provider, self._registry, model=model)
        return self.build(config)[1]

    def named(self, model: str) -> tuple[str | None, str | None]:
        """The known provider that a model's name begins with, if any, and the rest."""
        return split_model(model, self._registry)

    def _accounted(self, provider: LLMProvider, name: str | None) -> LLMProvider:
        settings = self.settings
        if settings.with_cost_tracking and _find(provider, CostTrackingProvider) is None:
            provider = CostTrackingProvider(provider, usage=self._usage, provider=name)
        if settings.with_budget:
            from aether.extensions.llm.budget import BudgetProvider

            provider = BudgetProvider(
                provider, settings.budget, provider=name, prices=self._usage.prices
            )
        return provider

    def _rate_limited(self, provider: LLMProvider, name: str | None) -> LLMProvider:
        limit = self.settings.rate_limit
        if limit is None:
            return provider
        from aether.extensions.llm.rate_limiting import RateLimitingProvider

        return RateLimitingProvider(provider, limit, provider=name)


def _around(line: _Line, name: str | None) -> list[Layer]:
    """What stands around a line and may avoid its calls, or make more of them."""
    settings = line.settings
    layers: list[Layer] = [_checked(layer) for layer in settings.layers]
    cache, fallbacks, hedge = settings.cache, settings.fallbacks, settings.hedge
    if cache is not None:
        from aether.extensions.llm.caching import CachingProvider

        layers.append(lambda inner: CachingProvider(inner, cache, provider=name))
    if fallbacks is not None:
        from aether.extensions.llm.fallback import FallbackProvider

        others = [line.target(target) for target in fallbacks.targets]
        layers.append(
            lambda inner: FallbackProvider(
                inner, others, after_content=fallbacks.after_content, on=fallbacks.on
            )
        )
    if hedge is not None:
        layers.append(lambda inner: _hedged(inner, hedge, line, name))
    return layers


def _checked(layer: Layer) -> Layer:
    """The user's own layer, whose work is looked at."""

    def make(inner: LLMProvider) -> LLMProvider:
        made = layer(inner)
        if not isinstance(made, LLMProvider):
            raise TypeError(
                f"what {getattr(layer, '__name__', layer)!r} made of a provider is no provider: it "
                f"returned {type(made).__name__}"
            )
        return made

    return make


def _hedged(inner: LLMProvider, hedge: Hedge, line: _Line, name: str | None) -> LLMProvider:
    from aether.extensions.llm.hedging import HedgingProvider

    provider, model = (None, None) if hedge.model is None else line.named(hedge.model)
    if provider is not None and provider != name:
        return HedgingProvider(inner, hedge, other=line.target(f"{provider}:{model or ''}"))
    return HedgingProvider(inner, replace(hedge, model=model))


def _watched(inner: LLMProvider, timeout: Timeout, name: str | None) -> LLMProvider:
    from aether.extensions.llm.timeout import TimeoutProvider

    return TimeoutProvider(
        inner, first_content=timeout.first_content, stall=timeout.stall, provider=name
    )


def _find(provider: object, kind: type[P]) -> P | None:
    """The outermost layer of that kind, if there is one."""
    for layer in layers_of(provider):
        if isinstance(layer, kind):
            return layer
    return None
