"""Answers of a type: what is asked for, what is read, what is asked again, and how it fails."""

from __future__ import annotations

import copy
import datetime as dt
import enum
import importlib
import json
import threading
import typing
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NewType, NotRequired, TypedDict, TypeVar

import pytest
import typing_extensions
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    TypeAdapter,
    computed_field,
    field_validator,
)

from aether import Aether
from aether.engine import output as output_module
from aether.engine.output import output_type
from aether.errors import InputError, OutputError, ProviderError
from aether.events import EVENT_NAMES, Event
from aether.llm import ask
from aether.llm.contracts import LLMRequest, LLMResponse, StreamChunk, ToolCall
from aether.llm.messages import StructuredChunk, StructuredResponse
from aether.testing import FakeProvider

T = TypeVar("T")


class Person(BaseModel):
    name: str
    age: int = Field(ge=0)


@dataclass
class Point:
    x: int
    y: int = 0


class City(TypedDict):
    name: str
    people: NotRequired[int]


class Town(typing_extensions.TypedDict):
    name: str


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Box(BaseModel, Generic[T]):
    content: T


class Node(BaseModel):
    label: str
    children: list[Node] = []


class Chain(BaseModel):
    value: Chain | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]


class Named(BaseModel):
    model_config = ConfigDict(extra="forbid")
    first: str = Field(alias="firstName")
    last: str = Field(validation_alias=AliasChoices("lastName", "surname"))


class ByName(BaseModel):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=False)
    first: str = Field(alias="firstName")


class Square(BaseModel):
    side: int

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def area(self) -> int:
        return self.side**2


class Holder(BaseModel):
    value: int


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def _even(cls, number: int) -> int:
        if number == 13:
            raise RuntimeError("unlucky")
        if number % 2:
            raise ValueError("an even one, please")
        return number


Tree = typing_extensions.TypeAliasType("Tree", "dict[str, Tree] | list[Tree] | int")
Identifier = NewType("Identifier", int)
Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
PERSON = '{"name": "Ada", "age": 36}'


def client_of(*answers: Any) -> Aether:
    return Aether(FakeProvider(responses=list(answers)))


def fake_of(client: Aether) -> FakeProvider:
    fake = client.provider.inner  # type: ignore[attr-defined]  # cost tracking is around it
    assert isinstance(fake, FakeProvider)
    return fake


def cut(text: str, finish: Any = "length") -> LLMResponse:
    return LLMResponse(text, "fake", 3, 2, finish_reason=finish)


def in_value(value: Any) -> str:
    return json.dumps({"value": value})


# What comes out


@pytest.mark.parametrize(
    ("form", "answer", "value"),
    [
        (Person, PERSON, Person(name="Ada", age=36)),
        (Point, '{"x": 1}', Point(1)),
        (City, '{"name": "Rome"}', {"name": "Rome"}),
        (Town, '{"name": "Rome"}', {"name": "Rome"}),
        (list[City], in_value([{"name": "Rome"}]), [{"name": "Rome"}]),
        (Box[Point], '{"content": {"x": 1, "y": 2}}', Box[Point](content=Point(1, 2))),
        (
            Node,
            '{"label": "a", "children": [{"label": "b"}]}',
            Node(label="a", children=[Node(label="b")]),
        ),
        (Chain, '{"value": {"value": null}}', Chain(value=Chain())),
        (Holder, '{"value": 1}', Holder(value=1)),
        (list[Holder], in_value([{"value": 1}]), [Holder(value=1)]),
        (Pet, in_value({"kind": "dog"}), Dog(kind="dog")),
        (Cat | Dog, in_value({"kind": "cat", "lives": 9}), Cat(kind="cat", lives=9)),
        (
            Named,
            '{"firstName": "Ada", "lastName": "L"}',
            Named.model_validate({"firstName": "Ada", "surname": "L"}),
        ),
        (ByName, '{"first": "Ada"}', ByName.model_validate({"first": "Ada"})),
        (Square, '{"side": 3}', Square(side=3)),
        (Colour, in_value("red"), Colour.RED),
        (Literal["yes", "no"], in_value("no"), "no"),
        (int, in_value(42), 42),
        (int, "42", 42),
        (float, in_value(1), 1.0),
        (bool, in_value(False), False),
        (type(None), in_value(None), None),
        (Identifier, in_value(7), 7),
        (int | None, in_value(None), None),
        (int | str, in_value("1"), "1"),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (dict[str, int], '{"value": 1}', {"value": 1}),
        (set[int], in_value([1, 1, 2]), {1, 2}),
        (frozenset[str], in_value(["a"]), frozenset({"a"})),
        (tuple[int, str], in_value([1, "a"]), (1, "a")),
        (Sequence[int], in_value([1]), [1]),
        (Tree, in_value({"a": [1]}), {"a": [1]}),
        (dt.date, in_value("2020-02-29"), dt.date(2020, 2, 29)),
        (Decimal, in_value("1.10"), Decimal("1.10")),
        (bytes, in_value("abc"), b"abc"),
        (Annotated[int, Field(gt=3)], in_value(4), 4),
        (RootModel[list[int]], in_value([1]), RootModel[list[int]]([1])),
        (list[int], "[1, 2]", [1, 2]),
        (list[int], "```json\n[1, 2]\n```", [1, 2]),
        (Person, f"\n```\n{PERSON}\n```\n", Person(name="Ada", age=36)),
        (Any, in_value([1]), [1]),
        (Any, '{"a": 1}', {"a": 1}),
        (str, "Just text.", "Just text."),
        (str, '{"value": "x"}', '{"value": "x"}'),
        (str, "", ""),
    ],
)
async def test_an_answer_becomes_a_value_of_the_type(form: Any, answer: str, value: Any) -> None:
    async with client_of(answer) as client:
        got = await client.ask("?", output=form)
    assert got == value
    assert type(got) is type(value)


