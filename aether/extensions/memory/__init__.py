"""Stores of sessions; the one that needs no file is at the top."""

from aether.extensions.memory.in_memory import InMemorySessionStore

__all__ = ["InMemorySessionStore"]
