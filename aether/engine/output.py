"""Structured output: from a type to the schema that a model is given, and from its text to a value.

It must not know a provider: how a model is held to the schema is an adapter's matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from aether.errors import InputError, OutputError
from aether.llm.messages import LLMRequest, LLMResponse, Message, StructuredResponse
from aether.llm.usage import TokenUsage
from aether.tools.typed_dicts import readable

__all__ = ["OutputType", "output_type", "problems_of"]

_FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)\n?\s*```", re.DOTALL)
_VALUE = "value"
_MAX_PROBLEMS = 20
_MAX_MESSAGE = 300


def output_type(form: Any) -> OutputType:
    """What is known of a type, remembered for the latest 128. `InputError` if it has no schema."""
    try:
        return _remembered(form)
    except TypeError:  # one that cannot be hashed
        return OutputType(form)


class OutputType:
    """A type that an answer is to have, with its schema.

    A schema's root is always an object, as providers demand: another type is its property
    `value`. `str` has no schema: the text is the value.
    """

    def __init__(self, form: Any) -> None:
        self.form = form
        self.name = getattr(form, "__name__", None) or str(form)
        self.schema: dict[str, Any] | None = None
        if form is str:
            return
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(readable(form))
            schema = self._adapter.json_schema()
        except Exception as error:
            raise InputError(
                f"output={self.name} cannot be described to a model: "
                f"{' '.join(str(error).split())[:_MAX_MESSAGE]}"
            ) from error
        self._wrapped = schema.get("type") != "object"
        if self._wrapped:
            definitions = schema.pop("$defs", None)
            schema = {
                "type": "object",
                "properties": {_VALUE: schema},
                "required": [_VALUE],
                "additionalProperties": False,
            }
            if definitions:
                schema["$defs"] = definitions
        self.schema = schema

    def read(self, text: str) -> Any:
        """The value that the text holds as JSON, in a code fence or not.

        Raises `pydantic.ValidationError` if it has another type, and `ValueError` if it is no
        JSON. A `null` where the type takes none and can do without counts as left out: a provider
        whose schemas have no optional properties makes them nullable.
        """
        if self.schema is None:
            return text
        document = _unfenced(text)
        try:
            return self._validate(document)
        except ValidationError as error:
            value = from_json(document)
            if not _without_nulls(value, self._locations(error)):
                raise
            try:
                return self._validate(to_json(value).decode())
            except ValidationError:
                raise error from None

    def preview(self, text: str) -> Any:
        """The value so far as plain JSON, not checked; `None` before it has begun.

        A text at its end may be cut; a number there is left out until it is whole.
        """
        if self.schema is None:
            return text
        document = text.lstrip()
        if document.startswith("```"):
            document = document.partition("\n")[2]
        document = document.rstrip("0123456789.eE+-")
        try:
            value = from_json(document, allow_partial="trailing-strings")
        except ValueError:
            return None
        if self._wrapped:
            return value.get(_VALUE) if isinstance(value, dict) else None
        return value

    def check(self, response: LLMResponse) -> StructuredResponse[Any]:
        """The response with its output. Raises as `read` does."""
        value = self.read(response.text)
        fields = {**response.__dict__, "output": value}
        return StructuredResponse.model_construct(response.model_fields_set, **fields)

    def ask_again(
        self, request: LLMRequest, response: LLMResponse, problems: Sequence[str]
    ) -> LLMRequest:
        """The request that shows the model what is wrong with its answer."""
        listed = "\n".join(f"- {problem}" for problem in problems)
        said = (
            f"This answer does not fit:\n{listed}\nAnswer again, with nothing but one JSON object "
            f"that follows this JSON Schema:\n{to_json(self.schema).decode()}"
        )
        answer = response.message if response.text else _NO_ANSWER
        messages = (*request.messages, answer, Message("user", said))
        return request.replace(messages=messages)

    def refuse(
        self,
        request: LLMRequest,
        response: LLMResponse,
        problems: Sequence[str],
        *,
        usage: TokenUsage,
        error: Exception,
    ) -> NoReturn:
        """Raise the error of a run that got no answer of the type."""
        why = "; ".join(problems[:3])
        if response.finish_reason == "length":
            why = "it was cut off by the output limit. Raise max_tokens."
        elif response.finish_reason == "content_filter":
            why = "the model, or its provider's content policy, refused it."
        raise OutputError(
            f"The answer is not the {self.name} that was asked for: {why} The last answer is in "
            "error.text.",
            response=response,
            problems=problems,
            messages=(*request.messages, response.message),
            usage=usage,
        ) from error

    def _validate(self, document: str) -> Any:
        if not self._wrapped:
            return self._adapter.validate_json(document)
        value = from_json(document)
        if isinstance(value, Mapping) and value.keys() == {_VALUE}:
            value = value[_VALUE]
        return self._adapter.validate_json(to_json(value))

    def _locations(self, error: ValidationError) -> list[tuple[Any, ...]]:
        """Where the errors are that a null made, from the document's root."""
        above = (_VALUE,) if self._wrapped else ()
        return [
            (*above, *problem["loc"])
            for problem in error.errors(include_url=False)
            if problem["input"] is None
        ]


_NO_ANSWER = Message("assistant", "(no answer)")

_remembered = lru_cache(maxsize=128, typed=True)(OutputType)


def problems_of(error: Exception) -> list[str]:
    """What is wrong, in lines for a model and for a developer."""
    if not isinstance(error, ValueError):
        return [f"checking it failed: {type(error).__name__}: {error}"[:_MAX_MESSAGE]]
    if not isinstance(error, ValidationError):
        return [f"it is not JSON: {error}"[:_MAX_MESSAGE]]
    problems = [
        f"{'.'.join(map(str, problem['loc'])) or 'the answer'}: {problem['msg']}"[:_MAX_MESSAGE]
        for problem in error.errors(include_url=False, include_input=False)
    ]
    left = len(problems) - _MAX_PROBLEMS
    return problems if left <= 0 else [*problems[:_MAX_PROBLEMS], f"and {left} more"]


def _unfenced(text: str) -> str:
    fenced = _FENCE.fullmatch(text.strip())
    return text.strip() if fenced is None else fenced[1]


def _without_nulls(value: Any, locations: Sequence[tuple[Any, ...]]) -> bool:
    """Take the nulls at these places out of their objects; whether there were any."""
    taken = False
    for location in locations:
        holder, at = None, value
        name: Any = None
        for step in location:  # a step may also be the name of a union's branch
            inside = (isinstance(at, dict) and step in at) or (
                isinstance(at, list) and isinstance(step, int) and step < len(at)
            )
            if inside:
                holder, name, at = at, step, at[step]
        if at is None and isinstance(holder, dict):
            del holder[name]
            taken = True
    return taken
