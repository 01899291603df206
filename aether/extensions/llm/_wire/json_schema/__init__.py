"""JSON Schemas rewritten to the subsets that providers take.

Pure functions: a schema goes in as a caller's validator wrote it, and is never changed in place.
What comes out is what one provider takes, or `None` where it has no form of its own for the
values. A rewritten schema may allow more than the original, as far as a provider cannot hold a
model to a length or a pattern; the caller validates against the original in any case. It never
allows less, but for what a validator ignores: properties that nobody asked for.
"""

from __future__ import annotations

from aether.extensions.llm._wire.json_schema.anthropic import anthropic_schema, input_schema
from aether.extensions.llm._wire.json_schema.gemini import gemini_parameters, gemini_schema
from aether.extensions.llm._wire.json_schema.openai import strict_schema

__all__ = [
    "anthropic_schema",
    "gemini_parameters",
    "gemini_schema",
    "input_schema",
    "strict_schema",
]