async def test_the_response_has_the_value_beside_its_text() -> None:
    async with client_of(PERSON) as client:
        response = await client.complete("Who?", output=Person)
    assert isinstance(response, StructuredResponse)
    assert response.output == Person(name="Ada", age=36)
    assert (response.text, response.finish_reason) == (PERSON, "stop")
    assert response.message.text == PERSON
    assert json.loads(response.model_dump_json())["output"] == {"name": "Ada", "age": 36}
    assert copy.deepcopy(response) == response


async def test_without_a_type_the_answer_is_text() -> None:
    async with client_of("one", "two") as client:
        assert await client.ask("?", output=None) == "one"
        response = await client.complete("?")
    assert type(response) is LLMResponse
    assert response.output is None


async def test_the_one_liner_takes_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("aether.llm.ask")  # the package has the function by this name
    monkeypatch.setattr(module, "_factory", lambda: client_of(in_value(3)))
    assert await ask("?", output=int) == 3


# What is asked


@pytest.mark.parametrize(
    "form",
    [Person, Point, City, Node, Chain, Box[int], Pet, int, list[Node], dict[str, int], Any, Colour],
)
async def test_the_schema_on_the_request_is_of_an_object(form: Any) -> None:
    async with Aether(FakeProvider("no")) as client:
        with pytest.raises(OutputError):
            await client.ask("?", output=form, output_retries=0)
        (request,) = fake_of(client).requests
    assert request.output_schema is not None
    assert request.output_schema["type"] == "object"
    own = form in (Person, Point, City, Node, Chain, Box[int]) or form == dict[str, int]
    assert own != (
        request.output_schema.get("required") == ["value"]
        and request.output_schema["additionalProperties"] is False
    )


async def test_text_has_no_schema() -> None:
    async with client_of("hi") as client:
        await client.ask("?", output=str)
        assert fake_of(client).requests[0].output_schema is None


async def test_who_changes_the_schema_of_a_request_changes_no_other() -> None:
    async with client_of(PERSON, PERSON) as client:
        await client.ask("?", output=Person)
        first = fake_of(client).requests[0].output_schema
        assert first is not None
        first["properties"]["name"].clear()
        await client.ask("?", output=Person)
        second = fake_of(client).requests[1].output_schema
        assert second is not None
        assert second["properties"]["name"]["type"] == "string"


async def test_a_default_without_a_json_form_is_left_out_quietly() -> None:
    class Odd(BaseModel):
        size: int | complex | None = Field(default_factory=int)
        token: Annotated[object, Field(description="any")] = object()

    async with client_of("{}") as client:
        assert (await client.ask("?", output=Odd)).size == 0


