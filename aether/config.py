"""The environment: Aether's own variables, with defaults and limits, and how any other is read.

It must not keep what it read: each call looks again. An invalid value falls back to the default
and is logged once, by the variable's name; the value itself is never logged. Which variables have
a provider's key, model and address is said where the provider is registered.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aether.errors import ConfigurationError

__all__ = [
    "ProviderConfig",
    "default_temperature",
    "environment",
    "file_tool_max_bytes",
    "file_tool_root",
    "http_tool_max_bytes",
    "http_tool_timeout",
    "http_transport",
    "local_model",
    "max_delegation_depth",
    "max_tool_iterations",
    "model_reference",
    "openai_api",
    "parallel_tools",
    "provider_name",
    "temperature_override",
]

DEFAULT_PROVIDER = "openai"
DEFAULT_TEMPERATURE = 0.7
DEFAULT_TRANSPORT = "aiohttp"


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """An explicit configuration. What is `None` comes from the environment.

    `timeout` is in seconds (until the next piece of an answer), or an
    `aether.http.contracts.Timeout`. `transport` is a registered name (`aiohttp`, `httpx`) or a
    `Transport`. `options` are passed to the provider's constructor as they are.
    """

    provider: str | None = None
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    transport: Any = None
    timeout: Any = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    budget: Any = None
    """This and what follows as `Aether(budget=, cache=, fallbacks=, hedge=, rate_limit=)`: an
    argument of the client beats it."""
    cache: Any = None
    fallbacks: Any = None
    hedge: Any = None
    rate_limit: Any = None

    def __post_init__(self) -> None:
        for name in ("provider", "model", "api_key", "base_url"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(
                    f"ProviderConfig({name}=) takes a string, not {type(value).__name__}."
                )
        timeout = self.timeout
        if isinstance(timeout, bool | str) or (
            isinstance(timeout, int | float) and not (timeout > 0 and math.isfinite(timeout))
        ):
            raise ConfigurationError("ProviderConfig(timeout=) takes seconds above 0.")


_log = logging.getLogger("aether.config")
_warned: dict[tuple[str, str], str] = {}

_OFF = frozenset({"0", "false", "no", "off"})
_ON = frozenset({"1", "true", "yes", "on"})


def environment(name: str) -> str | None:
    """The variable's value without surrounding space, or `None` if it is unset or empty."""
    try:
        return os.environ[name].strip() or None
    except KeyError:
        return None


def provider_name() -> str:
    """`LLM_PROVIDER`, default `openai`."""
    return environment("LLM_PROVIDER") or DEFAULT_PROVIDER


def model_reference() -> str | None:
    """`AETHER_MODEL`: `provider:model` or a model's name."""
    return environment("AETHER_MODEL")


def http_transport(is_known: Callable[[str], bool]) -> str:
    """`AETHER_HTTP`, default `aiohttp`; whether the name `is_known` is for the registry to say."""
    name = environment("AETHER_HTTP") or DEFAULT_TRANSPORT
    if name != DEFAULT_TRANSPORT and not is_known(name):
        _warn("AETHER_HTTP", name, f"the default {DEFAULT_TRANSPORT}")
        return DEFAULT_TRANSPORT
    return name


def openai_api() -> str:
    """`OPENAI_API`: `auto`, `chat` or `responses`, default `auto`."""
    name = environment("OPENAI_API") or "auto"
    if name not in ("auto", "chat", "responses"):
        _warn("OPENAI_API", name, "the default auto")
        return "auto"
    return name


def local_model() -> str | None:
    """`AETHER_LOCAL_MODEL`: a GGUF file or a hub reference."""
    return environment("AETHER_LOCAL_MODEL")


def temperature_override() -> float | None:
    """`AETHER_DEFAULT_TEMPERATURE` if somebody set a valid one (0 to 2), else `None`."""
    raw = environment("AETHER_DEFAULT_TEMPERATURE")
    if raw is None:
        return None
    value = _parse_float(raw)
    if value is None or value < 0:
        _warn("AETHER_DEFAULT_TEMPERATURE", raw, f"the default {DEFAULT_TEMPERATURE}")
        return None
    if value > 2:
        _warn("AETHER_DEFAULT_TEMPERATURE", raw, "the maximum 2")
        return 2.0
    return value


def default_temperature() -> float:
    """Sampling temperature where a call names none; default 0.7."""
    chosen = temperature_override()
    return DEFAULT_TEMPERATURE if chosen is None else chosen


