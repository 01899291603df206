"""litellm: `acompletion` and `aresponses`, as its documentation shows them."""

from __future__ import annotations

from typing import Any

import litellm
import openai
from litellm.integrations.custom_logger import CustomLogger

from comparison.peers.contracts import (
    KEY,
    MODELS,
    PROMPT,
    TOOL,
    TOOL_DESCRIPTION,
    TOOL_PARAMETERS,
    Caller,
    Heard,
    Said,
)

DISTRIBUTION = "litellm"
PROTOCOLS = ("openai", "openai.responses", "anthropic", "gemini")
# Its documentation says that its errors are of OpenAI's types; what it defines itself is taken too.
ERRORS: tuple[type[BaseException], ...] = (
    openai.OpenAIError,
    *(
        each
        for each in vars(litellm.exceptions).values()
        if isinstance(each, type)
        and issubclass(each, BaseException)
        and each.__module__ == litellm.exceptions.__name__
    ),
)

_MESSAGES: Any = [{"role": "user", "content": PROMPT}]
_FUNCTION = {"name": TOOL, "description": TOOL_DESCRIPTION, "parameters": TOOL_PARAMETERS}


class _Accounts(CustomLogger):  # type: ignore[misc]  # no types where it is not installed
    """Its documented way to be told what calls have used, whether they succeeded or failed."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    # It is called by these names.
    async def async_log_success_event(
        self,
        kwargs: Any,
        response_obj: Any,  # noqa: ARG002 - see above
        start_time: Any,  # noqa: ARG002
        end_time: Any,  # noqa: ARG002
    ) -> None:
        self._add(kwargs)

    async def async_log_failure_event(
        self,
        kwargs: Any,
        response_obj: Any,  # noqa: ARG002
        start_time: Any,  # noqa: ARG002
        end_time: Any,  # noqa: ARG002
    ) -> None:
        self._add(kwargs)

    def _add(self, logged: Any) -> None:
        payload = logged.get("standard_logging_object") or {}
        self.total += payload.get("total_tokens") or 0


_accounts = _Accounts()
litellm.callbacks = [_accounts]


def caller(protocol: str, url: str) -> Caller:
    model = MODELS[protocol]
    if protocol == "gemini":  # to an `api_base` it adds the method alone
        url = f"{url}/v1beta/models/{model}"
    provider = protocol.partition(".")[0]
    options = {"model": f"{provider}/{model}", "api_base": url, "api_key": KEY}
    return _Responses(options) if protocol == "openai.responses" else _Completion(options)


class _Calling:
    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._before = _accounts.total

    def tokens(self) -> int:
        return _accounts.total - self._before

    async def close(self) -> None:
        """It keeps its clients for the whole process."""


class _Completion(_Calling):
    async def ask(self) -> Said:
        response = await litellm.acompletion(messages=_MESSAGES, **self._options)
        choice = response.choices[0]
        return Said(choice.message.content or "", choice.finish_reason)

    async def stream(self, heard: Heard, *, tool: bool = False) -> Said:
        tools: Any = {"tools": [{"type": "function", "function": _FUNCTION}]} if tool else {}
        stream = await litellm.acompletion(
            messages=_MESSAGES, stream=True, **tools, **self._options
        )
        said = Said("", None)
        async for chunk in stream:
            if not chunk.choices:
                continue
            choice = chunk.choices[0]
            said.finish = choice.finish_reason or said.finish
            if choice.delta.content:
                said.text += choice.delta.content
                if heard(choice.delta.content):
                    break
        return said


class _Responses(_Calling):
    async def ask(self) -> Said:
        response = await litellm.aresponses(input=PROMPT, **self._options)
        texts = [
            part.text for item in response.output if item.type == "message" for part in item.content
        ]
        return Said("".join(texts), response.status)

    async def stream(self, heard: Heard, *, tool: bool = False) -> Said:
        tools: Any = {"tools": [{"type": "function", **_FUNCTION}]} if tool else {}
        stream = await litellm.aresponses(input=PROMPT, stream=True, **tools, **self._options)
        said = Said("", None)
        async for event in stream:
            if event.type == "response.output_text.delta":
                said.text += event.delta
                if heard(event.delta):
                    break
            elif event.type in ("response.completed", "response.incomplete", "response.failed"):
                said.finish = event.response.status
            elif event.type == "error":
                said.finish = event.type
        return said
