"""From a configuration to the composed stack, in the one order there is.

It must not know how a call is made.
"""

from __future__ import annotations

from dataclasses import dataclass

from aether._compose import compose
from aether.config import ProviderConfig
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider, Usage
from aether.extensions.llm.factory import build_provider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import Layer, LLMProvider
from aether.registry import Registry

__all__ = ["Stack", "build_stack", "wrap_provider"]


@dataclass(frozen=True, slots=True)
class Stack:
    """A composed stack, with the handles that the client needs."""

    name: str | None
    """The provider's registered name; `None` for one that the user built."""
    provider: LLMProvider
    usage: Usage


def build_stack(
    config: ProviderConfig,
    *,
    registry: Registry,
    usage: Usage,
    with_retry: bool = True,
    with_circuit_breaker: bool = True,
    with_cost_tracking: bool = True,
) -> Stack:
    """The default stack around the configured provider: cost > circuit > retry > adapter.

    One call is one outcome for the breaker and one row for the cost, however often it is retried.
    """
    name, adapter = build_provider(config, registry)
    order: tuple[tuple[bool, Layer], ...] = (
        (
            with_cost_tracking,
            lambda inner: CostTrackingProvider(inner, usage=usage, provider=name),
        ),
        (with_circuit_breaker, lambda inner: CircuitBreakerProvider(inner, provider=name)),
        (with_retry, lambda inner: RetryingProvider(inner, provider=name)),
    )
    provider = compose(adapter, [layer for wanted, layer in order if wanted])
    return Stack(name, provider, usage)


def wrap_provider(provider: LLMProvider, *, usage: Usage, with_cost_tracking: bool = True) -> Stack:
    """A user's own provider or stack: used as it is, with cost tracking if it has none yet."""
    tracking = _find_cost_tracking(provider)
    if tracking is not None:
        return Stack(None, provider, tracking.usage)
    if with_cost_tracking:
        provider = CostTrackingProvider(provider, usage=usage)
    return Stack(None, provider, usage)


def _find_cost_tracking(provider: object) -> CostTrackingProvider | None:
    seen: set[int] = set()
    current: object | None = provider
    while current is not None and id(current) not in seen:
        if isinstance(current, CostTrackingProvider):
            return current
        seen.add(id(current))
        current = getattr(current, "inner", None)
    return None
