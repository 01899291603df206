"""Reading signatures: which parameters a function has, and what their annotations mean.

It must not know JSON Schema. What it evaluates are the annotations of a function that its author
hands in, never a text that came from a model.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from aether.errors import ToolError

__all__ = ["EMPTY", "Parameter", "Signature", "function_label", "innermost", "read_signature"]

EMPTY: Any = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that a model fills in. `default` is `EMPTY` where there is none."""

    name: str
    annotation: Any
    default: Any
    description: str | None
    """The text of `Annotated[T, "text"]`."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function can be called with."""

    parameters: tuple[Parameter, ...]
    extras: Any
    """The annotation of `**kwargs`, or `EMPTY` where unknown names are refused."""


def innermost(function: Callable[..., Any]) -> Any:
    """The plain function under partials, decorators, bound methods and callable objects."""
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not hasattr(inner, "__qualname__"):
        inner = type(inner).__call__
    return inspect.unwrap(getattr(inner, "__func__", inner))


def function_label(function: Callable[..., Any]) -> str:
    """What to call a function in a message."""
    return f"{getattr(innermost(function), '__qualname__', repr(function))}()"


def read_signature(function: Callable[..., Any]) -> Signature:
    """The parameters in their order, without those that a `functools.partial` has filled in.

    `ToolError`, which names the parameter, for one that a model cannot fill in: one without an
    annotation (write `Any` if any value will do), a positional-only one, `*args`.
    """
    label = function_label(function)
    if isinstance(function, type) or not callable(function):
        raise ToolError(f"{function!r} is no function: register a function, method or object.")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ToolError(f"{label} has no signature that can be read: {error}") from error
    filled_in = function.keywords if isinstance(function, functools.partial) else {}
    parameters = []
    extras = EMPTY
    for parameter in signature.parameters.values():
        if parameter.name in filled_in:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            extras = Any if parameter.annotation is EMPTY else _resolve(parameter, function)
        else:
            parameters.append(_read(parameter, function, label))
    return Signature(tuple(parameters), extras)


def _read(parameter: inspect.Parameter, function: Callable[..., Any], label: str) -> Parameter:
    if parameter.kind is parameter.VAR_POSITIONAL:
        raise ToolError(
            f"Parameter '*{parameter.name}' of {label} has no name that a model could fill in; "
            f"write '{parameter.name}: list[...]'."
        )
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise ToolError(
            f"Parameter {parameter.name!r} of {label} is positional-only, but arguments are "
            "passed by name; leave out the '/'."
        )
    if parameter.annotation is EMPTY:
        raise ToolError(
            f"Parameter {parameter.name!r} of {label} has no type annotation, so it cannot be "
            f"described to a model; write '{parameter.name}: str', or Any if any value will do."
        )
    annotation = _resolve(parameter, function)
    return Parameter(parameter.name, annotation, parameter.default, _text_beside(annotation))


def _text_beside(annotation: Any) -> str | None:
    if get_origin(annotation) is not Annotated:
        return None
    beside = get_args(annotation)[1:]
    return next((text for text in beside if isinstance(text, str)), None)


def _resolve(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    """The parameter's annotation as an object, whether or not it was written as a string."""
    inner = innermost(function)

    def holder() -> None: ...

    holder.__annotations__ = {parameter.name: parameter.annotation}
    namespace = getattr(inner, "__globals__", {})
    try:
        try:
            hints = get_type_hints(holder, namespace, include_extras=True)
        except NameError:
            local = _names_where_defined(getattr(inner, "__code__", None))
            hints = get_type_hints(holder, namespace, local, include_extras=True)
    except Exception as error:
        raise ToolError(
            f"Parameter {parameter.name!r} of {function_label(function)} has an annotation that "
            f"cannot be read: {type(error).__name__}: {error}"
        ) from error
    return hints[parameter.name]


def _names_where_defined(code: CodeType | None) -> Mapping[str, Any]:
    """The local names of the function that is defining the one with this code, if one is.

    An annotation written as a string leaves no closure behind, so this is where a class can be
    found that was defined beside the function, inside another one.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - documented, and the only way
    while code is not None and frame is not None:
        if any(constant is code for constant in frame.f_code.co_consts):
            return frame.f_locals
        frame = frame.f_back
    return {}
