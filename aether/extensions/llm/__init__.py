"""Providers and the decorators around them, each imported when it is first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aether.extensions.llm.anthropic import AnthropicProvider
    from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
    from aether.extensions.llm.cost_tracking import CostTrackingProvider, Usage
    from aether.extensions.llm.fake import FakeProvider
    from aether.extensions.llm.gemini import GeminiProvider
    from aether.extensions.llm.local import LocalProvider
    from aether.extensions.llm.openai import OpenAIProvider
    from aether.extensions.llm.openai_compatible import OpenAICompatibleProvider
    from aether.extensions.llm.registry import register_provider
    from aether.extensions.llm.retrying import RetryingProvider

__all__ = [
    "AnthropicProvider",
    "CircuitBreakerProvider",
    "CostTrackingProvider",
    "FakeProvider",
    "GeminiProvider",
    "LocalProvider",
    "OpenAICompatibleProvider",
    "OpenAIProvider",
    "RetryingProvider",
    "Usage",
    "register_provider",
]

_MODULES = {
    "AnthropicProvider": "anthropic",
    "CircuitBreakerProvider": "circuit_breaker",
    "CostTrackingProvider": "cost_tracking",
    "FakeProvider": "fake",
    "GeminiProvider": "gemini",
    "LocalProvider": "local",
    "OpenAICompatibleProvider": "openai_compatible",
    "OpenAIProvider": "openai",
    "RetryingProvider": "retrying",
    "Usage": "cost_tracking",
    "register_provider": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
