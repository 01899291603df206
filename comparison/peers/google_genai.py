"""The google-genai SDK: `generate_content` and `generate_content_stream`, as in its README."""

from __future__ import annotations

from google import genai
from google.genai import errors, types

from comparison.peers.contracts import (
    KEY,
    MODELS,
    PROMPT,
    TOOL,
    TOOL_DESCRIPTION,
    TOOL_PARAMETERS,
    Heard,
    Said,
)

DISTRIBUTION = "google-genai"
PROTOCOLS = ("gemini",)
# It has no class that all its errors are of: whatever its module of errors defines is taken.
ERRORS: tuple[type[BaseException], ...] = tuple(
    each
    for each in vars(errors).values()
    if isinstance(each, type)
    and issubclass(each, BaseException)
    and each.__module__ == errors.__name__
)


_MODEL = MODELS["gemini"]


def caller(_protocol: str, url: str) -> _Gemini:
    return _Gemini(genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=url)))


class _Gemini:
    def __init__(self, client: genai.Client) -> None:
        self._client = client

    async def ask(self) -> Said:
        response = await self._client.aio.models.generate_content(model=_MODEL, contents=PROMPT)
        return Said(response.text or "", _finish(response))

    async def stream(self, heard: Heard, *, tool: bool = False) -> Said:
        config = types.GenerateContentConfig(tools=[_TOOL]) if tool else None
        said = Said("", None)
        async for chunk in await self._client.aio.models.generate_content_stream(
            model=_MODEL, contents=PROMPT, config=config
        ):
            said.finish = _finish(chunk) or said.finish
            if chunk.text:
                said.text += chunk.text
                if heard(chunk.text):
                    break
        return said

    def tokens(self) -> None:
        return None

    async def close(self) -> None:
        await self._client.aio.aclose()


_TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name=TOOL, description=TOOL_DESCRIPTION, parameters_json_schema=TOOL_PARAMETERS
        )
    ]
)


def _finish(response: types.GenerateContentResponse) -> str | None:
    if not response.candidates or response.candidates[0].finish_reason is None:
        return None
    return str(response.candidates[0].finish_reason.value)
