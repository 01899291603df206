"""Messages, tool calls, requests, responses and stream chunks.

It must not know a provider, a tool's handler or how anything is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import ConfigDict, Field, field_serializer, field_validator, model_validator
from pydantic_core import from_json, to_json

from aether.llm.call import CallContext, new_id
from aether.llm.content import ContentPart, ProviderState, TextPart
from aether.llm.data import Data, made_of
from aether.llm.usage import TokenUsage

__all__ = [
    "MAX_JSON_CHARACTERS",
    "MAX_JSON_PARTS",
    "FinishReason",
    "LLMRequest",
    "LLMResponse",
    "Message",
    "ReasoningEffort",
    "Role",
    "StreamChunk",
    "StructuredChunk",
    "StructuredResponse",
    "ToolCall",
    "ToolCallDelta",
    "ToolSpec",
    "arguments_in",
    "decoded_call",
    "has_too_many_parts",
    "is_too_large",
    "new_call_id",
    "text_message",
]

if TYPE_CHECKING:
    Items = Sequence
else:

    class Items:
        """A tuple, made of any sequence that is passed: `Items[int]` is `tuple[int, ...]`."""

        def __class_getitem__(cls, item: Any) -> Any:
            return tuple[item, ...]


T = TypeVar("T")

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "error", "other"]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


MAX_JSON_CHARACTERS = 2 * 1024 * 1024
MAX_JSON_PARTS = 65_536


def is_too_large(text: str) -> bool:
    """Whether JSON is longer than any model writes: to read and check it would hold up the loop.

    It has more than `MAX_JSON_CHARACTERS`, or more than `MAX_JSON_PARTS` commas and opening
    brackets, those in its texts included.
    """
    return len(text) > MAX_JSON_PARTS and (
        len(text) > MAX_JSON_CHARACTERS or sum(map(text.count, ",[{")) > MAX_JSON_PARTS
    )


def has_too_many_parts(value: Mapping[str, Any]) -> bool:
    """Whether decoded JSON has more than `MAX_JSON_PARTS` values. Long texts in it cost nothing."""
    count = 0
    found: list[Collection[Any]] = [value.values()]
    for members in found:
        count += len(members)
        if count > MAX_JSON_PARTS:
            return True
        if not _CONTAINERS.isdisjoint(map(type, members)):
            found += [member.values() for member in members if type(member) is dict]
            found += [member for member in members if type(member) is list]
    return False


_CONTAINERS = frozenset({dict, list})


def new_call_id() -> str:
    """A tool call's id, for a provider that gives none."""
    return f"call_{new_id()}"


