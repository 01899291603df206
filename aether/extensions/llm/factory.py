"""From a provider's name to an instance: which provider, which key, which model.

It must not know what is put around a provider.
"""

from __future__ import annotations

import difflib
import inspect
import logging
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from aether import config as environment
from aether.config import ProviderConfig
from aether.errors import ConfigurationError
from aether.extensions.llm.registry import KIND
from aether.http.finding import transport_maker
from aether.llm.contracts import LLMProvider
from aether.registry import Registry, default_registry

__all__ = ["Choice", "Setting", "build_provider", "config_of_another", "split_model"]

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


@dataclass(frozen=True, slots=True)
class Setting:
    """What was chosen, and where it came from: an argument, a variable of the environment, or the
    default of whoever needs it, which is then `None` here.
    """

    value: str | None
    source: str

    def __or__(self, other: Setting) -> Setting:
        """This, or where nothing was chosen, the other."""
        return self if self.value is not None else other


ARGUMENT = "argument"
DEFAULT = "default"
NOTHING = Setting(None, DEFAULT)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which provider, and what was chosen for it."""

    provider: Setting
    model: Setting
    api_key: Setting = field(repr=False)
    base_url: Setting
    transport: Setting
    timeout: Setting

    def without_secrets(self) -> Choice:
        """The same, to be kept and shown: of the key it says only whether there is one, and of the
        address nothing that stands before the host or behind the path.
        """
        key = None if self.api_key.value is None else "set"
        address = self.base_url.value
        if address is not None:
            address = _without_secrets(address)
        return replace(
            self,
            api_key=Setting(key, self.api_key.source),
            base_url=Setting(address, self.base_url.source),
        )

    @property
    def name(self) -> str:
        """The name under which the provider is registered."""
        return self.provider.value or environment.DEFAULT_PROVIDER


def choose(config: ProviderConfig, registry: Registry) -> Choice:
    """What the configuration gives, else what the environment does.

    An argument beats `AETHER_MODEL`, which beats `LLM_PROVIDER` and the provider's own variables.
    Raises `UnknownNameError` for a provider that nobody registered.
    """
    provider, model = _choose_provider(config, registry)
    metadata = registry.entry(KIND, provider.value or environment.DEFAULT_PROVIDER).metadata
    return Choice(
        provider,
        model | _first_set(metadata.get("model_env")),
        _given(config.api_key) | _first_set(metadata.get("api_key_env")),
        _given(config.base_url) | _first_set(metadata.get("base_url_env")),
        _given_transport(config.transport),
        _given(None if config.timeout is None else str(config.timeout)),
    )


def _choose_provider(config: ProviderConfig, registry: Registry) -> tuple[Setting, Setting]:
    provider, model = _given(config.provider), NOTHING
    if config.model is not None:
        named, plain = split_model(config.model, registry)
        model = _given(plain)
        if provider.value is None:
            provider = _given(named)
        elif named is not None and named != provider.value:
            model = _given(config.model)
    reference = environment.model_reference()
    if reference is not None:
        named, referred = split_model(reference, registry)
        if named is None:
            _hint_at(reference, registry)
        if provider.value is None:
            provider = Setting(named, "AETHER_MODEL")
            model |= Setting(referred, "AETHER_MODEL")
        elif named == provider.value:
            model |= Setting(referred, "AETHER_MODEL")
    if provider.value is None:
        provider = _provider_name()
    return provider, model


def _without_secrets(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:  # somebody's provider takes what is none
        return "set"
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def _given_transport(transport: object) -> Setting:
    named = transport if isinstance(transport, str | None) else type(transport).__name__
    return _given(named)


def _given(value: str | None) -> Setting:
    return NOTHING if value is None else Setting(value, ARGUMENT)


def _provider_name() -> Setting:
    name = environment.environment("LLM_PROVIDER")
    if name is None:
        return Setting(environment.DEFAULT_PROVIDER, DEFAULT)
    return Setting(name, "LLM_PROVIDER")


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


def build_provider(config: ProviderConfig, registry: Registry) -> tuple[Choice, LLMProvider]:
    """Make the configured provider. Returns what was chosen for it and the instance.

    Raises `UnknownNameError` for a name that nobody registered and `ConfigurationError` for a
    missing key, or for an option that the provider does not take.
    """
    choice = choose(config, registry)
    name, api_key, base_url = choice.name, choice.api_key.value, choice.base_url
    if base_url.value is not None and base_url.source != ARGUMENT:
        _log.info("%s sets the endpoint of provider %r", base_url.source, name)
    entry = registry.entry(KIND, name)
    metadata = entry.metadata
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
        "default_model": choice.model.value,
        "base_url": base_url.value,
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
    return choice, provider


def config_of_another(
    config: ProviderConfig, name: str, registry: Registry, *, model: str | None = None
) -> ProviderConfig:
    """The configuration of another provider, of which requests are sent in the same way, as far as
    its constructor can be told so. Its key and its address are its own.
    """
    parameters = _parameters(registry.entry(KIND, name).value, name)
    return ProviderConfig(
        provider=name,
        model=model,
        transport=config.transport if "transport" in parameters else None,
        timeout=config.timeout if "timeout" in parameters else None,
    )


def missing_key(name: str, variables: str | tuple[str, ...] | None) -> str:
    """What to do about a missing key."""
    names = (variables,) if isinstance(variables, str) else tuple(variables or ())
    where = f"Set {' or '.join(names)}" if names else "Pass ProviderConfig(api_key=...)"
    return f"Provider {name!r} needs an API key. {where}; or try without a key: LLM_PROVIDER=local."


def _first_set(variables: str | tuple[str, ...] | None) -> Setting:
    if variables is None:
        return NOTHING
    for variable in (variables,) if isinstance(variables, str) else variables:
        value = environment.environment(variable)
        if value is not None:
            return Setting(value, variable)
    return NOTHING


def _parameters(factory: Any, name: str) -> dict[str, inspect.Parameter]:
    if not callable(factory):
        raise ConfigurationError(f"Provider {name!r} is registered as something not callable.")
    return dict(inspect.signature(factory).parameters)
