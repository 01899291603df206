"""From an answer, whole or in chunks, to a response: each chunk is a whole answer, and adds to it.

It must not know how an answer came. What the protocol does not allow is a `ProtocolError`, never
a guess; fields that are not known are left alone.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import to_json

from aether.errors import ProtocolError, StreamInterruptedError
from aether.extensions.llm._wire.errors import Source, reported_error
from aether.extensions.llm._wire.gemini.echo import PartsKept
from aether.extensions.llm._wire.gemini.parts import media_of
from aether.extensions.llm._wire.gemini.usage import find_usage, parse_usage
from aether.extensions.llm._wire.host_state import kept_state
from aether.extensions.llm._wire.reading import check_number, decode_any, expect, listed
from aether.llm.content import ContentPart, TextPart
from aether.llm.messages import (
    FinishReason,
    LLMResponse,
    Message,
    StreamChunk,
    ToolCall,
    ToolCallDelta,
    decoded_call,
    new_call_id,
)

__all__ = ["Answer", "parse_response"]

_FILTERED = (
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "IMAGE_OTHER",
    "MODEL_ARMOR",
    "ESCALATION",
)
_FAILED = (
    "MALFORMED_FUNCTION_CALL",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE",
    "NO_IMAGE",
    "OTHER",
    "PUP_LIMITED_DISABLED",
)
FINISH_REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",  # where it was not asked to go on
    **dict.fromkeys(_FILTERED, "content_filter"),
    **dict.fromkeys(_FAILED, "error"),
}


_UNSAID = ("FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED")
_BESIDE_DATA = {"text", "thought", "thoughtSignature"}
_BESIDE_CONTENT = {"content", "index"}
_BESIDE_CANDIDATES = {"candidates", "usageMetadata", "modelVersion", "responseId", "createTime"}
_HOLDING = {"function_call", "inline_data", "prompt_feedback", "usage_metadata"}
_UNDERSCORED = re.compile(r"_([a-z])")


class Answer:
    """An answer as far as it has come: `add` its chunks, in their order."""

    def __init__(self, source: Source) -> None:
        self.finish: str | None = None
        """Why the server stopped, in its word. It may say it, and go on."""
        self.ran_code = False
        """Whether Google's code execution took part: then `STOP` may come before the end."""
        self.calls: list[ToolCall] = []
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self._source = source
        self._media: list[tuple[int, ContentPart]] = []  # each behind so many pieces of text
        self._kept = PartsKept()
        self._blocked = False
        self._code_runs = False
        self._usage: dict[str, Any] | None = None
        self._named: tuple[Any, Any] = (None, None)
        self._model: str | None = None
        self._token: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more can come: the server has said why it stopped, and does not run code
        on whose result it would go on.
        """
        return self.finish is not None and not (self._code_runs and self.finish == "STOP")

    @property
    def has_content(self) -> bool:
        return bool(self.text or self.reasoning or self.calls or self._media)

    @property
    def characters(self) -> int:
        """How much was written, calls included."""
        written = sum(map(len, self.text)) + sum(map(len, self.reasoning))
        return written + sum(len(call.name) + len(str(call.arguments)) for call in self.calls)

    def add(self, value: Any) -> list[StreamChunk]:
        """Add a chunk; the deltas that it holds. An error in its place is raised."""
        source = self._source
        chunk = expect(value, dict, "chunk", source)
        text = _only_text(chunk)
        if text is None:
            chunk = _in_camel_case(chunk)
        if chunk.get("error"):
            raise reported_error(chunk, source=source)
        self._usage = find_usage(chunk) or self._usage  # a running total: the latest counts
        named = chunk.get("modelVersion"), chunk.get("responseId")
        if named != self._named:
            self._named = named
            self._note_names(*named)
        if text:
            self.finish = None  # it goes on, whatever was said before
            return [self._say(text)]
        if "promptFeedback" in chunk:
            feedback = expect(chunk["promptFeedback"], dict, "promptFeedback", source)
            blocked = expect(feedback.get("blockReason"), str, "blockReason", source)
            if blocked and blocked not in _UNSAID:
                self._blocked = True
                self.finish = blocked
        for candidate in listed(chunk, "candidates", source):
            candidate = expect(candidate, dict, "candidate", source)  # noqa: PLW2901 - checked
            if not candidate.get("index"):  # the others are alternatives, which nobody asked for
                return self._add_candidate(_in_camel_case(candidate))
        return []

    def _note_names(self, model: Any, answer_id: Any) -> None:
        source = self._source
        if isinstance(model, str) and model:
            self._model = source.redact(model).removeprefix("models/")
        if isinstance(answer_id, str) and answer_id:
            source.request_id = source.redact(answer_id)

    def to_response(self, *, whole: bool = True) -> LLMResponse:
        """The response. One that is not `whole` was cut."""
        source = self._source
        text = "".join(self.text)
        finish = self._finish_reason() if whole else None
        return LLMResponse(
            text=text,
            model=self._model or source.model,
            tool_calls=self.calls,
            finish_reason=finish,
            finish_reason_raw=source.redact(self.finish) if self.finish else None,
            reasoning="".join(self.reasoning) or None,
            request_id=source.request_id,
            provider=source.provider,
            message=self._message(text),
            **parse_usage(self._usage, written=self.has_content),
        )

    def _say(self, text: str) -> StreamChunk:
        self._kept.add_text(text, thought=False)
        self.text.append(text)
        return StreamChunk(text)

    def _add_candidate(self, candidate: dict[str, Any]) -> list[StreamChunk]:
        source = self._source
        reason = expect(candidate.get("finishReason"), str, "finishReason", source)
        token = candidate.get("continuationToken")
        if isinstance(token, str) and token:
            self._token = token
        content = expect(candidate.get("content"), dict, "content", source)
        chunks = []
        for wired in listed(content, "parts", source):
            part = _in_camel_case(expect(wired, dict, "part", source))
            if part.get("text") or part.keys() - _BESIDE_DATA:
                self.finish = None  # it goes on, whatever was said before
            chunk = self._add_part(part)
            if chunk is not None:
                chunks.append(chunk)
        takes_back = reason == "STOP" and self.finish is not None  # which was said of all there is
        if reason and reason not in _UNSAID and not takes_back:
            self.finish = reason
        return chunks

    def _add_part(self, part: dict[str, Any]) -> StreamChunk | None:
        if "functionCall" in part:
            return self._add_call(part)
        thought = part.get("thought") is True
        if "inlineData" in part:
            self._add_media(part, thought=thought)
            return None
        if "text" not in part:
            if "executableCode" in part:
                self.ran_code = self._code_runs = True
            elif "codeExecutionResult" in part:
                self._code_runs = False
            if part:
                self._kept.add(part)
            return None
        text = expect(part["text"], str, "text", self._source)
        if part.keys() <= {"text", "thought"}:
            self._kept.add_text(text, thought=thought)
        else:
            self._kept.add(part)
        if not text:
            return None
        if thought:
            self.reasoning.append(text)
            return StreamChunk(reasoning=text)
        self.text.append(text)
        return StreamChunk(text)

    def _add_call(self, part: dict[str, Any]) -> StreamChunk:
        source = self._source
        call = expect(part["functionCall"], dict, "functionCall", source)
        name = expect(call.get("name"), str, "function name", source)
        if not name:
            raise source.error(ProtocolError, f"{source.provider} gave a tool call without a name.")
        if call.get("partialArgs") or call.get("willContinue"):
            raise source.error(
                ProtocolError,
                f"{source.provider} gave a tool call in pieces, which is not supported: leave "
                "streamFunctionCallArguments out.",
            )
        arguments = expect(call.get("args"), dict, "function arguments", source)
        given = expect(call.get("id"), str, "tool call id", source)
        state: dict[str, Any] = {"id": given} if given else {}
        if "thoughtSignature" in part:
            state["thoughtSignature"] = part["thoughtSignature"]
        known = {call.id for call in self.calls}
        made = decoded_call(
            given if given and given not in known else new_call_id(),
            name,
            arguments,
            provider_state=kept_state(state, source) if state else {},
        )
        if made.invalid_arguments is not None:
            part = {**part, "functionCall": {**call, "args": {}}}
        self._kept.add(part)
        check_number(self.calls, "calls", source)
        self.calls.append(made)
        written = made.invalid_arguments or to_json(arguments).decode()
        return StreamChunk(
            tool_call=ToolCallDelta(len(self.calls) - 1, made.id, made.name, written)
        )

    def _add_media(self, part: dict[str, Any], *, thought: bool) -> None:
        source = self._source
        blob = expect(part["inlineData"], dict, "inlineData", source)
        if thought:  # a sketch: it is of no use but to the one who signed it
            if "thoughtSignature" in part:
                self._kept.add(part)
            return
        mime_type = expect(blob.get("mimeType"), str, "mimeType", source)
        data = expect(blob.get("data"), str, "data", source)
        if not data:
            self._kept.add(part)
            return
        try:
            media = media_of(mime_type, data)
        except ValueError as error:
            raise source.error(
                ProtocolError,
                f"{source.provider} gave data of type {mime_type!r} that cannot be read.",
            ) from error
        self._media.append((len(self.text), media))
        self._kept.add_media(part, media.data or b"")

    def _finish_reason(self) -> FinishReason:
        if self._blocked:
            return "content_filter"
        reason = FINISH_REASONS.get(self.finish or "", "other")
        if self.calls and reason in ("stop", "other"):
            return "tool_calls"
        if (
            reason == "stop"
            and not (self.text or self._media)
            and any(map(_is_unread, self._kept.all()))
        ):
            return "other"
        return reason

    def _message(self, text: str) -> Message:
        content = self._content(text)
        message = Message(role="assistant", content=content, tool_calls=self.calls)
        state: dict[str, Any] = {}
        if self.finish == "CONTINUATION" and self._token:
            state = {"parts": self._kept.all(), "continuationToken": self._token}
        else:
            parts = self._kept.needed(message)
            if parts is None:
                return message
            state = {"parts": parts}
        return Message(
            role="assistant",
            content=content,
            tool_calls=self.calls,
            provider_state=kept_state(state, self._source),
        )

    def _content(self, text: str) -> str | list[ContentPart]:
        if not self._media:
            return text
        parts: list[ContentPart] = []
        start = 0
        for end, media in [*self._media, (len(self.text), None)]:
            said = "".join(self.text[start:end])
            start = end
            if said:
                parts.append(TextPart(text=said))
            if media is not None:
                parts.append(media)
        return parts


def _is_unread(part: dict[str, Any]) -> bool:
    """Whether nothing is read of its kind: what the server's tools have done, or what is new."""
    return not part.get("thought") and not part.keys() <= _BESIDE_DATA