@runtime_checkable
class ToolSpec(Protocol):
    """What a provider may know of a tool. `parameters` is a JSON Schema of type `object`."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def parameters(self) -> Mapping[str, Any]: ...


class ToolCall(Data):
    """A model's wish to have a tool run. A call without an id is given one."""

    id: str = Field(kw_only=False)
    name: str = Field(kw_only=False)
    arguments: dict[str, Any] = Field(default_factory=dict, kw_only=False)
    invalid_arguments: str | None = None
    """The arguments as they came, where they were no JSON object, or one with a name in it twice,
    or too large a one (see `is_too_large`), or by its server's word not whole. Such a call is never
    run."""
    provider_state: ProviderState = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _mint_id(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("id"):
            data = {**data, "id": new_call_id()}
        return data

    @classmethod
    def parse(cls, id: str | None, name: str, arguments: str, **more: Any) -> ToolCall:
        """From the argument text that a provider sent; empty text and `null` mean none."""
        return cls(id=id or new_call_id(), name=name, **arguments_in(arguments), **more)


def arguments_in(text: str) -> dict[str, Any]:
    """The fields of a call that say which arguments a provider sent, as text."""
    written = text.strip()
    if written in ("", "null"):
        return {"arguments": {}}
    if not is_too_large(written):
        try:
            parsed = from_json(written, allow_inf_nan=False)
            if isinstance(parsed, dict):
                if written.count(":") > len(parsed):
                    _names.raw_decode(written)  # with fewer colons, no name is there twice
                return {"arguments": parsed}
        except ValueError:
            pass
    return {"arguments": {}, "invalid_arguments": text}


def decoded_call(id: str, name: str, arguments: dict[str, Any], **more: Any) -> ToolCall:
    """A call whose arguments a provider sent as an object."""
    if has_too_many_parts(arguments):
        written = to_json(arguments).decode()
        return ToolCall(id=id, name=name, arguments={}, invalid_arguments=written, **more)
    return ToolCall(id=id, name=name, arguments=arguments, **more)


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands there twice: which of its values was meant?")


_names = json.JSONDecoder(object_pairs_hook=_distinct, parse_int=str, strict=False)
"""Raises `ValueError` for JSON in which an object has a name twice."""


class Message(Data):  # noqa: PLW1641 - what holds lists has no hash
    """One message of a conversation. `content` is text or a list of typed parts.

    It is made of a text, a part, or a sequence of them, in which a text stands for a `TextPart`.
    An assistant message may carry `tool_calls`; a tool message answers one of them by
    `tool_call_id`, and says with `is_error` that the tool failed. Messages that say the same are
    equal, wherever their text is from.
    """

    role: Role = Field(kw_only=False)
    content: str | list[ContentPart] = Field(default="", kw_only=False)
    tool_calls: list[ToolCall] = Field(default_factory=list)
    tool_call_id: str | None = None
    is_error: bool = False
    provider_state: ProviderState = Field(default_factory=dict)
    untrusted: bool = Field(default_factory=lambda said: said["role"] == "tool")
    """Whether it may hold what others wrote (a page, a file), or was made from such. A tool's
    result does unless it says otherwise; also one that was stored before it could say so."""

    if TYPE_CHECKING:  # what `content` is made of is more than what it is

        def __init__(
            self,
            role: Role,
            content: str | ContentPart | Sequence[str | ContentPart] | None = "",
            *,
            tool_calls: list[ToolCall] = ...,
            tool_call_id: str | None = None,
            is_error: bool = False,
            provider_state: ProviderState = ...,
            untrusted: bool = ...,
        ) -> None: ...

    @field_validator("content", mode="before")
    @classmethod
    def _text_or_parts(cls, value: Any) -> Any:
        if isinstance(value, str):
            return value
        if value is None:
            return ""
        if isinstance(value, Data | Mapping):
            return [value]
        if isinstance(value, bytes | bytearray) or not isinstance(value, Sequence | Iterator):
            raise ValueError(  # noqa: TRY004 - pydantic turns it into its own error
                f"it is text, a part, or a list of parts, not {type(value).__name__}"
            )
        return [TextPart(text=each) if isinstance(each, str) else each for each in value]

    @property
    def text(self) -> str:
        """The text of the content; parts that are no text are left out."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Message) and other.untrusted is not self.untrusted:
            other = other.model_copy(update={"untrusted": self.untrusted})
        return super().__eq__(other)


def text_message(role: Role, text: str) -> Message:
    """A message of the text alone: one of these is made for most calls."""
    if type(text) is str:
        said = {
            "role": role,
            "content": text,
            "tool_calls": [],
            "provider_state": {},
            "untrusted": False,
        }
        return made_of(Message, said)
    return Message(role=role, content=text)


class LLMRequest(Data):
    """What a provider is asked. Only `messages` is required. Immutable; copy it to change it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    messages: Items[Message] = Field(kw_only=False)
    model: str | None = Field(default=None, kw_only=False)
    temperature: float | None = Field(
        default=None, kw_only=False, ge=0, le=2, strict=True, allow_inf_nan=False
    )
    max_tokens: int | None = Field(default=None, kw_only=False, gt=0, strict=True)
    tools: Items[ToolSpec] = Field(default=(), kw_only=False)
    temperature_is_default: bool = False
    """Nobody chose the temperature: leave it out for a model that may refuse it."""
    tool_choice: str | None = None
    """`auto`, `none`, `required`, or a name of one of `tools`; `None`: the provider's default."""
    top_p: float | None = Field(default=None, ge=0, le=1, strict=True, allow_inf_nan=False)
    seed: int | None = Field(default=None, strict=True)
    stop: Items[str] = ()
    reasoning: ReasoningEffort | None = None
    """How much the model is to reason before it answers, in the nearest words of its provider;
    left out for a model without such a setting. `None`: the model's default."""
    parallel_tool_calls: bool | None = None
    """`False` asks the model for one call a turn, where it can be asked. `None`: its default."""
    output_schema: dict[str, Any] | None = None
    """A JSON Schema, of an object, for the answer's text: enforced where the provider can, else
    told to the model. Whether the text satisfies it is for the caller to check."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields that are added to the body as they are, over what the adapter wrote; objects are
    merged field by field, and `tools` are added to those that are offered."""
    extra_headers: dict[str, str] = Field(default_factory=dict)
    context: CallContext | None = Field(default=None, exclude=True, repr=False)

    @field_validator("tools", mode="plain")
    @classmethod
    def _tools(cls, value: Any) -> tuple[ToolSpec, ...]:
        if not isinstance(value, Iterable):
            raise ValueError(  # noqa: TRY004 - pydantic turns it into its own error
                f"it is a list of tools, not {type(value).__name__}"
            )
        tools = tuple(value)
        for tool in tools:
            if not (  # isinstance is 20 times slower
                hasattr(tool, "name")
                and hasattr(tool, "description")
                and hasattr(tool, "parameters")
            ):
                raise ValueError(
                    f"tools must be Tool objects, not {type(tool).__name__}; "
                    "names and functions are resolved by the client"
                )
        return tools

    @field_serializer("tools")
    def _described(self, tools: tuple[ToolSpec, ...]) -> list[dict[str, Any]]:
        return [
            {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
            }
            for tool in tools
        ]

    @field_validator("stop", mode="before")
    @classmethod
    def _stop(cls, value: Any) -> Any:
        stop = (value,) if isinstance(value, str) else value
        if isinstance(stop, Sequence) and not all(isinstance(each, str) and each for each in stop):
            raise ValueError("it is a text or a list of texts, none of them empty")
        return stop

    def replace(self, **changes: Any) -> LLMRequest:
        """A copy with these fields changed. The values are trusted, not validated."""
        return self.model_copy(update=changes)


class LLMResponse(Data):
    """What a provider answered. Counts that it did not report are `None`, never 0.

    `input_tokens` include cache reads and writes; `output_tokens` include reasoning.
    """

    text: str = Field(kw_only=False)
    model: str = Field(kw_only=False)
    input_tokens: int | None = Field(default=None, kw_only=False)
    output_tokens: int | None = Field(default=None, kw_only=False)
    tool_calls: list[ToolCall] = Field(default_factory=list, kw_only=False)
    finish_reason: FinishReason | None = Field(default=None, kw_only=False)
    finish_reason_raw: str | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    reasoning: str | None = None
    token_details: dict[str, int] = Field(default_factory=dict)
    """Parts of these counts that may have a price of their own, where the provider tells them:
    `cache_write_1h_tokens`, and `input_audio_tokens`, `cache_audio_read_tokens` and
    `output_audio_tokens`, of images and video likewise."""
    cost_usd: float | None = None
    """What the provider says that the answer cost, where it says so."""
    request_id: str | None = None
    provider: str | None = None
    """The name of the provider that answered."""
    cached: bool = False
    """Whether it was answered from a cache: it cost nothing, whatever its counts say."""
    attempts: int = 1
    """How many requests were made for it, those that failed included."""
    output: Any = None
    """The value of the type that was asked for, where one was."""
    message: Message = Field(default=None, validate_default=False)  # type: ignore[assignment]
    """The assistant message to send back; made from the text and the calls where none is given."""

    def model_post_init(self, _: Any, /) -> None:
        if self.message is None:
            message = Message(role="assistant", content=self.text, tool_calls=self.tool_calls)
            object.__setattr__(self, "message", message)

    @property
    def usage(self) -> TokenUsage:
        """The tokens of this one call, none if it was cached; its cost is not known here."""
        if self.cached:
            return TokenUsage()
        return TokenUsage(
            1,
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.reasoning_tokens,
        )


class StructuredResponse(LLMResponse, Generic[T]):
    """A response to a call with `output=T`: its text is JSON, and `output` the value of it."""

    output: T  # pyright: ignore[reportGeneralTypeIssues]  # it must be given: `None` may be no T


@dataclass(slots=True)
class ToolCallDelta:
    """A piece of a tool call that is still being written; `index` tells the calls apart."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(slots=True)
class StreamChunk:
    """A piece of a streamed answer.

    `text` and `reasoning` are deltas; `tool_call` is a piece of a call, for display. The fields
    after them are set on the final chunk alone.
    """

    text: str = ""
    reasoning: str | None = None
    tool_call: ToolCallDelta | None = None
    finish_reason: FinishReason | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    tool_calls: Sequence[ToolCall] | None = None
    response: LLMResponse | None = None
    restart: bool = False
    """Whether the answer begins anew, from another provider: what had come before is void. Only
    where that was asked for (`Fallbacks(after_content="restart")`)."""

    @property
    def is_final(self) -> bool:
        """Whether this chunk closes the stream."""
        return self.response is not None or self.finish_reason is not None

    @property
    def has_content(self) -> bool:
        """Whether the caller gets to see something: the point after which nothing is retried."""
        return bool(self.text or self.reasoning or self.tool_call)


@dataclass(slots=True)
class StructuredChunk(StreamChunk, Generic[T]):
    """A piece of a streamed answer to a call with `output=T`.

    On the final chunk alone, `output` is the value, whole and checked, and `is_partial` is false.
    """

    output: T | None = None
    preview: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def is_partial(self) -> bool:
        """Whether more is to come."""
        return not self.is_final

    @property
    def partial(self) -> Any:
        """The value so far as plain JSON (dicts, lists, texts), not checked; `None` before it has
        begun and on the final chunk.

        A text at its end may be cut; a number there is left out until it is whole. When the model
        is asked again it starts anew. It is made when it is read.
        """
        return None if self.preview is None else self.preview()
