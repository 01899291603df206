"""Texts that somebody chose to make work: a million characters of them are read in seconds.

Each case has so much time of this process that it runs out where all characters are gone through
again for each of them: that would take hours. To copy at each piece of a stream what came before is
much faster, so what is fed in pieces comes in a million of them, eight million characters in all:
that would take more than a minute.

The steps that Python takes are counted, too, and what twice as much input adds to them is twice as
much. What is done inside of C (patterns, JSON, pydantic, the copying of texts) is not seen so, and
is bounded by the time alone.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

import pytest

from aether.agent import Agent
from aether.errors import AetherError
from aether.extensions.llm._wire.errors import Source, clean, refusal
from aether.extensions.llm._wire.json_schema import strict_schema
from aether.extensions.llm._wire.retry_after import parse_retry_after
from aether.extensions.llm._wire.sse import SSEDecoder
from aether.extensions.llm._wire.thinking import ThinkingSplitter
from aether.extensions.tools._urls import parse_web_url
from aether.extensions.tools.file import read_file
from aether.extensions.tools.http import HTTPGetter
from aether.llm.contracts import ImagePart, ToolCall
from aether.registry import default_registry
from aether.tools import dispatch_tool
from aether.tools.docstrings import parse_docstring
from aether.tools.schema import build_tool
from tests.extension_tools.test_http_tool import Page, ScriptedTransport

N = 1_000_000
SECONDS = 20.0
PIECE = 8

Case = Callable[[int], object]
"""Something done with a text, or as many pieces or parts, of that size."""

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="needs a clock of the process"
)


class TooMuchWorkError(BaseException):
    """Raised in the middle of it, whatever it is."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Ends what uses the processor for longer. What other processes do does not count."""

    def stop(_: int, __: FrameType | None) -> None:
        raise TooMuchWorkError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def filled(*parts: str, size: int = N) -> str:
    """The last part so often that all is a million characters long, behind the others."""
    *head, again = parts
    start = "".join(head)
    return start + again * ((size - len(start)) // len(again))


DOCSTRINGS: list[tuple[str, ...]] = [
    ("a ",),
    ("a\n",),
    ("Args:\n",),
    ("Args:\n", "  x: y\n"),
    ("Args:\n    x", " (int):"),
    ("Args:\n    x: d", ". Defaults to "),
    ("Args:\n    ", "("),
    ("Args:\n    x", " "),
    ("Parameters\n---\n",),
    ("Parameters\n---\n", "x : int\n    y\n"),
    ("Parameters\n---", "-"),
    ("Parameters", " "),
    (":param x: y\n",),
    (":param ", "x "),
    (":param x: y\n", ":"),
    (":param x: y", " defaults to "),
]


def streamed(*parts: str) -> Case:
    """The last part again and again, behind the others, in so many pieces."""
    return lambda n: feed(SSEDecoder(), filled(*parts, size=n * PIECE).encode())


def thinking(*parts: str) -> Case:
    return lambda n: feed(ThinkingSplitter(), filled(*parts, size=n * PIECE))


def feed(reader: SSEDecoder | ThinkingSplitter, data: Any) -> None:
    for start in range(0, len(data), PIECE):
        reader.feed(data[start : start + PIECE])
    reader.close()


def refused(*parts: str, end: str = "") -> Case:
    return lambda n: refusal(
        400, (filled(*parts, size=n) + end).encode(), source=Source("p", "m", str)
    )


def many_parameters(n: int) -> object:
    names = [f"p{number}" for number in range(n // 500)]
    code = f"def many({': int, '.join(names)}: int): pass"
    scope: dict[str, Any] = {}
    exec(code, scope)
    return build_tool(scope["many"])


def long_description(n: int) -> object:
    def one(x: int) -> int:
        return x

    one.__doc__ = filled("Sum.\n\nArgs:\n    x: ", "word ", size=n)
    return build_tool(one)


def many_values(n: int) -> object:
    def one(x: Any) -> Any:
        return x

    one.__annotations__["x"] = Literal[tuple(f"value-{number}" for number in range(n // 20))]
    return build_tool(one)


def wide_schema(n: int) -> object:
    properties = {f"p{number}": {"type": "string"} for number in range(n // 50)}
    return strict_schema({"type": "object", "properties": properties})


CASES: dict[str, Case] = {
    "many parameters": many_parameters,
    "a long description": long_description,
    "many values": many_values,
    "a wide schema": wide_schema,
    "a pattern": lambda n: strict_schema(
        {"type": "object", "properties": {"a": {"type": "string", "pattern": filled("(", size=n)}}}
    ),
    "an event without end": streamed("data: ", "x"),
    "lines of an event without end": streamed("data: x\n"),
    "events": streamed("data: x\n\n"),
    "empty lines": streamed("\n"),
    "returns": streamed("\r"),
    "comments": streamed(":"),
    "thoughts": thinking("<think>"),
    "half tags": thinking("<think>", "</think"),
    "white space in thoughts": thinking("<think>", " "),
    "white space after thoughts": thinking("<think></think>", " "),
    "a refusal of braces": refused("{"),
    "a refusal of nests": refused('{"a":'),
    "a refusal of words": refused('{"error": {"message": "', "x ", end='"}}'),
    "control characters": lambda n: clean(filled("\0", size=n)),
    "days": lambda n: parse_retry_after({"retry-after": filled("Mon", size=n)}),
    "commas": lambda n: parse_retry_after({"retry-after": filled("Mon,", size=n)}),
    "digits": lambda n: parse_retry_after({"retry-after": filled("9", size=n)}),
    "a data URL": lambda n: ImagePart(url=filled("data:", ";base64 ", size=n)),
    "a data URL of spaces": lambda n: ImagePart(url=filled("data:;base64", " ", size=n) + "x,A"),
    "a media type": lambda n: ImagePart(data=b"x", media_type=filled("a/", size=n)),
    "a URL": lambda n: parse_web_url(filled("http://", "a.", size=n)),
    "a path": lambda n: read_file(filled("a/", size=n)),
    "a climb": lambda n: read_file(filled("../", size=n)),
    "the name of an agent": lambda n: Agent(filled("a é", size=n)).as_tool(),
    "the name of something": lambda n: default_registry.get("tool", filled("http_ge", size=n)),
    "arguments of brackets": lambda n: ToolCall.parse("1", "x", filled("[", size=n)),
    "arguments of nests": lambda n: ToolCall.parse("1", "x", filled('{"a":', size=n)),
    "arguments of digits": lambda n: ToolCall.parse("1", "x", filled('{"a":', "9", size=n) + "}"),
}


STRUCTURES = (many_parameters, many_values, wide_schema)
"""Those that have one part for many of the characters that they are counted as."""


@pytest.mark.row("X20")
@pytest.mark.parametrize("case", CASES)
def test_a_million_characters_or_pieces_are_read_in_seconds(case: str) -> None:
    with limited(SECONDS):
        try:
            CASES[case](N)
        except AetherError as error:
            assert len(str(error)) < 2 * N


@pytest.mark.row("X20")
@pytest.mark.parametrize("parts", DOCSTRINGS, ids=lambda parts: repr("".join(parts)[:24]))
def test_a_docstring_of_a_million_characters_is_read_in_seconds(parts: tuple[str, ...]) -> None:
    with limited(SECONDS):
        parse_docstring(filled(*parts))


@pytest.mark.row("X20")
@pytest.mark.parametrize("case", CASES)
def test_what_more_input_adds_to_the_steps_is_as_much_as_it_is_more(case: str) -> None:
    few = 20_000 if CASES[case] in STRUCTURES else 2_000
    _grows_as_its_input(CASES[case], few)


@pytest.mark.row("X20")
@pytest.mark.parametrize("parts", DOCSTRINGS, ids=lambda parts: repr("".join(parts)[:24]))
def test_what_a_longer_docstring_adds_to_the_steps_is_as_much_as_it_is_longer(
    parts: tuple[str, ...],
) -> None:
    _grows_as_its_input(lambda n: parse_docstring(filled(*parts, size=n)), 2_000)


def _grows_as_its_input(case: Case, few: int) -> None:
    _, one, two, four = (_steps(case, few * times) for times in (1, 1, 2, 4))  # the first loads
    assert four - two <= 2.2 * (two - one) + 50


def _steps(case: Case, size: int) -> int:
    """The lines of Python that are run, and the calls into C."""
    steps = 0

    def count_line(_: FrameType, what: str, __: object) -> Any:
        nonlocal steps
        steps += what == "line"
        return count_line

    def count_call(_: FrameType, what: str, __: object) -> None:
        nonlocal steps
        steps += what == "c_call"

    tracing = sys.gettrace()
    sys.settrace(count_line)
    sys.setprofile(count_call)
    try:
        case(size)
    except AetherError:
        pass
    finally:
        sys.setprofile(None)
        sys.settrace(tracing)
    return steps


def test_more_steps_than_that_are_counted() -> None:
    def again_and_again(n: int) -> object:
        return [sum(1 for _ in range(place)) for place in range(n // 20)]

    with pytest.raises(AssertionError):
        _grows_as_its_input(again_and_again, 2_000)


@pytest.mark.row("X20")
@pytest.mark.parametrize(
    "content_type",
    [
        filled("charset"),
        filled("charset", " "),
        filled("charset = "),
        filled("text/plain; charset=", "a"),
        filled("a/"),
        filled("."),
    ],
)
async def test_a_site_s_type_of_a_million_characters_is_read_in_seconds(content_type: str) -> None:
    page = Page(headers={"content-type": content_type}, body=b"x")
    transport = ScriptedTransport({"https://1.1.1.1/": page})
    with limited(SECONDS):
        await HTTPGetter(transport=lambda: transport).get("https://1.1.1.1/")


@pytest.mark.row("X20")
@pytest.mark.parametrize(
    "arguments",
    [
        {"a": filled("9")},
        {"a": [0] * N},
        {filled("a"): 1},
        {f"k{number}": 1 for number in range(N // 10)},
    ],
    ids=["digits", "a list", "a name", "many names"],
)
async def test_arguments_of_a_million_characters_are_judged_in_seconds(
    arguments: dict[str, Any],
) -> None:
    def add(a: int) -> int:
        return a

    with limited(SECONDS):
        result = await dispatch_tool(ToolCall("1", "add", arguments), tools=[add])
        unknown = await dispatch_tool(ToolCall("1", filled("ad"), {}), tools=[add])
    assert (result.error_type, unknown.error_type) == ("InvalidArguments", "UnknownTool")
    assert len(result.content) + len(unknown.content) < 5000


def test_more_work_than_that_is_ended() -> None:
    with pytest.raises(TooMuchWorkError), limited(0.05):
        re.match(r"(a+)+$", "a" * 60 + "b")
