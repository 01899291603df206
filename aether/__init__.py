"""Typed primitives for AI-native applications, and one facade for the common case."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aether._version import __version__
from aether.client import Aether
from aether.config import ProviderConfig
from aether.errors import AetherError
from aether.extensions.llm.registry import register_provider
from aether.http import contracts as _transports  # noqa: F401 - its built-ins are known then
from aether.llm.budget import Budget
from aether.llm.messages import Message
from aether.memory.contracts import SessionStore
from aether.registry import register

if TYPE_CHECKING:
    from aether.agent import Agent
    from aether.llm.policies import Hedge, RateLimit
    from aether.tools import Tool, register_tool

logging.getLogger("aether").addHandler(logging.NullHandler())

__all__ = [
    "Aether",
    "AetherError",
    "Agent",
    "Budget",
    "Hedge",
    "Message",
    "ProviderConfig",
    "RateLimit",
    "SessionStore",
    "Tool",
    "__version__",
    "register",
    "register_provider",
    "register_tool",
]

# What a plain call does not need is imported when it is first asked for.
_MODULES = {
    "Agent": "agent",
    "Hedge": "llm.policies",
    "RateLimit": "llm.policies",
    "Tool": "tools",
    "register_tool": "tools",
}


if not TYPE_CHECKING:  # for checkers, any name would be one of the module's

    def __getattr__(name: str) -> Any:
        if name in _MODULES.values():  # after `import aether`, aether.tools is there, too
            return import_module(f"{__name__}.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
