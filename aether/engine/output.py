"""Structured output: from a type to the schema that a model is given, and from its text to a value.

It must not know a provider: how a model is held to the schema is an adapter's matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from inspect import isroutine
from typing import Any, Literal, NoReturn

from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import from_json, to_json

from aether.engine.nulls import Nulls
from aether.errors import InputError, OutputError
from aether.llm.messages import (
    MAX_JSON_CHARACTERS,
    MAX_JSON_PARTS,
    LLMRequest,
    LLMResponse,
    Message,
    StructuredResponse,
    is_too_large,
)
from aether.llm.usage import TokenUsage
from aether.tools.typed_dicts import readable

__all__ = ["OutputType", "output_type", "problems_of"]

_VALUE = "value"
_MAX_NAME = 100
_MAX_PROBLEMS = 20
_MAX_MESSAGE = 300
_SHOWN = 40  # characters of an answer that is no JSON


def output_type(form: Any) -> OutputType:
    """What is known of a type, remembered for the latest 128. `InputError` if it has no schema."""
    try:
        hash(form)
    except TypeError:
        return OutputType(form)
    return _remembered(form, repr(form))


@lru_cache(maxsize=128)
def _remembered(form: Any, _: str) -> OutputType:
    """Told apart by their text as well: `A | B` equals `B | A`, but prefers the other."""
    return OutputType(form)


class OutputType:
    """A type that an answer is to have, with its schema.

    A schema's root is always an object, as providers demand: another type is its property
    `value`. `str` has no schema: the text is the value.
    """

    def __init__(self, form: Any) -> None:
        self.form = form
        self.name = form.__name__ if isinstance(form, type) else str(form)[:_MAX_NAME]
        self.schema: dict[str, Any] | None = None
        if form is str:
            return
        if isinstance(form, str) or isroutine(form):
            raise InputError(f"output= takes a type, and {form!r} is none.")
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(readable(form, extra="ignore"))
            inner = self._adapter.json_schema(schema_generator=_SchemaGenerator)
            if _is_lazy(self._adapter.core_schema):
                raise TypeError("an Iterable is checked as it is read; take a list")  # noqa: TRY301 - as pydantic's
        except Exception as error:
            # Pydantic's own words, without its advice for who writes models.
            reason = " ".join(str(getattr(error, "message", error)).split()).partition(". ")[0]
            raise InputError(
                f"output={self.name} cannot be described to a model: {reason[:_MAX_MESSAGE]}"
            ) from error
        definitions: dict[str, Any] = inner.pop("$defs", {})
        self._nulls = Nulls(inner, definitions)
        target = self._nulls.followed(inner)  # a type that contains itself is a reference
        self._wrapped = target.get("type") != "object"
        if self._wrapped:
            target = {
                "type": "object",
                "properties": {_VALUE: inner},
                "required": [_VALUE],
                "additionalProperties": False,
            }
        self.schema = {**target, "$defs": definitions} if definitions else target

    def read(self, text: str) -> Any:
        """The value that the text holds as JSON, in a code fence or not.

        Raises `pydantic.ValidationError` if it has another type, and `ValueError` if it is no
        JSON. A `null` for a property whose type takes none and that can be left out counts as
        left out: a provider whose schemas have no optional properties makes them nullable.
        """
        if self.schema is None:
            return text
        value = _decoded(_unfenced(text))
        if self._wrapped and isinstance(value, dict) and value.keys() == {_VALUE}:
            value = value[_VALUE]
        try:
            # First without unknown names: of a union, they may be those of another alternative.
            return self._fitted(value, extra="forbid")
        except ValidationError:
            return self._fitted(value, extra=None)

    def preview(self, text: str) -> Any:
        """The value so far as plain JSON, not checked; `None` before it has begun.

        A text at its end may be cut; a number there is left out until it is whole.
        """
        if self.schema is None:
            return text
        document = text.lstrip()
        if document.startswith("```"):
            document = document.partition("\n")[2]
        before = document.rstrip("0123456789.eE+-")
        if before.endswith(("[", ",", ":", " ", "\t", "\n", "\r")) or not before:
            document = before
        try:
            value = from_json(document, allow_inf_nan=False, allow_partial="trailing-strings")
        except ValueError:
            return None
        if self._wrapped and isinstance(value, dict) and value.keys() <= {_VALUE}:
            return value.get(_VALUE)
        begun = isinstance(value, dict) or (self._wrapped and isinstance(value, list))
        return value if begun else None  # prose may begin with a number

    def check(self, response: LLMResponse) -> StructuredResponse[Any]:
        """The response with its output. Raises as `read` does."""
        value = self.read(response.text)
        fields = {**response.__dict__, "output": value}
        return StructuredResponse.model_construct(response.model_fields_set, **fields)

    def ask_again(self, response: LLMResponse, problems: Sequence[str]) -> tuple[Message, Message]:
        """The messages that show the model what is wrong with its answer."""
        listed = "\n".join(f"- {problem}" for problem in problems)
        said = (
            f"This answer does not fit:\n{listed}\nAnswer again, with nothing but one JSON object "
            f"that follows this JSON Schema:\n{to_json(self.schema).decode()}"
        )
        answer = response.message
        if not response.text.strip():
            answer = Message("assistant", "(no answer)")
        return answer, Message("user", said)

    def refuse(
        self,
        request: LLMRequest,
        response: LLMResponse,
        problems: Sequence[str],
        *,
        usage: TokenUsage,
        error: Exception | None = None,
    ) -> NoReturn:
        """Raise the error of a run that got no answer of the type."""
        raise OutputError(
            f"The answer is not the {self.name} that was asked for: {'; '.join(problems[:3])}. "
            "The last answer is in error.text.",
            response=response,
            problems=problems,
            messages=(*request.messages, response.message),
            usage=usage,
        ) from error

    def _fitted(self, value: Any, *, extra: Literal["forbid"] | None) -> Any:
        try:
            return self._validated(value, extra)
        except ValidationError as error:
            places = [problem["loc"] for problem in error.errors(include_url=False)]
            less = self._nulls.left_out(value, places)
            if less is None:
                raise
            try:
                return self._validated(less, extra)
            except ValidationError:
                raise error from None

    def _validated(self, value: Any, extra: Literal["forbid"] | None) -> Any:
        """JSON allows of more than Python values do: a date is a text there, a set a list."""
        return self._adapter.validate_json(to_json(value), extra=extra)


class _SchemaGenerator(GenerateJsonSchema):
    # A default that has no JSON form is left out: it is used all the same.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's


def problems_of(error: Exception) -> list[str]:
    """What is wrong, in lines for a model and for a developer."""
    if not isinstance(error, ValueError):
        return [f"checking it failed: {type(error).__name__}: {error}"[:_MAX_MESSAGE]]
    if not isinstance(error, ValidationError):
        return [str(error)[:_MAX_MESSAGE]]
    problems = [
        f"{'.'.join(map(str, problem['loc'])) or 'the answer'}: {problem['msg']}"[:_MAX_MESSAGE]
        for problem in error.errors(include_url=False, include_input=False)
    ]
    left = len(problems) - _MAX_PROBLEMS
    return problems if left <= 0 else [*problems[:_MAX_PROBLEMS], f"and {left} more"]


def _decoded(document: str) -> Any:
    if not document:
        raise ValueError("it is empty")
    if is_too_large(document):
        raise ValueError(
            f"it is too large: it has more than {MAX_JSON_CHARACTERS} characters, or more than "
            f"{MAX_JSON_PARTS} members"
        )
    try:
        return from_json(document, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(
            f"it is not JSON, and begins with {document[:_SHOWN]!r}: {error}"
        ) from None


def _unfenced(text: str) -> str:
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        opening, newline, inside = text[:-3].partition("\n")
        language = opening[3:].strip()
        if newline and (not language or language.isalnum()):
            return inside
    return text


def _is_lazy(core_schema: Any) -> bool:
    """Whether pydantic checks a part of the value only when that is iterated over."""
    if isinstance(core_schema, dict):
        return core_schema.get("type") == "generator" or any(map(_is_lazy, core_schema.values()))
    return isinstance(core_schema, list | tuple) and any(map(_is_lazy, core_schema))
