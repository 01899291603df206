"""Tools by name: registering functions, and resolving what a caller names as tools.

It must not know how a schema is made, nor how a tool is run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from types import MethodType
from typing import Any, TypeVar, overload
from weakref import WeakKeyDictionary

from aether.errors import InputError, ToolError
from aether.registry import Registry, default_registry
from aether.tools.contracts import DEFAULT_TIMEOUT, KIND, Tool

__all__ = ["get_tool", "list_tools", "register_tool", "resolve_tools"]

F = TypeVar("F", bound=Callable[..., Any])


@overload
def register_tool(function: F, /) -> F: ...
@overload
def register_tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
    trusted: bool = False,
    registry: Registry | None = None,
    replace: bool = False,
) -> Callable[[F], F]: ...
def register_tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
    trusted: bool = False,
    registry: Registry | None = None,
    replace: bool = False,
) -> F | Callable[[F], F]:
    """Register a function as a tool, and return it unchanged.

    Bare or with options: `name` and `description` are the function's own where they are not
    given, `timeout` is in seconds, `trusted` says that its results are free of text that others
    wrote. `registry` is that of the process unless given. `ToolError` if the function cannot be
    described, `ConfigurationError` if another function has the name and `replace` is false.
    """

    def decorate(function: F) -> F:
        from aether.tools.schema import build_tool

        tool = build_tool(
            function, name=name, description=description, timeout=timeout, trusted=trusted
        )
        _registry(registry).add(KIND, tool.name, tool, replace=replace, origin=_origin(function))
        _remember(function, tool)
        return function

    return decorate if function is None else decorate(function)


def get_tool(name: str, *, registry: Registry | None = None) -> Tool:
    """The tool that is registered under `name`, or `UnknownNameError` with close matches."""
    return _under(name, _registry(registry).get(KIND, name))


def list_tools(*, registry: Registry | None = None) -> list[Tool]:
    """All registered tools, sorted by name. Installed packages not used yet are left out."""
    return [_under(entry.name, entry.value) for entry in _registry(registry).entries(KIND)]


def resolve_tools(
    tools: Iterable[str | Tool | Callable[..., Any]], *, registry: Registry | None = None
) -> dict[str, Tool]:
    """The tools by name, in the order given.

    Each is a registered name, a `Tool`, a function (registered ones keep their registered name),
    or an object with an `as_tool()` method, such as an agent. One given twice counts once.
    `InputError` if two different ones have one name, `TypeError` for anything else.
    """
    if isinstance(tools, str) or not isinstance(tools, Iterable):
        raise TypeError(f"tools is a sequence; for one tool, write tools=[{tools!r}]")
    resolved: dict[str, Tool] = {}
    for given in tools:
        tool = get_tool(given, registry=registry) if isinstance(given, str) else _as_tool(given)
        known = resolved.setdefault(tool.name, tool)
        if known is not tool and known != tool:
            raise InputError(
                f"Two different tools are named {tool.name!r}: a model could not tell them apart."
            )
    return resolved


def _registry(registry: Registry | None) -> Registry:
    return default_registry if registry is None else registry


def _origin(function: Callable[..., Any]) -> str:
    from aether.tools.signature import innermost

    inner = innermost(function)
    return f"{getattr(inner, '__module__', '?')}:{getattr(inner, '__qualname__', '?')}"


def _under(name: str, value: Any) -> Tool:
    """What is registered under `name`, as a tool of that name."""
    try:
        tool = _as_tool(value)
    except TypeError as error:
        raise ToolError(f"What is registered as tool {name!r} is none: {error}") from error
    return tool if tool.name == name else dataclasses.replace(tool, name=name)


def _as_tool(given: object) -> Tool:
    if isinstance(given, Tool):
        return given
    if not isinstance(given, type):
        as_tool = getattr(given, "as_tool", None)
        if callable(as_tool):
            return _checked(as_tool())
        if callable(given):
            return _from_function(given)
    raise TypeError(
        "a tool is a registered name, a Tool, a function or an object with as_tool(), not "
        f"{given!r}"
    )


def _checked(tool: object) -> Tool:
    if not isinstance(tool, Tool):
        raise TypeError(f"as_tool() returned a {type(tool).__name__}, not a Tool")
    return tool


# What was built for a function, without the function: a value that held its key would keep it
# alive. Bound methods are new objects each time, so theirs is kept for the function beneath.
_Blueprint = Mapping[str, Any]
_of_functions: WeakKeyDictionary[Any, _Blueprint] = WeakKeyDictionary()
_of_methods: WeakKeyDictionary[Any, _Blueprint] = WeakKeyDictionary()


def _from_function(function: Callable[..., Any]) -> Tool:
    blueprints, key = _place(function)
    try:
        blueprint = blueprints.get(key)
    except TypeError:  # a callable object that cannot be hashed, or not be referred to weakly
        return _described(function)
    if blueprint is not None:
        tool = object.__new__(Tool)  # what it is made of was checked when it was first described
        vars(tool).update(blueprint, handler=function)
        return tool
    tool = _described(function)
    _remember(function, tool)
    return tool


def _described(function: Callable[..., Any]) -> Tool:
    from aether.tools.schema import build_tool

    return build_tool(function)


def _remember(function: Callable[..., Any], tool: Tool) -> None:
    blueprints, key = _place(function)
    blueprint = {name: value for name, value in vars(tool).items() if name != "handler"}
    try:
        blueprints[key] = blueprint
    except TypeError:
        return  # as above: it is built anew each time


def _place(function: Callable[..., Any]) -> tuple[WeakKeyDictionary[Any, _Blueprint], Any]:
    if isinstance(function, MethodType):
        return _of_methods, function.__func__
    return _of_functions, function