def _only_text(chunk: dict[str, Any]) -> str | None:
    """The text of a chunk like most, in which there is nothing else; `None` for all others."""
    try:
        (candidate,) = chunk["candidates"]
        (part,) = candidate["content"]["parts"]
        text = part["text"]
    except (KeyError, TypeError, ValueError):
        return None
    plain = (
        type(text) is str
        and len(part) == 1
        and candidate.keys() <= _BESIDE_CONTENT
        and not candidate.get("index")
        and chunk.keys() <= _BESIDE_CANDIDATES
    )
    return text if plain else None


def _in_camel_case(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that are set, with the names that the REST API gives them.

    JSON of Protocol Buffers has two forms, and Google takes both. Programs in between may write
    the other one: with underscores, and with a null for each field that is not set.
    """
    if "_" not in "".join(fields) and None not in fields.values():
        return fields
    return {
        _UNDERSCORED.sub(lambda found: found[1].upper(), name): (
            _in_camel_case(value) if name in _HOLDING and isinstance(value, dict) else value
        )
        for name, value in fields.items()
        if value is not None
    }


def parse_response(body: bytes, *, source: Source) -> LLMResponse:
    """The response that a body of status 200 holds: an answer, or a list of its chunks, as a
    stream without `alt=sse` is. An error object inside it is raised.
    """
    value = decode_any(body, source)
    answer = Answer(source)
    for chunk in value if isinstance(value, list) else [value]:
        answer.add(chunk)
    if not answer.ended and isinstance(value, list):
        raise source.error(
            StreamInterruptedError,
            f"The answer of {source.provider} ended before it was whole.",
            kind="truncated",
            partial=answer.to_response(whole=False),
        )
    if answer.finish is None and not answer.has_content:
        raise source.error(
            ProtocolError,
            f"{source.provider} answered with neither content nor a finish reason.",
            partial=answer.to_response(whole=False),
        )
    return answer.to_response()
