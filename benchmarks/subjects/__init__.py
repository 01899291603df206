"""What is measured: Aether, the least that Python can do, and other libraries."""

from __future__ import annotations

from typing import NamedTuple


class Described(NamedTuple):
    """A subject, without importing it."""

    title: str
    statement: str
    """The import that its users write."""
    distribution: str | None = None
    """Whose version is told."""
    requirement: str | None = None
    """What pip is asked for; `None` if there is nothing to install."""


SUBJECTS = {
    "aether": Described("Aether", "from aether import Aether", "aether-framework"),
    "floor": Described("asyncio + json", "import asyncio, json"),
    "openai": Described("openai", "from openai import AsyncOpenAI", "openai", "openai"),
    "pydantic_ai": Described(
        "pydantic-ai",
        "from pydantic_ai import Agent\nfrom pydantic_ai.models.openai import OpenAIChatModel",
        "pydantic-ai-slim",
        "pydantic-ai-slim[openai]",
    ),
    "litellm": Described("litellm", "import litellm", "litellm", "litellm"),
    "langchain_openai": Described(
        "langchain-openai",
        "from langchain_openai import ChatOpenAI",
        "langchain-openai",
        "langchain-openai",
    ),
    "openai_agents": Described(
        "openai-agents",
        "from agents import Agent, Runner",
        "openai-agents",
        "openai-agents",
    ),
}
PEERS = tuple(name for name, described in SUBJECTS.items() if described.requirement)
