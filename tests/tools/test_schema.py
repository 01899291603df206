from __future__ import annotations

import dataclasses
import enum
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from aether.errors import ToolError
from aether.tools import Tool, build_tool


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Place(BaseModel):
    """Somewhere."""

    title: str
    latitude: float = Field(description="Degrees north.")


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


@dataclasses.dataclass
class Span:
    start: int
    end: int = 0


class Options(TypedDict):
    limit: int
    tag: NotRequired[str]


class Bounds(TypedDict):
    low: float


class Nested(TypedDict, total=False):
    options: Options
    many: list[Bounds]


def schema_of(annotation: Any) -> Any:
    def function(value):  # type: ignore[no-untyped-def]  # annotated below
        ...

    function.__annotations__ = {"value": annotation}
    return build_tool(function).parameters["properties"]["value"]


def properties(tool: Tool) -> Any:
    return tool.parameters["properties"]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Mapping[str, str], {"type": "object", "additionalProperties": {"type": "string"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a"], {"type": "string", "const": "a"}),
        (Unit, {"type": "string", "enum": ["c", "f"]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045 - as users write it
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (date, {"type": "string", "format": "date"}),
        (datetime, {"type": "string", "format": "date-time"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Path, {"type": "string", "format": "path"}),
        (Annotated[int, Field(ge=1, le=9)], {"type": "integer", "minimum": 1, "maximum": 9}),
        (
            Place,
            {
                "type": "object",
                "description": "Somewhere.",
                "properties": {
                    "title": {"type": "string"},
                    "latitude": {"type": "number", "description": "Degrees north."},
                },
                "required": ["title", "latitude"],
            },
        ),
        (
            Span,
            {
                "type": "object",
                "properties": {
                    "start": {"type": "integer"},
                    "end": {"type": "integer", "default": 0},
                },
                "required": ["start"],
                "additionalProperties": False,
            },
        ),
        (
            Options,
            {
                "type": "object",
                "properties": {"limit": {"type": "integer"}, "tag": {"type": "string"}},
                "required": ["limit"],
                "additionalProperties": False,
            },
        ),
    ],
    ids=str,
)
def test_an_annotation_is_described(annotation: Any, expected: Any) -> None:
    assert schema_of(annotation) == expected


def test_typed_dictionaries_are_described_inside_other_types() -> None:
    options = schema_of(Options)

    assert schema_of(list[Options]) == {"type": "array", "items": options}
    assert schema_of(Options | None) == {"anyOf": [options, {"type": "null"}]}
    assert schema_of(Nested)["properties"] == {
        "options": options,
        "many": {"type": "array", "items": schema_of(Bounds)},
    }
    assert "required" not in schema_of(Nested)


def test_a_parameter_without_a_default_is_required() -> None:
    def search(query: str, limit: int = 10, tags: list[str] = ["x"]) -> None:  # noqa: B006
        ...

    assert build_tool(search).parameters == {
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "limit": {"type": "integer", "default": 10},
            "tags": {"type": "array", "items": {"type": "string"}, "default": ["x"]},
        },
        "required": ["query"],
        "additionalProperties": False,
    }


def test_a_function_without_parameters_takes_an_empty_object() -> None:
    def ping() -> None: ...

    assert build_tool(ping).parameters == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }


def test_defaults_are_written_as_json_where_they_have_a_form() -> None:
    missing = object()

    def function(
        unit: Unit = Unit.CELSIUS,
        when: date = date(2026, 1, 2),
        price: Decimal = Decimal("1.50"),
        place: Any = missing,
        span: Span | None = None,
    ) -> None: ...

    shown = {
        name: part.get("default", "none") for name, part in properties(build_tool(function)).items()
    }

    assert shown == {
        "unit": "c",
        "when": "2026-01-02",
        "price": "1.50",
        "place": "none",
        "span": None,
    }


def test_a_default_of_none_allows_null() -> None:
    def function(limit: int = None) -> None:  # type: ignore[assignment]  # noqa: RUF013 - users do
        ...

    assert properties(build_tool(function))["limit"] == {
        "anyOf": [{"type": "integer"}, {"type": "null"}],
        "default": None,
    }


def test_fields_of_pydantic_are_understood_as_defaults() -> None:
    def function(
        limit: int = Field(3, ge=1, description="How many."),
        tags: list[str] = Field(default_factory=list),  # noqa: B008 - as pydantic's users write it
        query: str = Field(description="What."),
    ) -> None: ...

    tool = build_tool(function)

    assert properties(tool)["limit"] == {
        "type": "integer",
        "minimum": 1,
        "default": 3,
        "description": "How many.",
    }
    assert tool.parameters["required"] == ["query"]
    assert tool.validate is not None
    assert tool.validate({"query": "a"}) == {"limit": 3, "tags": [], "query": "a"}


def test_the_docstring_describes_the_tool_and_its_parameters() -> None:
    def search(query: str, unit: Unit, place: Place) -> None:
        """Search for it.

        Everywhere.

        Args:
            query: What to look for, e.g. "rain": words.
            unit: The unit.
            place: The place.
        """

    tool = build_tool(search)

    assert tool.name == "search"
    assert tool.description == "Search for it.\n\nEverywhere."
    assert properties(tool)["query"]["description"] == 'What to look for, e.g. "rain": words.'
    assert properties(tool)["unit"]["description"] == "The unit."
    assert build_tool(search, description="Other.").description == "Other."


def test_a_description_beside_the_annotation_beats_the_docstring() -> None:
    def search(
        query: Annotated[str, "The query."],
        limit: Annotated[int, Field(description="The limit.")] = 3,
    ) -> None:
        """Search.

        Args:
            query: Something else.
            limit: Something else.
        """

    shown = properties(build_tool(search))

    assert shown["query"]["description"] == "The query."
    assert shown["limit"]["description"] == "The limit."


def test_titles_are_left_out_but_a_parameter_may_be_named_title() -> None:
    def write(title: str, place: Place, default: int = 1) -> None: ...

    parameters = build_tool(write).parameters

    assert set(parameters["properties"]) == {"title", "place", "default"}
    assert "title" in parameters["properties"]["place"]["properties"]
    assert "title" not in parameters["properties"]["title"]
    assert "title" not in parameters["properties"]["place"]


@pytest.mark.parametrize("name", ["copy", "json", "schema", "model_config", "_private", "self_"])
def test_any_parameter_name_will_do(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def function({name}: int): ...", namespace)

    tool = build_tool(namespace["function"])

    assert tool.validate is not None
    assert tool.validate({name: "3"}) == {name: 3}


def test_a_definition_used_twice_is_written_once() -> None:
    def convert(value: float, source: Unit, target: Unit) -> None: ...

    parameters = build_tool(convert).parameters

    assert parameters["$defs"] == {"Unit": {"type": "string", "enum": ["c", "f"]}}
    assert parameters["properties"]["source"] == {"$ref": "#/$defs/Unit"}


def test_a_type_that_contains_itself_stays_a_reference() -> None:
    def grow(tree: Tree) -> None: ...

    parameters = build_tool(grow).parameters

    assert parameters["properties"]["tree"] == {"$ref": "#/$defs/Tree"}
    assert parameters["$defs"]["Tree"]["properties"]["children"]["items"] == {
        "$ref": "#/$defs/Tree"
    }


def test_keyword_arguments_open_the_schema() -> None:
    def anything(a: int, **rest: object) -> None: ...
    def numbers(**rest: int) -> None: ...

    assert build_tool(anything).parameters["additionalProperties"] is True
    assert build_tool(numbers).parameters["additionalProperties"] == {"type": "integer"}


def test_methods_partials_objects_and_async_functions_make_tools() -> None:
    class Searcher:
        """Searches."""

        def find(self, query: str) -> str:
            """Find it."""
            return query

        @classmethod
        def count(cls, query: str) -> int:
            return len(query)

        @staticmethod
        def shout(query: str) -> str:
            return query.upper()

        async def __call__(self, query: str) -> str:
            return query

    async def fetch(url: str, retries: int = 0) -> str:
        """Fetch it."""
        return url

    only = {"query": {"type": "string"}}
    searcher = Searcher()
    assert properties(build_tool(searcher.find)) == only
    assert build_tool(searcher.find).name == "find"
    assert build_tool(searcher.find).description == "Find it."
    assert properties(build_tool(Searcher.count)) == only
    assert properties(build_tool(Searcher.shout)) == only
    assert properties(build_tool(searcher)) == only
    assert build_tool(searcher).name == "Searcher"
    assert build_tool(searcher).description == "Searches."
    partial = build_tool(functools.partial(fetch, retries=3))
    assert properties(partial) == {"url": {"type": "string"}}
    assert (partial.name, partial.description) == ("fetch", "Fetch it.")


def test_a_decorated_function_shows_the_signature_beneath() -> None:
    def inner(query: str) -> str:
        """Find it."""
        return query

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    assert properties(build_tool(outer)) == {"query": {"type": "string"}}
    assert build_tool(outer).handler is outer


def test_a_class_defined_beside_the_function_is_found() -> None:
    class Local(BaseModel):
        x: int

    def function(value: Local, many: list[Local]) -> None: ...

    assert "$ref" in properties(build_tool(function))["value"]


def test_a_return_annotation_that_cannot_be_read_does_not_matter() -> None:
    def function(value: int) -> NoSuchName:  # type: ignore[name-defined]  # noqa: F821
        ...

    assert properties(build_tool(function)) == {"value": {"type": "integer"}}


class Chain(TypedDict):
    next: NotRequired[Chain]


class Opaque:
    pass


def unannotated(query, limit: int = 3): ...  # type: ignore[no-untyped-def]  # the point


def positional(query: str, /) -> None: ...


def variable(*queries: str) -> None: ...


def opaque(query: str, thing: Opaque) -> None: ...


def unknown(query: str, thing: NoSuchName) -> None:  # type: ignore[name-defined]  # noqa: F821
    ...


def bad_pattern(query: Annotated[str, Field(pattern="(")]) -> None: ...


def callback(query: str, then: Callable[[], None]) -> None: ...


@pytest.mark.parametrize(
    ("function", "parameter", "reason"),
    [
        (unannotated, "'query'", "no type annotation"),
        (positional, "'query'", "positional-only"),
        (variable, "'*queries'", "no name"),
        (opaque, "'thing'", "Opaque"),
        (unknown, "'thing'", "NoSuchName"),
        (bad_pattern, "'query'", "regex"),
        (callback, "'then'", "JsonSchema"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_parameter_that_cannot_be_described_is_named_in_an_error(
    function: Any, parameter: str, reason: str
) -> None:
    with pytest.raises(ToolError) as raised:
        build_tool(function)

    message = str(raised.value)
    assert function.__name__ in message
    assert parameter in message
    assert reason in message
    assert "arbitrary_types_allowed" not in message


def test_extra_keyword_arguments_that_cannot_be_described_are_an_error() -> None:
    def function(**rest: Opaque) -> None: ...

    with pytest.raises(ToolError, match="function"):
        build_tool(function)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic describes it there")
def test_a_typed_dictionary_that_contains_itself_is_refused_on_python_3_11() -> None:
    def function(chain: Chain) -> None: ...

    with pytest.raises(ToolError, match="contains itself"):
        build_tool(function)


@pytest.mark.parametrize("thing", [5, "name", int, None, []])
def test_what_is_no_function_is_refused(thing: Any) -> None:
    with pytest.raises(ToolError, match="is no function"):
        build_tool(thing)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(ToolError, match="name="):
        build_tool(lambda: None)

    assert build_tool(lambda: None, name="ping").name == "ping"


@pytest.mark.parametrize("name", ["", "a b", "a.b", "naïve", "x" * 65, "a\n", "__class__()"])
def test_a_name_that_providers_do_not_take_is_refused(name: str) -> None:
    with pytest.raises(ToolError, match="name"):
        build_tool(lambda: None, name=name)


@pytest.mark.parametrize("parameters", [{}, {"type": "string"}, [], None, "object"])
def test_a_tool_made_by_hand_needs_an_object_schema(parameters: Any) -> None:
    with pytest.raises(ToolError, match="type 'object'"):
        Tool(name="x", description="", parameters=parameters, handler=print)


def test_a_tool_made_by_hand_needs_a_handler_that_can_be_called() -> None:
    with pytest.raises(ToolError, match="handler"):
        Tool(name="x", description="", parameters={"type": "object"}, handler="print")  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_that_no_call_could_keep_is_refused(timeout: float) -> None:
    with pytest.raises(ToolError, match="timeout"):
        Tool("x", "", {"type": "object"}, print, timeout=timeout)
