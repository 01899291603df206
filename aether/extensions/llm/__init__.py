"""Providers and the decorators around them, each imported when it is first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aether.extensions.llm.anthropic import AnthropicProvider
    from aether.extensions.llm.budget import BudgetProvider
    from aether.extensions.llm.caching import CachingProvider
    from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
    from aether.extensions.llm.cost_tracking import CostTrackingProvider, Usage
    from aether.extensions.llm.fake import FakeProvider
    from aether.extensions.llm.fallback import FallbackProvider
    from aether.extensions.llm.gemini import GeminiProvider
    from aether.extensions.llm.hedging import HedgingProvider
    from aether.extensions.llm.local import LocalProvider
    from aether.extensions.llm.openai import OpenAIProvider
    from aether.extensions.llm.openai_compatible import OpenAICompatibleProvider
    from aether.extensions.llm.rate_limiting import RateLimitingProvider
    from aether.extensions.llm.registry import register_provider
    from aether.extensions.llm.retrying import RetryingProvider
    from aether.extensions.llm.timeout import TimeoutProvider

__all__ = [
    "AnthropicProvider",
    "BudgetProvider",
    "CachingProvider",
    "CircuitBreakerProvider",
    "CostTrackingProvider",
    "FakeProvider",
    "FallbackProvider",
    "GeminiProvider",
    "HedgingProvider",
    "LocalProvider",
    "OpenAICompatibleProvider",
    "OpenAIProvider",
    "RateLimitingProvider",
    "RetryingProvider",
    "TimeoutProvider",
    "Usage",
    "register_provider",
]

_MODULES = {
    "AnthropicProvider": "anthropic",
    "BudgetProvider": "budget",
    "CachingProvider": "caching",
    "CircuitBreakerProvider": "circuit_breaker",
    "CostTrackingProvider": "cost_tracking",
    "FakeProvider": "fake",
    "FallbackProvider": "fallback",
    "GeminiProvider": "gemini",
    "HedgingProvider": "hedging",
    "LocalProvider": "local",
    "OpenAICompatibleProvider": "openai_compatible",
    "OpenAIProvider": "openai",
    "RateLimitingProvider": "rate_limiting",
    "RetryingProvider": "retrying",
    "TimeoutProvider": "timeout",
    "Usage": "cost_tracking",
    "register_provider": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