@pytest.mark.parametrize(
    "form",
    [
        *(object(), 5, "int", "Person", len, lambda: 1, typing.Callable[[], int], threading.Lock),
        *(Iterable[int], dict[str, list[typing.Iterable[int]]]),
    ],
)
async def test_what_has_no_schema_is_refused_before_anything_is_sent(form: Any) -> None:
    async with client_of() as client:
        with pytest.raises(InputError, match=r"^output="):
            await client.ask("?", output=form)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "integer"}, "of an object"),
        ({"anyOf": [{"type": "object"}]}, "of an object"),
        ([], "of an object"),
        ({"type": "object", "zz": object()}, "as JSON"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}, "refers to '#/\\$defs/A'"),
        ({"type": "object", "properties": {"a": {"$ref": "https://x/y"}}}, "refers to"),
    ],
)
async def test_a_schema_that_cannot_work_is_refused_before_anything_is_sent(
    schema: Any, said: str
) -> None:
    async with client_of() as client:
        with pytest.raises(InputError, match=said):
            await client.ask("?", output_schema=schema)
        assert fake_of(client).requests == []


async def test_a_schema_may_refer_to_its_parts() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a~1b"}, "again": {"$ref": "#"}},
        "$defs": {"a/b": {"type": "integer"}},
    }
    async with client_of("{}") as client:
        assert await client.ask("?", output_schema=schema) == "{}"
        assert fake_of(client).requests[0].output_schema == schema


async def test_a_schema_beside_a_type_is_refused() -> None:
    async with client_of() as client:
        with pytest.raises(TypeError, match="either output= or output_schema="):
            await client.ask("?", output=int, output_schema={"type": "object"})


@pytest.mark.parametrize("retries", [-1, True, 1.5, "2"])
async def test_retries_are_a_whole_number(retries: Any) -> None:
    async with client_of() as client:
        with pytest.raises(InputError, match="output_retries"):
            await client.ask("?", output=int, output_retries=retries)


# Asking again


async def test_the_model_is_shown_what_is_wrong() -> None:
    async with client_of("forty", in_value("x"), in_value(42)) as client:
        assert await client.ask("?", output=int) == 42
        first, second, third = fake_of(client).requests
        assert client.usage.total_requests == 3
    assert [message.role for message in second.messages] == ["user", "assistant", "user"]
    assert second.messages[1].text == "forty"
    assert "not JSON" in second.messages[2].text
    assert json.dumps(first.output_schema, separators=(",", ":")) in second.messages[2].text
    assert "valid integer" in third.messages[4].text
    assert first.output_schema == second.output_schema == third.output_schema


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_after_the_last_try_the_error_has_it_all(retries: int) -> None:
    answers = [f'{{"name": "Ada", "age": -{number}}}' for number in range(1, retries + 2)]
    async with client_of(*answers) as client:
        with pytest.raises(OutputError, match="not the Person") as caught:
            await client.ask("?", output=Person, output_retries=retries)
        usage = client.usage.by_model["fake-model"]
    error = caught.value
    assert error.text == answers[-1]
    assert error.response is not None
    assert error.response.text == answers[-1]
    assert len(error.problems) == 1
    assert error.problems[0].startswith("age: ")
    assert [message.text for message in error.messages if message.role == "assistant"] == answers
    assert error.usage is not None
    assert error.usage.requests == usage.requests == retries + 1
    assert error.usage.input_tokens == usage.input_tokens
    assert error.usage.output_tokens == usage.output_tokens


async def test_two_retries_are_the_default() -> None:
    async with Aether(FakeProvider("no")) as client:
        with pytest.raises(OutputError):
            await client.ask("?", output=int)
        assert len(fake_of(client).requests) == 3


@pytest.mark.parametrize("blank", ["", " \n"])
async def test_an_empty_answer_is_asked_again_without_an_empty_message(blank: str) -> None:
    async with client_of(blank, in_value(1)) as client:
        assert await client.ask("?", output=int) == 1
        messages = fake_of(client).requests[1].messages
    assert all(message.text.strip() for message in messages)


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        (int, in_value(1) + " I hope it helps."),
        (int, "Sure! " + in_value(1)),
        (int, "```\n```"),
        (int, "```"),
        (int, "```json\n1\n```\nor\n```json\n2\n```"),
        (float, '{"value": NaN}'),
        (float, "Infinity"),
        (list[float | None], '{"value": [NaN]}'),
        (float | None, '{"value": NaN}'),
        (int, in_value("many")),
        (int, in_value(None)),
        (int, "{}"),
        (int, '{"value": 1, "other": 2}'),
        (Named, '{"first": "Ada", "last": "L"}'),
        (Named, '{"firstName": "Ada", "lastName": "L", "age": 3}'),
        (ByName, '{"firstName": "Ada"}'),
        (Annotated[int, Field(gt=3)], in_value(3)),
        (tuple[int, str], in_value([1])),
        (dict[str, int], '{"paris": 2, "rome": null}'),
        (list[int], "[1, null]"),
        (City, '{"name": 7}'),
        (Literal["yes"], in_value("no")),
        (Pet, in_value({"kind": "bird"})),
        (Even, '{"number": 3}'),
    ],
)
async def test_what_does_not_fit_is_no_value(form: Any, answer: str) -> None:
    async with client_of(answer) as client:
        with pytest.raises(OutputError) as caught:
            await client.ask("?", output=form, output_retries=0)
    assert caught.value.problems
    assert caught.value.text == answer


