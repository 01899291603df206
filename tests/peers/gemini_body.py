"""The body of a `generateContent`, of the types that Google's SDK has for all that is in it."""

from __future__ import annotations

from google.genai import types
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["GeminiBody"]


class GeminiBody(BaseModel):
    """The fields are those of the API's reference: the SDK puts them together without a type."""

    model_config = ConfigDict(extra="forbid")

    contents: list[types.Content]
    system_instruction: types.Content | None = Field(None, alias="systemInstruction")
    tools: list[types.Tool] | None = None
    tool_config: types.ToolConfig | None = Field(None, alias="toolConfig")
    generation_config: types.GenerationConfig | None = Field(None, alias="generationConfig")
