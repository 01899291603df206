"""From a provider's name to an instance: which provider, which key, which model.

It must not know what is put around a provider.
"""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Mapping
from typing import Any

from aether import config as environment
from aether.config import ProviderConfig
from aether.errors import ConfigurationError
from aether.extensions.llm.registry import KIND
from aether.http.finding import transport_maker
from aether.llm.contracts import LLMProvider
from aether.registry import Registry, default_registry

__all__ = ["build_provider", "choose_provider", "options_taken", "split_model"]

_ALIKE = 0.85  # as "antropic" is; a lower bound would take "llama3" for "ollama"

_log = logging.getLogger("aether.config")


def split_model(reference: str, registry: Registry) -> tuple[str | None, str | None]:
    """`provider:model` as its parts, if what stands before the colon is a known provider.

    Else the whole is a model's name: `llama3:8b` gives `(None, "llama3:8b")`. Either part may be
    `None`.
    """
    head, colon, tail = reference.partition(":")
    if colon and (KIND, head) in registry:
        return head, tail or None
    return None, reference or None


def choose_provider(config: ProviderConfig, registry: Registry) -> tuple[str, str | None]:
    """The provider's name, and the model that was chosen for it or `None`.

    What the configuration gives beats `AETHER_MODEL`, which beats `LLM_PROVIDER` and the
    provider's own model variable.
    """
    provider, model = config.provider, None
    if config.model is not None:
        named, model = split_model(config.model, registry)
        if provider is None:
            provider = named
        elif named is not None and named != provider:
            model = config.model
    reference = environment.model_reference()
    if reference is not None:
        named, referred = split_model(reference, registry)
        if named is None:
            _hint_at(reference, registry)
        if provider is None:
            provider = named or environment.provider_name()
            model = model or referred
        elif named == provider:
            model = model or referred
    return provider or environment.provider_name(), model


def _hint_at(reference: str, registry: Registry) -> None:
    """Say so where a part before a colon looks like a provider's name misspelt."""
    head, colon, _ = reference.partition(":")
    close = (
        difflib.get_close_matches(head, registry.names(KIND), n=1, cutoff=_ALIKE) if colon else []
    )
    if close:
        _log.warning(
            "AETHER_MODEL: %r is no provider, so %r is taken for a model's name. Is %r meant?",
            head,
            reference,
            close[0],
        )


def build_provider(config: ProviderConfig, registry: Registry) -> tuple[str, LLMProvider]:
    """Make the configured provider. Returns its name and the instance.

    Raises `UnknownNameError` for a name that nobody registered and `ConfigurationError` for a
    missing key, or for an option that the provider does not take.
    """
    name, model = choose_provider(config, registry)
    entry = registry.entry(KIND, name)
    metadata = entry.metadata
    api_key = config.api_key
    if api_key is None:
        api_key = _first_set(metadata.get("api_key_env"))
    model = model or _first_set(metadata.get("model_env"))
    base_url = config.base_url
    if base_url is None:
        variable = metadata.get("base_url_env")
        base_url = _first_set(variable)
        if base_url is not None:
            _log.info("%s sets the endpoint of provider %r", variable, name)

    parameters = _parameters(entry.value, name)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    arguments: dict[str, Any] = {**metadata.get("options", {}), **config.options}
    if "api_key" in parameters:
        required = parameters["api_key"].default is inspect.Parameter.empty
        if required and not api_key:
            raise ConfigurationError(missing_key(name, metadata.get("api_key_env")))
        arguments["api_key"] = api_key
    elif takes_any and api_key is not None:
        arguments["api_key"] = api_key
    transport = config.transport
    named = transport is None or isinstance(transport, str)
    if named and registry is not default_registry and "transport" in parameters:
        # By itself the provider would look for the name in the registry of the process.
        transport = transport_maker(transport, registry=registry)
    chosen = {
        "default_model": model,
        "base_url": base_url,
        "transport": transport,
        "timeout": config.timeout,
    }
    for option, value in chosen.items():
        if value is None:
            continue
        if option in parameters or takes_any:
            arguments[option] = value
        elif option == "base_url" or (option != "default_model" and getattr(config, option)):
            raise ConfigurationError(
                f"Provider {name!r} does not take {option}; leave it out of the configuration."
            )
    unknown = sorted(set(config.options) - set(parameters))
    if unknown and not takes_any:
        raise ConfigurationError(f"Provider {name!r} does not take {', '.join(unknown)}.")
    provider = entry.value(**arguments)
    if not isinstance(provider, LLMProvider):
        raise ConfigurationError(
            f"Provider {name!r} ({entry.origin}) has no method "
            "`async def complete(self, request) -> LLMResponse`."
        )
    return name, provider


def options_taken(name: str, options: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """Those of the options that the provider's constructor names."""
    parameters = _parameters(registry.entry(KIND, name).value, name)
    return {option: value for option, value in options.items() if option in parameters}


def missing_key(name: str, variables: str | tuple[str, ...] | None) -> str:
    """What to do about a missing key."""
    names = (variables,) if isinstance(variables, str) else tuple(variables or ())
    where = f"Set {' or '.join(names)}" if names else "Pass ProviderConfig(api_key=...)"
    return f"Provider {name!r} needs an API key. {where}; or try without a key: LLM_PROVIDER=local."


def _first_set(variables: str | tuple[str, ...] | None) -> str | None:
    if variables is None:
        return None
    for variable in (variables,) if isinstance(variables, str) else variables:
        value = environment.environment(variable)
        if value is not None:
            return value
    return None


def _parameters(factory: Any, name: str) -> dict[str, inspect.Parameter]:
    if not callable(factory):
        raise ConfigurationError(f"Provider {name!r} is registered as something not callable.")
    return dict(inspect.signature(factory).parameters)
