"""The schema and the validation of generated signatures agree."""

from __future__ import annotations

import dataclasses
import enum
import typing
from typing import Any, Literal, NamedTuple

import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import create_model
from pydantic_core import to_jsonable_python

from aether.tools import Tool, build_tool
from tests.tools.json_schema import conforms

names = st.sampled_from(["a", "b", "title", "type", "properties", "schema", "_x", "größe"])
Json = Any


# Types are made here while running, which a type checker cannot follow.
List: Any = list
Dict: Any = dict
Tuple: Any = tuple
Union: Any = typing.Union
standard_typed_dict: Any = typing.TypedDict
backported_typed_dict: Any = typing_extensions.TypedDict
make_model: Any = create_model


class Case(NamedTuple):
    """An annotation, and values as a model would send them."""

    annotation: Any
    values: st.SearchStrategy[Json]


class Colour(enum.Enum):
    RED = "red"
    ONE = "1"


LEAVES = [
    Case(str, st.text(max_size=5)),
    Case(int, st.integers(-(2**53), 2**53)),
    Case(float, st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9)),
    Case(bool, st.booleans()),
    Case(None, st.none()),
    Case(Colour, st.sampled_from(["red", "1"])),
    Case(Literal["x", "y"], st.sampled_from(["x", "y"])),
    Case(Literal[2, 3], st.sampled_from([2, 3])),  # not 1, which pydantic takes `True` for
]


def _record(kind: str, fields: dict[str, Case]) -> Case:
    # A model takes no field whose name begins with an underscore, nor one of its own attributes.
    cases = {f"f{name}": case for name, case in fields.items()}
    annotations: Any = {name: case.annotation for name, case in cases.items()}
    values = st.fixed_dictionaries({name: case.values for name, case in cases.items()})
    record: Any
    match kind:
        case "dataclass":
            record = dataclasses.make_dataclass("Record", annotations.items())
        case "model":
            record = make_model(
                "Record", **{name: (part, ...) for name, part in annotations.items()}
            )
        case "typed dictionary":
            record = backported_typed_dict("Record", annotations)
        case _:
            record = standard_typed_dict("Record", annotations)
    return Case(record, values)


def _collections(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    return st.one_of(
        inner.map(lambda case: Case(List[case[0]], st.lists(case.values, max_size=3))),
        inner.map(
            lambda case: Case(
                Dict[str, case[0]],
                st.dictionaries(st.text(max_size=3), case.values, max_size=3),
            )
        ),
        inner.map(lambda case: Case(Union[case[0], None], st.none() | case.values)),
        st.tuples(inner, inner).map(
            lambda pair: Case(
                Union[pair[0].annotation, pair[1].annotation],
                pair[0].values | pair[1].values,
            )
        ),
        st.tuples(inner, inner).map(
            lambda pair: Case(
                Tuple[pair[0].annotation, pair[1].annotation],
                st.tuples(pair[0].values, pair[1].values).map(list),
            )
        ),
    )


def _records(inner: st.SearchStrategy[Case], *kinds: str) -> st.SearchStrategy[Case]:
    fields = st.dictionaries(names, inner, min_size=1, max_size=3)
    return st.builds(_record, st.sampled_from(kinds), fields)


nested = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: _collections(inner) | _records(inner, "dataclass", "model", "typed dictionary"),
    max_leaves=4,
)
# Inside of its own models pydantic refuses the standard library's, before Python 3.12.
standard = _records(nested, "standard typed dictionary")
cases = nested | standard | _collections(standard)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(-9, 9)
    | st.sampled_from(["", "1", "red", "x", "true", "2.5"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


def tool_of(annotations: dict[str, Any], defaults: dict[str, Any]) -> Tool:
    parameters = ", ".join(
        f"{name}=defaults[{name!r}]" if name in defaults else name
        for name in sorted(annotations, key=lambda name: name in defaults)
    )
    namespace: dict[str, Any] = {"defaults": defaults}
    exec(f"def function({parameters}): ...", namespace)
    namespace["function"].__annotations__ = dict(annotations)
    return build_tool(namespace["function"])


def validate(tool: Tool, arguments: dict[str, Json]) -> dict[str, Any]:
    assert tool.validate is not None
    return tool.validate(arguments)


@pytest.mark.row("T8")
@given(st.data(), st.dictionaries(names, cases, max_size=3))
@settings(deadline=None)
def test_what_fits_the_annotations_fits_the_schema_and_is_accepted(
    data: st.DataObject, parameters: dict[str, Case]
) -> None:
    tool = tool_of({name: case.annotation for name, case in parameters.items()}, {})
    arguments = {name: data.draw(case.values) for name, case in parameters.items()}

    assert conforms(arguments, tool.parameters, tool.parameters)
    assert set(validate(tool, arguments)) == set(parameters)


@pytest.mark.row("T8")
@given(st.dictionaries(names, cases, max_size=2), st.dictionaries(names, json_values, max_size=3))
@settings(max_examples=300, deadline=None)
def test_the_schema_accepts_what_validation_accepts_coercions_aside(
    parameters: dict[str, Case], arguments: dict[str, Json]
) -> None:
    tool = tool_of({name: case.annotation for name, case in parameters.items()}, {})

    try:
        validated = validate(tool, arguments)
    except ValueError:
        assert not conforms(arguments, tool.parameters, tool.parameters)
        return

    again = to_jsonable_python(validated)
    assert conforms(again, tool.parameters, tool.parameters), "a coerced value is of the type"
    assert validate(tool, again) == validated, "and stays what it is"


@given(st.data(), st.dictionaries(names, cases, min_size=1, max_size=3))
@settings(deadline=None)
def test_defaults_make_parameters_optional_and_fit_their_own_schema(
    data: st.DataObject, parameters: dict[str, Case]
) -> None:
    annotations = {name: case.annotation for name, case in parameters.items()}
    sent = {name: data.draw(case.values) for name, case in parameters.items()}
    defaults = validate(tool_of(annotations, {}), sent)

    tool = tool_of(annotations, defaults)

    assert "required" not in tool.parameters
    assert validate(tool, {}) == defaults
    shown = {name: part["default"] for name, part in tool.parameters["properties"].items()}
    assert conforms(shown, tool.parameters, tool.parameters)


@pytest.mark.row("T8")
@given(st.dictionaries(names, cases, max_size=3), st.text(max_size=5), json_values)
@settings(deadline=None)
def test_a_name_that_is_no_parameter_is_refused(
    parameters: dict[str, Case], name: str, value: Json
) -> None:
    tool = tool_of(dict.fromkeys(parameters, Any), {})
    arguments = {**dict.fromkeys(parameters, 1), name: value}

    accepted = True
    try:
        validate(tool, arguments)
    except ValueError:
        accepted = False

    assert accepted == (name in parameters)
