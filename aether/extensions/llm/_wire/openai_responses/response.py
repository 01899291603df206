"""From the body of an answer to a response, and the parts that a stream's end shares with it.

It must not know how an answer came. What the protocol does not allow is a `ProtocolError`, never
a guess; fields that are not known are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aether.errors import ProtocolError, ProviderError, ServerError
from aether.extensions.llm._wire.errors import Source, reported_error
from aether.extensions.llm._wire.host_state import kept_state
from aether.extensions.llm._wire.openai_responses.items import (
    Item,
    calls_in,
    checked,
    has_calls,
    has_unread,
    images_in,
    is_cut,
    is_plain,
    reasoning_in,
    refused,
    text_in,
)
from aether.extensions.llm._wire.openai_responses.usage import parse_usage
from aether.extensions.llm._wire.reading import decode, listed
from aether.llm.content import ContentPart, ProviderState, TextPart
from aether.llm.messages import FinishReason, LLMResponse, Message

__all__ = ["OUTPUT", "Answer", "failure", "finish_of", "model_of", "parse_response"]

OUTPUT = "output"
"""Where a message's state has the items that it was made of."""

FINISH_REASONS: dict[str, FinishReason] = {
    "completed": "stop",
    "incomplete:max_output_tokens": "length",
    "incomplete:content_filter": "content_filter",
    "failed": "error",
    "cancelled": "error",
}


class Answer(NamedTuple):
    """An answer's parts, as far as they have come."""

    items: Sequence[Item]
    text: str
    reasoning: str
    finish: str | None
    """The status, and the reason behind a colon if it is incomplete; `None`: it was cut."""
    usage: Any
    model: str | None

    def to_response(self, source: Source) -> LLMResponse:
        """The response."""
        plain = is_plain(self.items)
        finish = None if self.finish is None else FINISH_REASONS.get(self.finish, "other")
        calls = calls_in(self.items, source, cut=self.finish not in ("completed", ""))
        if finish in ("stop", "other") and calls:
            # Calls of an answer that was cut are not run, whatever has cut it.
            incomplete = (self.finish or "").startswith("incomplete")
            finish = "length" if incomplete else "tool_calls"
        elif finish == "stop" and not plain and refused(self.items):
            finish = "content_filter"
        elif finish == "stop" and is_cut(self.items):
            finish = "other"
        content: str | list[ContentPart] = self.text
        state: ProviderState = {}
        if finish is not None and not plain:
            images = list(images_in(self.items))
            if images:
                content = [*([TextPart(text=self.text)] if self.text else []), *images]
            elif finish == "stop" and not self.text and has_unread(self.items):
                finish = "other"
            state = kept_state({OUTPUT: list(self.items)}, source)
        return LLMResponse(
            text=self.text,
            model=source.redact(self.model) if self.model else source.model,
            tool_calls=calls,
            finish_reason=finish,
            finish_reason_raw=source.redact(self.finish) if self.finish else None,
            reasoning=self.reasoning or None,
            request_id=source.request_id,
            provider=source.provider,
            message=Message(
                role="assistant", content=content, tool_calls=calls, provider_state=state
            ),
            **parse_usage(self.usage, written=bool(self.text or self.reasoning or calls)),
        )


def parse_response(body: bytes, *, source: Source) -> LLMResponse:
    """The response that a body of status 200 holds; an error object inside it is raised."""
    value = decode(body, source)
    failed = failure(value, source)
    if failed is not None:
        if value.get("usage"):  # what it used all the same
            answer = Answer((), "", "", finish_of(value), value["usage"], model_of(value))
            failed.partial = answer.to_response(source)
        raise failed
    if value.get("output") is None:
        raise source.error(
            ProtocolError,
            f"{source.provider} answered without output: it does not seem to speak the Responses "
            "API. Try api='chat'.",
        )
    items = [checked(item, source) for item in listed(value, "output", source)]
    finish = finish_of(value)
    text = text_in(items)
    if not text and finish == "completed" and not has_calls(items):
        text = text_in(items, commentary=True)  # nothing else was said: it is the answer
    answer = Answer(
        items=items,
        text=text,
        reasoning=reasoning_in(items),
        finish=finish,
        usage=value.get("usage"),
        model=model_of(value),
    )
    return answer.to_response(source)


def failure(response: Mapping[str, Any], source: Source) -> ProviderError | None:
    """The error that a response object stands for, if it stands for one."""
    status = response.get("status")
    if response.get("error"):
        return reported_error(response, source=source)
    if status in ("failed", "cancelled"):
        return source.error(
            ServerError,
            f"{source.provider} ({source.model}) gave an answer with the status {status}.",
            retryable=False,
        )
    if status in ("queued", "in_progress"):
        return source.error(
            ProtocolError,
            f"{source.provider} has not answered yet, its status is {status}: answers that are "
            "made in the background cannot be waited for here.",
        )
    return None


def finish_of(response: Mapping[str, Any]) -> str:
    """The status, with the reason if it is incomplete, also where the status alone says that it is
    not. Empty where the server names none.
    """
    status = response.get("status")
    if not isinstance(status, str):
        return ""
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if status in ("incomplete", "completed") and isinstance(reason, str) and reason:
        return f"incomplete:{reason}"
    return status


def model_of(response: Mapping[str, Any]) -> str | None:
    """The model that answered, as far as it is told."""
    model = response.get("model")
    return model if isinstance(model, str) and model else None
