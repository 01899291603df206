"""Typed primitives for AI-native applications, and one facade for the common case."""

import logging

from aether._version import __version__
from aether.agent import Agent
from aether.client import Aether
from aether.config import ProviderConfig
from aether.errors import AetherError
from aether.extensions.llm.registry import register_provider
from aether.http import contracts as _transports  # noqa: F401 - its built-ins are known then
from aether.llm.budget import Budget
from aether.llm.messages import Message
from aether.llm.policies import Hedge, RateLimit
from aether.memory.contracts import SessionStore
from aether.registry import register
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
