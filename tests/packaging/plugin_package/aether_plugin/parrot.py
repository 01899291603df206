"""A provider. It must not know the client."""

from __future__ import annotations

from aether import register_provider
from aether.llm.contracts import LLMRequest, LLMResponse


@register_provider("parrot", api_key_env="PARROT_API_KEY", model_env="PARROT_MODEL")
class ParrotProvider:
    """Says what it is told."""

    def __init__(self, api_key: str | None = None, default_model: str = "grey") -> None:
        self.api_key = api_key
        self.default_model = default_model

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        return LLMResponse(text=request.messages[-1].text, model=request.model or "grey")
