"""Models: the provider port, its data, and the one-liner `ask`."""

from aether.llm.ask import ask as ask
