"""The names of providers: the built-in ones, as strings, and `register_provider`.

It must not import an adapter: that is done when its name is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from aether.extensions.llm._vendors import VENDORS
from aether.llm.contracts import KIND
from aether.registry import Registry, declare_builtins, default_registry

__all__ = ["KIND", "register_provider"]

T = TypeVar("T")


def register_provider(
    name: str,
    *,
    api_key_env: str | tuple[str, ...] | None = None,
    model_env: str | None = None,
    base_url_env: str | None = None,
    replace: bool = False,
    registry: Registry | None = None,
) -> Callable[[T], T]:
    """Register a provider's class, or a function that makes one, under `name`.

    It is called with those of `api_key`, `default_model`, `base_url`, `transport` and `timeout`
    that its signature names and that were configured; the key, the model and the base URL come
    from the configuration, else from the variables named here. An `api_key` parameter without a
    default makes the key required.
    """
    return (registry or default_registry).register(
        KIND,
        name,
        replace=replace,
        api_key_env=api_key_env,
        model_env=model_env,
        base_url_env=base_url_env,
    )


_HERE = "aether.extensions.llm"


def _builtin_metadata() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {
        "openai": {
            "api_key_env": "OPENAI_API_KEY",
            "model_env": "OPENAI_MODEL",
            "base_url_env": "OPENAI_BASE_URL",
        },
        "gemini": {
            "api_key_env": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            "model_env": "GEMINI_MODEL",
            "base_url_env": "GEMINI_BASE_URL",
        },
        "anthropic": {
            "api_key_env": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
            "model_env": "ANTHROPIC_MODEL",
            "base_url_env": "ANTHROPIC_BASE_URL",
        },
        "local": {"model_env": "AETHER_LOCAL_MODEL"},
        "fake": {},
    }
    for name in VENDORS:
        table[name] = {
            "api_key_env": f"{name.upper()}_API_KEY",
            "model_env": f"{name.upper()}_MODEL",
            "base_url_env": f"{name.upper()}_BASE_URL",
            "options": {"vendor": name},
        }
    return table


declare_builtins(
    KIND,
    {
        "openai": f"{_HERE}.openai:OpenAIProvider",
        "gemini": f"{_HERE}.gemini:GeminiProvider",
        "anthropic": f"{_HERE}.anthropic:AnthropicProvider",
        "local": f"{_HERE}.local:LocalProvider",
        "fake": f"{_HERE}.fake:FakeProvider",
        **dict.fromkeys(VENDORS, f"{_HERE}.openai_compatible:OpenAICompatibleProvider"),
    },
    **_builtin_metadata(),
)