async def test_a_validators_word_reaches_the_model() -> None:
    async with client_of('{"number": 3}', '{"number": 4}') as client:
        assert (await client.ask("?", output=Even)).number == 4
        assert "an even one, please" in fake_of(client).requests[1].messages[-1].text


async def test_a_validator_that_breaks_ends_the_run() -> None:
    async with client_of('{"number": 13}') as client:
        with pytest.raises(OutputError, match="RuntimeError: unlucky") as caught:
            await client.ask("?", output=Even)
    assert isinstance(caught.value.__cause__, RuntimeError)


async def test_many_problems_are_told_in_part() -> None:
    async with client_of(in_value(["x"] * 50), in_value([])) as client:
        assert await client.ask("?", output=list[int]) == []
        said = fake_of(client).requests[1].messages[-1].text
    assert said.count("valid integer") == 20
    assert "and 30 more" in said


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("form", "answer", "word"),
    [
        (Person, '{"name": "Ada', "max_tokens"),
        (Person, PERSON, "max_tokens"),
        (int, "12", "max_tokens"),
        (str, "Once upon", "max_tokens"),
    ],
)
async def test_an_answer_cut_off_is_an_error_at_once(
    form: Any, answer: str, word: str, *, stream: bool
) -> None:
    async with client_of(cut(answer)) as client:
        with pytest.raises(OutputError, match=word) as caught:
            await run(client, form, stream=stream)
    assert caught.value.text == answer
    assert caught.value.usage is not None
    assert caught.value.usage.requests == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_is_an_error_at_once(*, stream: bool) -> None:
    async with client_of(cut("I cannot help with that.", "content_filter")) as client:
        with pytest.raises(OutputError, match="refused") as caught:
            await run(client, Person, stream=stream)
    assert caught.value.text == "I cannot help with that."


async def test_a_text_that_ended_with_an_error_is_no_answer() -> None:
    async with client_of(cut("It is", "error")) as client:
        with pytest.raises(OutputError, match="ended it with an error") as caught:
            await client.complete("q", output=str)
    assert caught.value.text == "It is"


async def run(client: Aether, form: Any, *, stream: bool) -> Any:
    if not stream:
        return await client.ask("?", output=form)
    return [chunk async for chunk in client.stream("?", output=form)][-1].output


# Nulls of strict modes


class Loose(BaseModel):
    name: str
    size: int = 3
    note: str | None = None
    inner: Point | None = None
    friends: list[Loose] = []
    scores: dict[str, int] = {}


class Partial(TypedDict, total=False):
    name: str
    size: int


@pytest.mark.parametrize(
    ("form", "answer", "value"),
    [
        (Loose, {"name": "a", "size": None, "note": None}, Loose(name="a")),
        (Loose, {"name": "a", "inner": {"x": 1, "y": None}}, Loose(name="a", inner=Point(1))),
        (
            Loose,
            {"name": "a", "friends": [{"name": "b", "size": None, "friends": None}]},
            Loose(name="a", friends=[Loose(name="b")]),
        ),
        (list[Loose], {"value": [{"name": "a", "size": None}]}, [Loose(name="a")]),
        (Loose | Point, {"value": {"x": 1, "y": None}}, Point(1)),
        (dict[str, int] | Loose, {"value": {"name": "a", "size": None}}, Loose(name="a")),
        (list[Cat | Loose], {"value": [{"name": "a", "size": None}]}, [Loose(name="a")]),
        (Pet | Loose, {"value": {"kind": "dog", "lives": None}}, Dog(kind="dog")),
        (Partial, {"name": "a", "size": None}, {"name": "a"}),
        (dict[str, Point], {"a": {"x": 1, "y": None}}, {"a": Point(1)}),
        (tuple[int, Point], {"value": [1, {"x": 1, "y": None}]}, (1, Point(1))),
    ],
)
async def test_a_null_for_an_optional_property_counts_as_left_out(
    form: Any, answer: Any, value: Any
) -> None:
    async with client_of(json.dumps(answer)) as client:
        assert await client.ask("?", output=form) == value


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        (Loose, {"name": None}),
        (Loose, {"name": "a", "scores": {"x": None}}),
        (Loose, {"name": "a", "size": None, "inner": {"x": None}}),
        (Loose, {"name": "a", "friends": [None]}),
        (Loose, None),
        (dict[str, dict[str, int]], {"a": {"b": None}}),
    ],
)
async def test_another_null_is_no_value(form: Any, answer: Any) -> None:
    async with client_of(json.dumps(answer)) as client:
        with pytest.raises(OutputError):
            await client.ask("?", output=form, output_retries=0)


