"""The base of the data models, and what is said of values that are none of theirs.

It must not know a model: it explains any of them by the names of its fields. What a value holds is
in no message: it may be a secret, or an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import VERSION, BaseModel, ConfigDict, ValidationError

from aether.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from pydantic_core import ErrorDetails

__all__ = ["Data", "made_of", "problems_in"]

# Building the models is an eighth of `import aether`. Before pydantic 2.14 it has to be done there:
# threads that built a model at once could break it, and an unbuilt part could not be serialised.
_BUILT_AT_FIRST_USE = tuple(map(int, VERSION.split(".")[:2])) >= (2, 14)

D = TypeVar("D", bound="Data")

MOST_PROBLEMS = 5
_LONGEST_PLACE = 120  # characters: the keys of a dict are anybody's
_SHOULD_BE = {
    "bool_type": "a bool",
    "bytes_invalid_encoding": "bytes, or base64 of them",
    "bytes_type": "bytes",
    "dict_type": "a dict",
    "float_type": "a number",
    "int_type": "an int",
    "list_type": "a list",
    "string_type": "a str",
    "tuple_type": "a list",
}


class Data(BaseModel):
    """The base of the data models: frozen, strict about names, leading fields by position too.

    Making one of values that do not fit is an `InputError`; pydantic's own error is its cause.
    Reading one that was stored, by `model_validate_json` and the like, raises pydantic's.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        defer_build=_BUILT_AT_FIRST_USE,
        hide_input_in_errors=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    _leading: ClassVar[tuple[str, ...]] = ()
    """The fields that may be given by position, in their order."""
    _left_out: ClassVar[dict[str, Any]] = {}
    """All fields, in their order, with their defaults, if these are not made anew each time."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        fields = cls.model_fields
        cls._leading = tuple(n for n, f in fields.items() if f.kw_only is False)
        cls._left_out = {n: f.default for n, f in fields.items()}

    if not TYPE_CHECKING:  # checkers read the signature off the fields that have kw_only=False

        def __init__(self, *args: Any, **data: Any) -> None:
            if args:
                _name(args, data, type(self))
            try:
                # As pydantic's own RootModel does, here and below: these are made in large numbers.
                self.__pydantic_validator__.validate_python(data, self_instance=self)
            except ValidationError as error:
                problems = "; ".join(problems_in(error))
                raise InputError(f"{type(self).__name__}: {problems}.") from error

        # Validation need not come through here for each model that it makes, which would take it
        # more than twice as long.
        __init__.__pydantic_base_init__ = True

    def __copy__(self) -> Self:
        """As pydantic's own, which asks for each part how it is copied."""
        if self.__private_attributes__ or self.__pydantic_extra__ is not None:  # a subclass's
            return super().__copy__()
        return _made(type(self), self.__dict__.copy(), self.__pydantic_fields_set__.copy())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's own, which copies first and changes the copy then."""
        if deep or self.__private_attributes__ or self.__pydantic_extra__ is not None:
            return super().model_copy(update=update, deep=deep)
        changes = update or {}
        fields_set = self.__pydantic_fields_set__.union(changes)
        return _made(type(self), {**self.__dict__, **changes}, fields_set)


def made_of(cls: type[D], values: dict[str, Any]) -> D:
    """One of values that are known to fit: to check them takes longer than all else. All that must
    be given, or are made anew each time, are given.
    """
    return _made(cls, cls._left_out | values, set(values))


_set = object.__setattr__  # of what is frozen


def _made(cls: type[D], fields: dict[str, Any], fields_set: set[str]) -> D:
    made = object.__new__(cls)
    _set(made, "__dict__", fields)
    _set(made, "__pydantic_fields_set__", fields_set)
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made


def _name(args: tuple[Any, ...], data: dict[str, Any], cls: type[Data]) -> None:
    """Put the values that were given by position under the names of their fields."""
    names = cls._leading
    if len(args) > len(names):
        raise TypeError(
            f"{cls.__name__} takes at most {len(names)} positional arguments: {', '.join(names)}"
        )
    for name, value in zip(names, args, strict=False):
        if name in data:
            raise TypeError(f"{cls.__name__} got {name!r} twice")
        data[name] = value


def problems_in(error: ValidationError) -> list[str]:
    """What is wrong, in plain words, each problem with its field; of many, the first few."""
    found = error.errors(include_url=False, include_input=False)
    told = [_told(each) for each in found if not _follows_from_another(each)]
    left_out = len(told) - MOST_PROBLEMS
    return told if left_out <= 0 else [*told[:MOST_PROBLEMS], f"and {left_out} more"]


def _told(problem: ErrorDetails) -> str:
    place = _place(problem["loc"])
    kind = problem["type"]
    context = problem.get("ctx", {})
    if kind == "missing":
        return f"{place} is missing"
    if kind == "extra_forbidden":
        return f"there is no field {place}"
    if kind in _SHOULD_BE:
        return f"{place or 'it'} should be {_SHOULD_BE[kind]}"
    if kind == "model_type":
        return f"{place or 'it'} should be a {context['class_name']}"
    if kind == "value_error":
        text = str(context["error"])
    elif kind in ("union_tag_invalid", "union_tag_not_found", "model_attributes_type"):
        text = "it is no part of a known type"
        if "expected_tags" in context:
            text += f", which are {context['expected_tags']}"
    else:
        text = problem["msg"].replace("Input should", "it should", 1)
    text = text.rstrip(".")
    if place and text.startswith("it "):
        return place + text.removeprefix("it")
    return f"{place}: {text}" if place else text


def _follows_from_another(problem: ErrorDetails) -> bool:
    """Whether it is there because of another problem, and says nothing of its own.

    Where a content has something wrong in it, pydantic tells of both that it may be, a text and a
    list. And a default that is made of other fields is not made if one of them is wrong.
    """
    if problem["type"] == "default_factory_not_called":
        return True
    inside_content = problem["loc"][-2:-1] == ("content",)
    return inside_content and problem["type"] in ("string_type", "list_type")


def _place(loc: tuple[int | str, ...]) -> str:
    """`content[1].media_type`: without pydantic's words for the alternatives it has tried."""
    place = ""
    for at, step in enumerate(loc):
        if isinstance(step, int):
            place += f"[{step}]"
        elif not _is_alternative(loc[:at]):
            place += f".{step}" if place else step
    return place if len(place) <= _LONGEST_PLACE else f"{place[:_LONGEST_PLACE]}..."


def _is_alternative(before: tuple[int | str, ...]) -> bool:
    """Whether a name behind these steps is that of an alternative: text or list, kind of a part."""
    return before[-1:] == ("content",) or (
        before[-3:-2] == ("content",) and isinstance(before[-1], int)
    )
