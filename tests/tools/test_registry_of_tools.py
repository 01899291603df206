from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from aether.errors import ConfigurationError, InputError, ToolError, UnknownNameError
from aether.llm.messages import ToolCall
from aether.registry import Registry
from aether.tools import (
    Tool,
    dispatch_tool,
    get_tool,
    list_tools,
    register_tool,
    resolve_tools,
)


@pytest.fixture
def registry() -> Registry:
    return Registry()


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_a_function_is_registered_and_returned_unchanged(registry: Registry) -> None:
    decorated = register_tool(registry=registry)(add)

    assert decorated is add
    assert add(1, 2) == 3
    assert vars(add) == {}
    tool = get_tool("add", registry=registry)
    assert isinstance(tool, Tool)
    assert (tool.name, tool.description, tool.handler) == ("add", "Add two numbers.", add)


def test_the_decorator_works_bare_in_the_registry_of_the_process(
    aether_registry: Registry,
) -> None:
    @register_tool
    def registered_bare(a: int) -> int:
        return a

    assert registered_bare(1) == 1
    assert get_tool("registered_bare").handler is registered_bare
    assert "registered_bare" in aether_registry.names("tool")


def test_options_are_kept(registry: Registry) -> None:
    register_tool(name="plus", description="Adds.", timeout=3.0, trusted=True, registry=registry)(
        add
    )

    tool = get_tool("plus", registry=registry)

    assert (tool.name, tool.description) == ("plus", "Adds.")
    assert (tool.timeout, tool.trusted) == (3.0, True)


def test_a_function_that_cannot_be_described_is_not_registered(registry: Registry) -> None:
    with pytest.raises(ToolError, match="'anything'"):

        @register_tool(registry=registry)
        def broken(anything) -> None:  # type: ignore[no-untyped-def]  # the point
            ...

    assert list_tools(registry=registry) == []


def test_another_function_of_the_same_name_is_an_error_unless_it_is_to_replace(
    registry: Registry,
) -> None:
    def other(a: int) -> int:
        return a

    register_tool(registry=registry)(add)

    with pytest.raises(ConfigurationError, match=r"add.*other"):
        register_tool(name="add", registry=registry)(other)
    assert get_tool("add", registry=registry).handler is add

    register_tool(name="add", registry=registry, replace=True)(other)
    assert get_tool("add", registry=registry).handler is other


def test_the_same_function_may_be_registered_again(registry: Registry) -> None:
    """As when a module is loaded anew or a notebook's cell is run twice."""

    def define() -> Callable[..., Any]:
        @register_tool(registry=registry)
        def cell(a: int) -> int:
            return a

        return cell

    define()
    second = define()

    assert get_tool("cell", registry=registry).handler is second


def test_tools_are_listed_by_name(registry: Registry) -> None:
    for name in ("c", "a", "b"):
        register_tool(name=name, registry=registry)(add)

    assert [tool.name for tool in list_tools(registry=registry)] == ["a", "b", "c"]


def test_an_unknown_name_lists_close_matches(registry: Registry) -> None:
    register_tool(registry=registry)(add)

    with pytest.raises(UnknownNameError, match="Did you mean 'add'"):
        get_tool("ad", registry=registry)
    with pytest.raises(UnknownNameError, match="Did you mean 'add'"):
        resolve_tools(["ad"], registry=registry)


async def test_a_registered_tool_is_dispatched_by_its_name(registry: Registry) -> None:
    register_tool(registry=registry)(add)

    result = await dispatch_tool(ToolCall("1", "add", {"a": 40, "b": "2"}), registry=registry)
    unknown = await dispatch_tool(ToolCall("1", "ad"), registry=registry)

    assert result.content == "42"
    assert unknown.is_error
    assert "Did you mean 'add'" in unknown.content


