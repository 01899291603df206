"""`typing.TypedDict` on Python 3.11, where pydantic itself takes only that of typing_extensions.

It must not know tools. It has nothing left to do where Python is 3.12 or newer.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from pydantic import GetCoreSchemaHandler, GetPydanticSchema
from pydantic_core import core_schema

__all__ = ["readable"]

Extra = Literal["forbid", "ignore"]


def readable(annotation: Any, *, extra: Extra = "forbid") -> Any:
    """The annotation, with each `typing.TypedDict` in it made readable for pydantic.

    `extra` is what becomes of names that it does not have. From Python 3.12 on pydantic does as its
    own configuration says.
    """
    return annotation if sys.version_info >= (3, 12) else _rewritten(annotation, (), extra)


def _rewritten(annotation: Any, outer: tuple[type, ...], extra: Extra) -> Any:
    if is_typeddict(annotation) and type(annotation).__module__ == "typing":
        return _described(annotation, outer, extra)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None or origin is Literal:
        return annotation
    rewritten = tuple(_rewritten(argument, outer, extra) for argument in arguments)
    if all(new is old for new, old in zip(rewritten, arguments, strict=True)):
        return annotation
    return _subscripted(origin, rewritten)


def _subscripted(origin: Any, arguments: Sequence[Any]) -> Any:
    if origin is types.UnionType:
        origin = Union
    if get_origin(origin) is None and len(arguments) == 1:
        return origin[arguments[0]]
    return origin[tuple(arguments)]


def _described(cls: Any, outer: tuple[type, ...], extra: Extra) -> Any:
    if cls in outer:
        raise TypeError(f"{cls.__name__} contains itself, which needs Python 3.12 or newer")

    def describe(_: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        fields = {}
        for name, hint in get_type_hints(cls, include_extras=True).items():
            required = name in cls.__required_keys__
            # Python does not see these two in annotations that are strings.
            if get_origin(hint) in (Required, NotRequired):
                required = get_origin(hint) is Required
                (hint,) = get_args(hint)  # noqa: PLW2901 - the marker is taken off
            fields[name] = core_schema.typed_dict_field(
                handler.generate_schema(_rewritten(hint, (*outer, cls), extra)), required=required
            )
        return core_schema.typed_dict_schema(
            fields,
            cls=cls,
            extra_behavior=extra,
            config=core_schema.CoreConfig(allow_inf_nan=False),
        )

    return Annotated[Any, GetPydanticSchema(describe)]