def max_tool_iterations() -> int:
    """`AETHER_MAX_TOOL_ITERATIONS`: turns of the tool loop, 1 to 1000, default 10."""
    return _integer("AETHER_MAX_TOOL_ITERATIONS", default=10, minimum=1, maximum=1000)


def max_delegation_depth() -> int:
    """`AETHER_MAX_DELEGATION_DEPTH`: nested delegations, 0 to 100, default 3."""
    return _integer("AETHER_MAX_DELEGATION_DEPTH", default=3, minimum=0, maximum=100)


def parallel_tools() -> bool:
    """`AETHER_PARALLEL_TOOLS`: off with `0`, `false`, `no` or `off`, default on."""
    raw = environment("AETHER_PARALLEL_TOOLS")
    if raw is None:
        return True
    if raw.lower() in _OFF:
        return False
    if raw.lower() not in _ON:
        _warn("AETHER_PARALLEL_TOOLS", raw, "the default 1")
    return True


def http_tool_timeout() -> float:
    """`AETHER_HTTP_TOOL_TIMEOUT`: seconds, up to 600, default 10."""
    name, default = "AETHER_HTTP_TOOL_TIMEOUT", 10.0
    raw = environment(name)
    if raw is None:
        return default
    value = _parse_float(raw)
    if value is None or value <= 0:
        _warn(name, raw, f"the default {default}")
        return default
    if value > 600:
        _warn(name, raw, "the maximum 600")
        return 600.0
    return value


def http_tool_max_bytes() -> int:
    """`AETHER_HTTP_TOOL_MAX_BYTES`: bytes of a body that `http_get` returns, default 100000."""
    return _integer("AETHER_HTTP_TOOL_MAX_BYTES", default=100_000, minimum=1, maximum=100_000_000)


def file_tool_max_bytes() -> int:
    """`AETHER_FILE_TOOL_MAX_BYTES`: bytes of a file that `read_file` returns, default 200000."""
    return _integer("AETHER_FILE_TOOL_MAX_BYTES", default=200_000, minimum=1, maximum=100_000_000)


def file_tool_root() -> Path:
    """`AETHER_FILE_TOOL_ROOT`: where `read_file` may read, default the working directory."""
    raw = environment("AETHER_FILE_TOOL_ROOT")
    if raw is None:
        return Path.cwd()
    try:
        return Path(raw).expanduser()
    except RuntimeError:  # the home directory of nobody known
        _warn("AETHER_FILE_TOOL_ROOT", raw, "the working directory")
        return Path.cwd()


def call_settings() -> Iterator[tuple[str, object, str]]:
    """What calls take where no argument says otherwise: its name, its value, and where that is
    from, a variable or the default.
    """
    for name, variable, read in (
        ("temperature", "AETHER_DEFAULT_TEMPERATURE", default_temperature),
        ("max_tool_iterations", "AETHER_MAX_TOOL_ITERATIONS", max_tool_iterations),
        ("parallel_tools", "AETHER_PARALLEL_TOOLS", parallel_tools),
        ("max_delegation_depth", "AETHER_MAX_DELEGATION_DEPTH", max_delegation_depth),
    ):
        raw = environment(variable)
        value = read()
        if raw is None:
            source = "default"
        else:
            used = _warned.get((variable, raw))
            source = variable if used is None else f"{used}, as {variable} is not valid"
        yield name, value, source


def _integer(name: str, *, default: int, minimum: int, maximum: int) -> int:
    raw = environment(name)
    if raw is None:
        return default
    value = _parse_int(raw)
    if value is None or value < minimum:
        _warn(name, raw, f"the default {default}")
        return default
    if value > maximum:
        _warn(name, raw, f"the maximum {maximum}")
        return maximum
    return value


def _parse_int(raw: str) -> int | None:
    if not raw.isascii() or "_" in raw or len(raw) > 20:
        return None
    try:
        return int(raw)
    except ValueError:
        return None


def _parse_float(raw: str) -> float | None:
    if not raw.isascii() or "_" in raw or len(raw) > 40:
        return None
    try:
        value = float(raw)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _warn(name: str, raw: str, used: str) -> None:
    if (name, raw) in _warned:
        return
    if len(_warned) > 1000:
        _warned.clear()
    _warned[name, raw] = used
    _log.warning("%s is not valid; using %s", name, used)
