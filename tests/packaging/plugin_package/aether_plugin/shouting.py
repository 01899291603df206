"""A tool. It must not know a provider."""

from __future__ import annotations

from aether import Tool


def _shout(text: str) -> str:
    return text.upper()


shout = Tool(
    name="shout",
    description="Say it louder.",
    parameters={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    handler=_shout,
)
