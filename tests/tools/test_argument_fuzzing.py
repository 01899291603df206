"""Arguments for any signature, as a model might send them: run as they were meant, or refused.

`ARGUMENT_CASES=1000000 make test ARGS=tests/tools/test_argument_fuzzing.py` tries so many; without
it there are 10,000. What is to come of each is said here, apart from the code and from pydantic;
the schema that a model is given must say the same.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Literal, Union

import pytest
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict

from aether.tools import Tool, ToolInvocation, build_tool
from aether.tools.dispatch import dispatch
from tests.tools.json_schema import conforms

CASES = int(os.environ.get("ARGUMENT_CASES", "10000"))
CASES_EACH = 40
"""Of one signature: to make a tool of it takes longer than to call it."""

# Types are made here while running, which a type checker cannot follow.
List: Any = list
Dict: Any = dict
Tuple: Any = tuple
typed_dict: Any = TypedDict

REFUSED = object()

Accepted = Sequence[Any]
"""What may be made of a value: several, where a union leaves the choice; none if it is refused."""


@dataclasses.dataclass
class Kind:
    """A type: its annotation, what it makes of a value, and values that it should make sense of."""

    annotation: Any
    accept: Callable[[Any], Accepted]
    likely: Callable[[Random], Any]


# --- the table of what is read as what --------------------------------------------------------

INT_TEXTS = {"3": 3, "-7": -7, " 12 ": 12, "+4": 4, "5.0": 5, "-0": 0, "9" * 30: int("9" * 30)}
FLOAT_TEXTS = {"0.5": 0.5, " 3 ": 3.0, "-1e3": -1000.0, "7": 7.0}
BOOL_TEXTS = {
    **dict.fromkeys(("true", "True", "T", "y", "YES", "on", "1"), True),
    **dict.fromkeys(("false", "FALSE", "f", "N", "no", "Off", "0"), False),
}
ODD_TEXTS = ("", " ", "x", "three", "3.5.1", "0x10", "nan", "Infinity", "1e999", "null", "\N{FULLWIDTH DIGIT THREE}", "9" * 5000)  # fmt: skip  # noqa: E501


def _int(value: Any) -> Accepted:
    if isinstance(value, bool):
        return ()
    if isinstance(value, int):
        return (value,)
    if isinstance(value, float):
        return (int(value),) if value.is_integer() and abs(value) < 2**63 else ()
    if not isinstance(value, str):
        return ()
    if value in INT_TEXTS:
        return (INT_TEXTS[value],)
    return (int(value),) if value in ("0", "1", "7", " 3 ") else ()


def _float(value: Any) -> Accepted:
    if isinstance(value, bool):
        return ()
    if isinstance(value, int):
        return (float(value),) if abs(value) < 10**300 else ()
    if isinstance(value, float):
        return (value,)
    if not isinstance(value, str):
        return ()
    if value in FLOAT_TEXTS or value in INT_TEXTS:
        return (float(value),)
    return (float(value),) if value in ("0", "1") else ()


def _bool(value: Any) -> Accepted:
    if isinstance(value, str):
        return (BOOL_TEXTS[value],) if value in BOOL_TEXTS else ()
    return (bool(value),) if isinstance(value, int | float) and value in (0, 1) else ()


def _str(value: Any) -> Accepted:
    return (value,) if isinstance(value, str) else ()


def _none(value: Any) -> Accepted:
    return (value,) if value is None else ()


SIMPLE = (
    Kind(int, _int, lambda r: r.choice([*INT_TEXTS, 0, 1, -5, 4.0, 10**30, 2**63])),
    Kind(float, _float, lambda r: r.choice([*FLOAT_TEXTS, 0.25, -3.0, 1e300, 7, 10**20, 0, 1])),
    Kind(bool, _bool, lambda r: r.choice([*BOOL_TEXTS, True, False, 0, 1, 1.0])),
    Kind(str, _str, lambda r: r.choice(["", "a", "3", "true", "\N{PILE OF POO}", "a\nb"])),
    Kind(None, _none, lambda r: None),
)


def _literal(*values: Any) -> Kind:
    def accept(value: Any) -> Accepted:
        if isinstance(value, bool):
            return (value,) if any(each is value for each in values) else ()
        if isinstance(value, int | float | str):
            return [
                each
                for each in values
                if each == value and isinstance(each, str) is isinstance(value, str)
            ]
        return ()

    return Kind(Literal[values], accept, lambda r: r.choice(values))


def _list(of: Kind) -> Kind:
    def accept(value: Any) -> Accepted:
        if not isinstance(value, list):
            return ()
        return [[]] if not value else _all([of.accept(each) for each in value], list)

    return Kind(
        List[of.annotation], accept, lambda r: [of.likely(r) for _ in range(r.randrange(4))]
    )


def _dict(of: Kind) -> Kind:
    def accept(value: Any) -> Accepted:
        if not isinstance(value, dict):
            return ()
        made = _all([of.accept(each) for each in value.values()], list)
        return [dict(zip(value, each, strict=True)) for each in made]

    return Kind(
        Dict[str, of.annotation],
        accept,
        lambda r: {r.choice("abcdefg"): of.likely(r) for _ in range(r.randrange(4))},
    )


def _tuple(first: Kind, second: Kind) -> Kind:
    def accept(value: Any) -> Accepted:
        if not isinstance(value, list) or len(value) != 2:
            return ()
        return _all([first.accept(value[0]), second.accept(value[1])], tuple)

    return Kind(
        Tuple[first.annotation, second.annotation],
        accept,
        lambda r: [first.likely(r), second.likely(r)],
    )


def _union(*kinds: Kind) -> Kind:
    def accept(value: Any) -> Accepted:
        return [made for kind in kinds for made in kind.accept(value)]

    annotation: Any = Union[tuple(kind.annotation for kind in kinds)]  # noqa: UP007 - of a tuple
    return Kind(annotation, accept, lambda r: r.choice(kinds).likely(r))


def _record(made_by: Callable[[Any], Any], annotation: Any, fields: Mapping[str, Kind]) -> Kind:
    def accept(value: Any) -> Accepted:
        if not isinstance(value, dict) or value.keys() != fields.keys():
            return ()
        made = _all([kind.accept(value[name]) for name, kind in fields.items()], list)
        return [made_by(dict(zip(fields, each, strict=True))) for each in made]

    def likely(random: Random) -> Any:
        value = {name: kind.likely(random) for name, kind in fields.items()}
        match random.randrange(12):
            case 0:
                value["more"] = 1
            case 1:
                value.popitem()
        return value

    return Kind(annotation, accept, likely)


def _all(accepted: Sequence[Accepted], make: Callable[[Any], Any]) -> Accepted:
    """Each way to choose one of what may be made of each."""
    made: list[list[Any]] = [[]]
    for choices in accepted:
        made = [[*before, each] for before in made for each in choices][:256]
    return [make(each) for each in made]


def any_kind(random: Random, depth: int = 0) -> Kind:
    match random.randrange(6 if depth > 2 else 13):
        case 0 | 1 | 2 | 3 | 4:
            return random.choice(SIMPLE)
        case 5:
            return _literal(*random.sample(["a", "1", 1, 0, 7, True, "x"], random.randrange(1, 4)))
        case 6:
            return _list(any_kind(random, depth + 1))
        case 7:
            return _dict(any_kind(random, depth + 1))
        case 8:
            return _tuple(any_kind(random, depth + 1), any_kind(random, depth + 1))
        case 9:
            return _union(any_kind(random, depth + 1), SIMPLE[4])
        case 10:
            return _union(any_kind(random, depth + 1), any_kind(random, depth + 1))
    fields = {name: any_kind(random, depth + 1) for name in random.sample("pqr", 2)}
    annotations = {name: kind.annotation for name, kind in fields.items()}
    if random.random() < 0.5:
        return _record(dict, typed_dict("Record", annotations), fields)
    cls = dataclasses.make_dataclass("Record", annotations.items())
    return _record(lambda given: cls(**given), cls, fields)


def any_json(random: Random, depth: int = 0) -> Any:
    match random.randrange(8 if depth > 2 else 11):
        case 0:
            return None
        case 1:
            return random.choice([True, False])
        case 2 | 3:
            return random.choice([0, 1, 2, -1, 10**30, 10**400, 2**64])
        case 4:
            return random.choice([0.0, 1.0, 2.5, -0.0, 1e300])
        case 5 | 6:
            return random.choice([*ODD_TEXTS, *INT_TEXTS, *BOOL_TEXTS, "a"])
        case 7:
            return random.choice([[], {}])
        case 8 | 9:
            return [any_json(random, depth + 1) for _ in range(random.randrange(4))]
    return {random.choice("pqrab"): any_json(random, depth + 1) for _ in range(3)}


# --- signatures and calls ---------------------------------------------------------------------


class Tried:
    """One signature as a tool, which notes what it is called with."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.kinds = {name: any_kind(random) for name in random.sample("abcd", random.randrange(5))}
        names = sorted(self.kinds, key=lambda _: random.random())
        self.optional = names[random.randrange(len(names) + 1) :]
        self.extras = any_kind(random) if random.random() < 0.25 else None
        self.ran: list[dict[str, Any]] = []
        self.default = object()
        self.tool = self._tool(names)

    def _tool(self, names: Sequence[str]) -> Tool:
        others = ["**others"] if self.extras else []
        parameters = [f"{name}=default" if name in self.optional else name for name in names]
        given = [f"{name}={name}" for name in names]
        namespace: dict[str, Any] = {"default": self.default, "ran": self.ran}
        exec(
            f"async def tried({', '.join(parameters + others)}):\n"
            f"    ran.append(dict({', '.join(given + others)}))",
            namespace,
        )
        tried = namespace["tried"]
        tried.__annotations__ = {name: kind.annotation for name, kind in self.kinds.items()}
        if self.extras:
            tried.__annotations__["others"] = self.extras.annotation
        return build_tool(tried)

    def arguments(self) -> dict[str, Any]:
        random = self._random
        made = {}
        for name, kind in self.kinds.items():
            if random.random() < (0.4 if name in self.optional else 0.04):
                continue
            made[name] = any_json(random) if random.random() < 0.15 else kind.likely(random)
        if random.random() < (0.5 if self.extras else 0.06):
            kind = self.extras or SIMPLE[0]
            made["more"] = kind.likely(random) if random.random() < 0.8 else any_json(random)
        return made

    def expected(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """What the function may be called with; nothing if it may not be."""
        names = list(arguments)
        accepted: list[Accepted] = []
        for name in names:
            kind = self.kinds.get(name, self.extras)
            accepted.append(() if kind is None else kind.accept(arguments[name]))
        missing = [name for name in self.kinds if name not in arguments]
        if any(name not in self.optional for name in missing):
            return ()
        return [
            {**dict.fromkeys(missing, self.default), **dict(zip(names, made, strict=True))}
            for made in _all(accepted, list)
        ]


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types at every depth."""
    if type(one) is not type(other):
        return False
    if dataclasses.is_dataclass(one):
        return same(vars(one), vars(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(each, other[k]) for k, each in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) and not (
        isinstance(one, float) and math.copysign(1, one) != math.copysign(1, other)
    )


def too_great(sent: Any) -> bool:
    """Whether there is a number in it that a schema takes and Python's types do not."""
    if isinstance(sent, dict):
        return any(map(too_great, sent.values()))
    if isinstance(sent, list):
        return any(map(too_great, sent))
    return isinstance(sent, int | float) and abs(sent) >= 2**63


@pytest.mark.row("T8")
async def test_any_arguments_of_any_signature_are_run_as_meant_or_refused() -> None:
    accepted = refused = unsure = 0
    for seed in range(-(-CASES // CASES_EACH)):
        tried = Tried(Random(seed))
        schema = json.loads(json.dumps(tried.tool.parameters))
        for _ in range(CASES_EACH):
            arguments = tried.arguments()
            sent = copy.deepcopy(arguments)
            expected = tried.expected(sent)
            tried.ran.clear()

            call = ToolInvocation(id="c", name="tried", arguments=arguments)
            result = await dispatch(call, tried.tool)

            where = f"seed {seed}: {tried.tool.parameters} given {sent!r}: {result.content[:300]}"
            assert same(call.arguments, sent), where
            if expected and "has a boolean where a number" in result.content:
                unsure += 1  # of two alternatives one would have made a number of it: refused
                assert "True" in repr(sent) or "False" in repr(sent), where
                assert tried.ran == [], where
            elif expected:
                accepted += 1
                assert not result.is_error, where
                (ran,) = tried.ran
                assert any(same(ran, each) for each in expected), f"{where} {ran} {expected}"
                given = {name: each for name, each in ran.items() if each is not tried.default}
                assert conforms(to_jsonable_python(given), schema, schema), where
            else:
                refused += 1
                assert result.error_type == "InvalidArguments", where
                assert tried.ran == [], where
                assert len(result.content.encode()) <= 2048
                assert not conforms(sent, schema, schema) or too_great(sent), where
    assert accepted > CASES / 4
    assert refused > CASES / 10
    assert unsure < CASES / 1000
