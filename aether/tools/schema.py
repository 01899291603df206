"""From a function to a tool: its name, its description, its JSON Schema and its validation.

It must not know registries, nor how a tool is run.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Optional

from pydantic import ConfigDict, GetCoreSchemaHandler, GetPydanticSchema, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticUndefined, core_schema

from aether.errors import ToolError
from aether.tools.arguments import ArgumentValidator
from aether.tools.contracts import DEFAULT_TIMEOUT, Tool
from aether.tools.docstrings import parse_docstring
from aether.tools.signature import (
    EMPTY,
    Parameter,
    Signature,
    function_label,
    innermost,
    read_signature,
)
from aether.tools.typed_dicts import readable

__all__ = ["build_tool"]

# For the arguments, and for the dataclasses and typed dictionaries in them that have no
# configuration of their own; a pydantic model has its own.
_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)


def build_tool(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
    trusted: bool = False,
) -> Tool:
    """A tool that calls `function`, sync or async.

    The schema of its arguments comes from the signature; each parameter needs an annotation, and
    one that a `functools.partial` has filled in is not shown to the model. The descriptions of
    parameters come from `Annotated[T, "text"]`, `Field(description=...)` or the docstring, in this
    order. `description` is the docstring without its sections where it is not given. A callable
    object is named after its class, a partial after its function.

    `ToolError`, which names the function and the parameter, if one cannot be described.
    """
    label = function_label(function)
    signature = read_signature(function)
    adapter, schema = _adapt(signature, label)
    documentation = parse_docstring(_docstring(function))
    parameters = _tidy(schema, signature.parameters, documentation.parameters)
    return Tool(
        name=_name(function) if name is None else name,
        description=documentation.description if description is None else description,
        parameters=parameters,
        handler=function,
        timeout=timeout,
        trusted=trusted,
        validate=ArgumentValidator(adapter, parameters),
    )


def _name(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name: str = getattr(function, "__name__", type(function).__name__)
    if name == "<lambda>":
        raise ToolError("A lambda has no name: pass name= to register_tool or build_tool.")
    return name


def _docstring(function: Callable[..., Any]) -> str | None:
    if inspect.isroutine(function):
        return inspect.getdoc(function)
    called = inspect.getdoc(innermost(function))
    if called is None and not isinstance(function, functools.partial):
        return inspect.getdoc(function)
    return called


def _adapt(signature: Signature, label: str) -> tuple[TypeAdapter[dict[str, Any]], dict[str, Any]]:
    try:
        return _describe(signature.parameters, signature.extras)
    except Exception as error:
        for parameter in signature.parameters:
            try:
                _describe([parameter], EMPTY)
            except Exception as reason:
                raise ToolError(
                    f"Parameter {parameter.name!r} of {label} cannot be described to a model: "
                    f"{_first_sentence(reason)}"
                ) from reason
        raise ToolError(
            f"The parameters of {label} cannot be described to a model: {_first_sentence(error)}"
        ) from error


def _first_sentence(error: Exception) -> str:
    """What pydantic says is wrong, without its advice, which is for those who write models."""
    return " ".join(str(getattr(error, "message", error)).split()).partition(". ")[0]


def _describe(
    parameters: Iterable[Parameter], extras: Any
) -> tuple[TypeAdapter[dict[str, Any]], dict[str, Any]]:
    """A typed dictionary of the parameters: unlike a model it takes any name as a key."""

    def describe(_: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.typed_dict_schema(
            {parameter.name: _field(parameter, handler) for parameter in parameters},
            extra_behavior="forbid" if extras is EMPTY else "allow",
            extras_schema=None if extras is EMPTY else handler.generate_schema(readable(extras)),
            config=core_schema.CoreConfig(allow_inf_nan=False),
        )

    adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(
        Annotated[Any, GetPydanticSchema(describe)], config=_CONFIG
    )
    return adapter, adapter.json_schema(schema_generator=_SchemaGenerator)


class _SchemaGenerator(GenerateJsonSchema):
    # A default that has no JSON form is left out: it is used all the same.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's


def _field(parameter: Parameter, handler: GetCoreSchemaHandler) -> core_schema.TypedDictField:
    annotation, default = parameter.annotation, parameter.default
    factory: Callable[[], Any] | None = None
    if isinstance(default, FieldInfo):
        annotation = Annotated[annotation, default]
        factory = default.default_factory  # type: ignore[assignment]  # one that takes no data
        default = EMPTY if default.default is PydanticUndefined else default.default
    elif default is None:
        annotation = Optional[annotation]  # noqa: UP045 - `|` does not take every annotation
    schema = handler.generate_schema(readable(annotation))
    if factory is not None:
        schema = core_schema.with_default_schema(schema, default_factory=factory)
    elif default is not EMPTY:
        schema = core_schema.with_default_schema(schema, default=default)
    required = factory is None and default is EMPTY
    return core_schema.typed_dict_field(schema, required=required)


def _tidy(
    schema: Mapping[str, Any], parameters: Sequence[Parameter], documented: Mapping[str, str]
) -> dict[str, Any]:
    """The schema without titles, with the descriptions, and definitions where they are used.

    A definition that is used more than once stays in `$defs`; one that is used once would only
    make the schema longer and harder to read, and some providers take no references.
    """
    used = list(_references(schema))
    single = {
        f"#/$defs/{name}": definition
        for name, definition in schema.get("$defs", {}).items()
        if used.count(f"#/$defs/{name}") == 1
    }
    root = _without_noise(schema, single)
    tidy: dict[str, Any] = {"type": "object", "properties": root.get("properties", {})}
    if "required" in root:
        tidy["required"] = root["required"]
    tidy["additionalProperties"] = root["additionalProperties"]
    definitions = {
        name: definition
        for name, definition in root.get("$defs", {}).items()
        if f"#/$defs/{name}" not in single
    }
    if definitions:
        tidy["$defs"] = definitions
    for parameter in parameters:
        shown = tidy["properties"][parameter.name]
        if parameter.description is not None:
            shown["description"] = parameter.description
        elif parameter.name in documented:
            shown.setdefault("description", documented[parameter.name])
    return tidy


# Where a JSON Schema holds others: by name, in a list, or alone.
_NAMED = ("properties", "patternProperties", "$defs")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_ALONE = ("items", "additionalProperties", "propertyNames", "contains", "not")


def _without_noise(schema: Any, inline: Mapping[str, Any]) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    tidy = {key: value for key, value in schema.items() if key != "title"}
    if tidy.get("$ref") in inline:
        definition = inline[tidy.pop("$ref")]
        tidy = {**_without_noise(definition, inline), **tidy}
    for key in tidy:
        if key in _NAMED:
            tidy[key] = {name: _without_noise(part, inline) for name, part in tidy[key].items()}
        elif key in _LISTED:
            tidy[key] = [_without_noise(part, inline) for part in tidy[key]]
        elif key in _ALONE:
            tidy[key] = _without_noise(tidy[key], inline)
    return tidy


def _references(schema: Any) -> Iterator[str]:
    """Every text in the schema that may refer to a definition, a discriminator's too."""
    if isinstance(schema, str):
        yield schema
    elif isinstance(schema, Mapping):
        for part in schema.values():
            yield from _references(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _references(part)