# Tools


def weigh(thing: str) -> int:
    return len(thing)


CALL = LLMResponse(
    "Let me see.", "fake", 7, 2, [ToolCall("1", "weigh", {"thing": "egg"})], "tool_calls"
)


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_run_until_the_model_answers(*, stream: bool) -> None:
    async with client_of(CALL, "well", in_value(3)) as client:
        options: Any = {"tools": [weigh], "tool_choice": "required", "output": int}
        if stream:
            chunks = [chunk async for chunk in client.stream("?", **options)]
            assert chunks[-1].output == 3
            used = client.usage.by_model
            assert chunks[-1].input_tokens == sum(each.input_tokens or 0 for each in used.values())
        else:
            assert await client.ask("?", **options) == 3
        requests = fake_of(client).requests
    assert [request.tool_choice for request in requests] == ["required", None, None]
    assert all(request.output_schema for request in requests)
    assert requests[1].messages[-1].text == "3"


async def test_a_forced_choice_is_not_forced_when_asked_again() -> None:
    async with client_of("no", in_value(3)) as client:
        await client.ask("?", tools=[weigh], tool_choice="weigh", output=int)
        assert [request.tool_choice for request in fake_of(client).requests] == ["weigh", None]


# Streams


async def test_a_stream_shows_what_has_come_and_ends_with_the_value() -> None:
    async with client_of(PERSON) as client:
        chunks = [chunk async for chunk in client.stream("?", output=Person)]
    *deltas, final = chunks
    assert "".join(chunk.text for chunk in chunks) == PERSON
    assert all(isinstance(chunk, StructuredChunk) for chunk in chunks)
    assert all(chunk.is_partial and chunk.output is None for chunk in deltas)
    assert deltas[0].partial == {}
    assert {"name": "Ad"} in [chunk.partial for chunk in deltas]
    assert deltas[-1].partial == {"name": "Ada", "age": 36}
    assert (final.is_partial, final.partial) == (False, None)
    assert final.output == Person(name="Ada", age=36)
    assert isinstance(final.response, StructuredResponse)
    assert final.response.output == final.output


async def test_a_partial_stays_what_it_was() -> None:
    async with client_of(in_value([1, 2, 3])) as client:
        chunks = [chunk async for chunk in client.stream("?", output=list[int])]
    assert [chunk.partial for chunk in chunks[:-1]] == [None, None, [], [1, 2], [1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("Sur", None),
        ("`", None),
        ("```js", None),
        ("```json\n", None),
        ('{"value"', None),
        ('{"value": [', []),
        ("[1, 2", [1]),
        ("12", None),
        ("12 of them are", None),
        ('{"value": [12', []),
        ('{"value": [12,', [12]),
        ('{"value": ["Rome', ["Rome"]),
        ('{"value": ["a\\', ["a"]),
        ('{"value": ["a\\ud83d\\ude', ["a"]),
        ('{"value": [tru', []),
        ('{"value": [NaN', None),
        ('```json\n{"value": ["a"]}\n``', ["a"]),
        ('```json\n{"value": ["a"]}\n```', ["a"]),
    ],
)
def test_a_preview_is_the_value_so_far(text: str, value: Any) -> None:
    assert output_type(list[Any]).preview(text) == value


async def test_asked_again_the_preview_starts_anew() -> None:
    async with client_of('{"name": "Bo", "age": -1}', PERSON) as client:
        chunks = [chunk async for chunk in client.stream("?", output=Person)]
    partials = [chunk.partial for chunk in chunks[:-1]]
    assert partials.index({"name": "Bo", "age": -1}) < len(partials) - 1 - partials[::-1].index({})
    assert partials[-1] == {"name": "Ada", "age": 36}
    assert [chunk.is_final for chunk in chunks].count(True) == 1