def test_a_plain_function_registered_by_kind_is_a_tool(registry: Registry) -> None:
    registry.add("tool", "plus", add)
    registry.add("tool", "nonsense", 5)

    assert get_tool("plus", registry=registry).name == "plus"
    assert get_tool("plus", registry=registry).handler is add
    with pytest.raises(ToolError, match="'nonsense'"):
        get_tool("nonsense", registry=registry)


class Delegate:
    """Stands for an agent."""

    def as_tool(self, max_depth: int | None = None) -> Tool:
        return Tool("delegate", "Delegates.", {"type": "object"}, add)


def test_names_tools_functions_and_agents_are_resolved_in_order(registry: Registry) -> None:
    def local(x: str) -> str:
        return x

    register_tool(name="plus", registry=registry)(add)
    by_hand = Tool("by_hand", "", {"type": "object"}, local)

    resolved = resolve_tools([local, "plus", by_hand, Delegate()], registry=registry)  # type: ignore[list-item]  # an agent is no callable

    assert list(resolved) == ["local", "plus", "by_hand", "delegate"]
    assert resolved["by_hand"] is by_hand
    assert resolved["local"].handler is local


def test_a_registered_function_keeps_its_registered_name(registry: Registry) -> None:
    register_tool(name="plus", description="Adds.", timeout=3.0, registry=registry)(add)

    (tool,) = resolve_tools([add]).values()

    assert tool == get_tool("plus", registry=registry)


def test_a_tool_given_twice_counts_once(registry: Registry) -> None:
    register_tool(registry=registry)(add)

    assert list(resolve_tools([add, "add", add], registry=registry)) == ["add"]


def test_two_different_tools_of_one_name_are_refused() -> None:
    def first(a: int) -> int:
        return a

    tools = [Tool("add", "", {"type": "object"}, handler) for handler in (first, add)]

    with pytest.raises(InputError, match="'add'"):
        resolve_tools(tools)


@pytest.mark.parametrize("given", [5, None, int, Delegate, object(), {"name": "add"}])
def test_what_is_no_tool_says_what_is(given: Any) -> None:
    with pytest.raises(TypeError, match="a registered name, a Tool, a function or an object"):
        resolve_tools([given])


def test_a_single_name_is_no_sequence_of_tools() -> None:
    with pytest.raises(TypeError, match=r"tools=\['add'\]"):
        resolve_tools("add")


def test_as_tool_must_return_a_tool() -> None:
    class Broken:
        def as_tool(self) -> int:
            return 5

    with pytest.raises(TypeError, match="int, not a Tool"):
        resolve_tools([Broken()])  # type: ignore[list-item]  # the point


def test_the_schema_of_a_function_is_built_once() -> None:
    def local(x: str) -> str:
        return x

    first, second = resolve_tools([local]), resolve_tools([local])

    assert first["local"].parameters is second["local"].parameters


def test_the_schema_of_a_method_is_built_once_and_each_object_keeps_its_own() -> None:
    class Counter:
        def __init__(self, start: int) -> None:
            self.start = start

        def count(self, by: int) -> int:
            return self.start + by

    one, two = (resolve_tools([Counter(start).count])["count"] for start in (10, 20))

    assert one.parameters is two.parameters
    assert (one.handler(by=1), two.handler(by=1)) == (11, 21)
    with pytest.raises(ToolError, match="'self'"):
        resolve_tools([Counter.count])


def test_a_callable_object_that_cannot_be_remembered_is_a_tool_all_the_same() -> None:
    @dataclasses.dataclass
    class Unhashable:
        def __call__(self, x: str) -> str:
            return x

    class Slotted:
        __slots__ = ()

        def __call__(self, x: str) -> str:
            return x

    assert list(resolve_tools([Unhashable(), Slotted()])) == ["Unhashable", "Slotted"]


def test_a_function_given_as_a_tool_is_not_kept_alive() -> None:
    def local(x: str) -> str:
        return x

    resolve_tools([local])
    alive = weakref.ref(local)
    del local
    gc.collect()

    assert alive() is None
