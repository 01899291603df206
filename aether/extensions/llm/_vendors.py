"""Servers that speak OpenAI's Chat Completions: where each is, and how it differs.

It must not import anything of Aether's: the table of provider names is made of it. The facts are
of 2026-11, from the vendors' documentation and from recorded answers of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OPENAI", "VENDORS", "Vendor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One server. The defaults are what most of them do."""

    name: str
    base_url: str | None
    """`None`: everybody has an address of their own."""
    path: str = "/chat/completions"
    """Below the base URL; `{model}` is the model's name."""
    query: str = ""
    """Without a question mark; a query of the base URL takes its place."""
    key_header: str = "authorization"
    """`authorization` carries the key as a bearer token, any other header as it is."""
    key_required: bool = True
    default_model: str | None = None
    max_tokens_field: str = "max_tokens"
    openai_models: bool = False
    """It serves OpenAI's own models, to which the rules of their profiles apply."""
    usage_option: bool = True
    """It takes `stream_options`. Others report usage in a stream without being asked."""
    seed_field: str = "seed"
    required_choice: str = "required"
    """What `tool_choice` is called that demands some tool."""
    short_call_ids: bool = False
    """Tool call ids must be exactly nine letters and digits."""
    json_schema: bool = True
    """It can be given a schema for its answer. Otherwise it can only be told to answer in JSON."""
    refused_parts: frozenset[str] = frozenset()
    """Types of content parts that it refuses."""
    think_tags: bool = False
    """It may put reasoning inside `<think>` tags at the beginning of the text."""
    echoes_reasoning: bool = True
    """It shows reasoning in fields of the message, and wants them back as they were."""
    required_reasoning: str | None = None
    """A field that an assistant message with tool calls must have, even if it is empty."""
    lenient_finish: bool = False
    """It may end a whole stream without giving a finish reason."""


OPENAI = Vendor(
    name="openai",
    base_url="https://api.openai.com/v1",
    default_model="gpt-6-luna",  # see its profile for why
    max_tokens_field="max_completion_tokens",
    openai_models=True,
    echoes_reasoning=False,  # it never shows reasoning here, and refuses unknown message fields
)

_ROWS = (
    Vendor(
        name="ollama",
        base_url="http://localhost:11434/v1",
        key_required=False,
        think_tags=True,
        lenient_finish=True,
    ),
    Vendor(name="vllm", base_url="http://localhost:8000/v1", key_required=False),
    Vendor(
        name="llamacpp",
        base_url="http://localhost:8080/v1",
        key_required=False,
        default_model="default",  # the server has one model, and ignores the name
        think_tags=True,
    ),
    Vendor(name="lmstudio", base_url="http://localhost:1234/v1", key_required=False),
    Vendor(
        name="groq",
        base_url="https://api.groq.com/openai/v1",
        max_tokens_field="max_completion_tokens",
    ),
    Vendor(name="openrouter", base_url="https://openrouter.ai/api/v1", usage_option=False),
    Vendor(
        name="deepseek",
        base_url="https://api.deepseek.com",
        default_model="deepseek-v4-flash",
        json_schema=False,
        refused_parts=frozenset({"image", "audio"}),
        required_reasoning="reasoning_content",
    ),
    Vendor(
        name="mistral",
        base_url="https://api.mistral.ai/v1",
        default_model="mistral-large-4",
        usage_option=False,  # unknown fields are a 422
        seed_field="random_seed",
        required_choice="any",
        short_call_ids=True,
    ),
    Vendor(name="xai", base_url="https://api.x.ai/v1"),
    Vendor(
        name="together",
        base_url="https://api.together.xyz/v1",
        usage_option=False,
        think_tags=True,
    ),
    Vendor(name="cerebras", base_url="https://api.cerebras.ai/v1", think_tags=True),
    Vendor(name="perplexity", base_url="https://api.perplexity.ai", usage_option=False),
    Vendor(
        name="azure",
        base_url=None,
        path="/openai/deployments/{model}/chat/completions",
        query="api-version=2024-10-21",  # the newest that is no preview
        key_header="api-key",
        max_tokens_field="max_completion_tokens",
        openai_models=True,
        echoes_reasoning=False,
    ),
)

VENDORS = {vendor.name: vendor for vendor in _ROWS}