async def test_a_stream_without_an_answer_of_the_type_fails_with_the_usage() -> None:
    async with Aether(FakeProvider("no")) as client:
        seen = record(client)
        with pytest.raises(OutputError) as caught:
            await run(client, int, stream=True)
        assert client.usage.total_requests == 3
    assert caught.value.usage is not None
    assert caught.value.usage.requests == 3
    kept = [event for event in seen if event.name != "stream.chunk"]
    assert [event.name for event in kept] == ["stream.start", "stream.error"]
    assert kept[-1].error is caught.value


async def test_previews_that_nobody_reads_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noted(text: str, **options: Any) -> Any:
        read.append(text)
        return TypeAdapter(Any).validate_json(text)

    answer = in_value(list(range(1000)))
    async with client_of(answer) as client:
        monkeypatch.setattr(output_module, "from_json", noted)
        chunks = [chunk async for chunk in client.stream("?", output=list[int])]
    assert len(chunks) > 1000
    assert read == [answer]


async def test_leaving_a_stream_early_releases_it_at_once() -> None:
    class Endless(FakeProvider):
        closed = False

        async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
            try:
                yield StreamChunk('{"value": [')
                while True:
                    yield StreamChunk("1, ")
            finally:
                self.closed = True

    provider = Endless()
    async with Aether(provider) as client:
        seen = record(client)
        async with client.stream("?", output=list[int]) as chunks:
            async for chunk in chunks:
                if chunk.partial:
                    break
        assert provider.closed
    assert seen[-1].name == "stream.error"
    assert seen[-1].cancelled


def test_a_chunks_preview_is_neither_compared_nor_shown() -> None:
    chunk: StructuredChunk[int] = StructuredChunk("a", preview=lambda: 1)
    assert chunk == StructuredChunk("a", preview=lambda: 2)
    assert "preview" not in repr(chunk)


# Events and types


def record(client: Aether) -> list[Event]:
    seen: list[Event] = []
    for name in EVENT_NAMES:
        client.events.subscribe(name, seen.append)
    return seen


async def test_each_try_is_a_step_with_its_events() -> None:
    async with client_of("no", in_value(1)) as client:
        seen = record(client)
        await client.ask("?", output=int)
    assert [(event.name, event.turn) for event in seen] == [
        ("request.start", 1),
        ("request.complete", 1),
        ("request.start", 2),
        ("request.complete", 2),
    ]
    assert len({event.run_id for event in seen}) == 1
    assert len({event.call_id for event in seen}) == 2


async def test_a_providers_error_comes_through() -> None:
    async with client_of("no", ProviderError("down")) as client:
        with pytest.raises(ProviderError, match="down"):
            await client.ask("?", output=int)


async def test_the_order_of_a_union_decides_between_equals() -> None:
    class One(BaseModel):
        name: str

    class Other(BaseModel):
        name: str

    async with Aether(FakeProvider('{"value": {"name": "a"}}')) as client:
        assert type(await client.ask("?", output=One | Other)) is One
        assert type(await client.ask("?", output=Other | One)) is Other


async def test_a_type_that_cannot_be_hashed_is_a_type() -> None:
    form = Annotated[int, {"made": ["up"]}]
    with pytest.raises(TypeError):
        hash(form)
    async with client_of(in_value(1)) as client:
        assert await client.ask("?", output=form) == 1


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (list[int], r"list\[int\]"),
        (int | None, r"int \| None"),
        (Literal["a"], "Literal"),
        (Box[int], r"Box\[int\]"),
    ],
)
async def test_an_error_names_the_type(form: Any, name: str) -> None:
    async with client_of("no") as client:
        with pytest.raises(OutputError, match=f"not the (typing.)?{name}.* that was asked for"):
            await client.ask("?", output=form, output_retries=0)


def test_threads_may_ask_for_the_same_new_type_at_once() -> None:
    for number in range(20):
        form = Annotated[int, Field(gt=number), number]
        got: list[int] = []
        start = threading.Barrier(4)

        def go(form: Any = form, start: threading.Barrier = start, got: Any = got) -> None:
            start.wait()
            got.append(output_type(form).read(in_value(100)))

        threads = [threading.Thread(target=go) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [100] * 4


def test_white_space_without_end_is_refused_in_linear_time() -> None:
    with pytest.raises(ValueError, match="expected value"):
        output_type(int).read("```\n" + "\n" * 300_000 + "x")
