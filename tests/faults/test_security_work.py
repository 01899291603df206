"""Texts that somebody chose to make work: a million characters of them are read in seconds.

Each case has so much time of this process that it runs out where all characters are gone through
again for each of them: that would take hours. To copy at each piece of a stream what came before is
much faster, so what is fed in pieces comes in a million of them, eight million characters in all:
that would take more than a minute. What costs less than the limit is not seen: whether work grows
exactly as its input is not shown, and of functions and schemas, which have thousands of parts, only
that it is no worse than their square.
"""

from __future__ import annotations

import json
import re
import signal
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
PIECES = N
PIECE = 8

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


DOCSTRINGS = [
    filled("a "),
    filled("a\n"),
    filled("Args:\n"),
    filled("Args:\n", "  x: y\n"),
    filled("Args:\n    x", " (int):"),
    filled("Args:\n    x: d", ". Defaults to "),
    filled("Args:\n    ", "("),
    filled("Args:\n    x", " "),
    filled("Parameters\n---\n"),
    filled("Parameters\n---\n", "x : int\n    y\n"),
    filled("Parameters\n---", "-"),
    filled("Parameters", " "),
    filled(":param x: y\n"),
    filled(":param ", "x "),
    filled(":param x: y\n", ":"),
    filled(":param x: y", " defaults to "),
]


def streamed(*parts: str) -> Callable[[], object]:
    """The last part again and again, behind the others, in a million pieces."""
    return lambda: feed(SSEDecoder(), filled(*parts, size=PIECES * PIECE).encode())


def thinking(*parts: str) -> Callable[[], object]:
    return lambda: feed(ThinkingSplitter(), filled(*parts, size=PIECES * PIECE))


def feed(reader: SSEDecoder | ThinkingSplitter, data: Any) -> None:
    for start in range(0, len(data), PIECE):
        reader.feed(data[start : start + PIECE])
    reader.close()


def refused(body: str) -> Callable[[], object]:
    return lambda: refusal(400, body.encode(), source=Source("p", "m", str))


def many_parameters() -> object:
    names = [f"p{number}" for number in range(2000)]
    code = f"def many({': int, '.join(names)}: int): pass"
    scope: dict[str, Any] = {}
    exec(code, scope)
    return build_tool(scope["many"])


def long_description() -> object:
    def one(x: int) -> int:
        return x

    one.__doc__ = filled("Sum.\n\nArgs:\n    x: ", "word ")
    return build_tool(one)


def many_values() -> object:
    def one(x: Any) -> Any:
        return x

    one.__annotations__["x"] = Literal[tuple(f"value-{number}" for number in range(50_000))]
    return build_tool(one)


def wide_schema() -> object:
    properties = {f"p{number}": {"type": "string"} for number in range(20_000)}
    return strict_schema({"type": "object", "properties": properties})


CASES: dict[str, Callable[[], object]] = {
    "many parameters": many_parameters,
    "a long description": long_description,
    "many values": many_values,
    "a wide schema": wide_schema,
    "a pattern": lambda: strict_schema(
        {"type": "object", "properties": {"a": {"type": "string", "pattern": filled("(")}}}
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
    "a refusal of braces": refused(filled("{")),
    "a refusal of nests": refused(filled('{"a":')),
    "a refusal of words": refused(json.dumps({"error": {"message": filled("x ")}})),
    "control characters": lambda: clean(filled("\0")),
    "days": lambda: parse_retry_after({"retry-after": filled("Mon")}),
    "commas": lambda: parse_retry_after({"retry-after": filled("Mon,")}),
    "digits": lambda: parse_retry_after({"retry-after": filled("9")}),
    "a data URL": lambda: ImagePart(url=filled("data:", ";base64 ")),
    "a data URL of spaces": lambda: ImagePart(url=filled("data:;base64", " ") + "x,A"),
    "a media type": lambda: ImagePart(data=b"x", media_type=filled("a/")),
    "a URL": lambda: parse_web_url(filled("http://", "a.")),
    "a path": lambda: read_file(filled("a/")),
    "a climb": lambda: read_file(filled("../")),
    "the name of an agent": lambda: Agent(filled("a é")).as_tool(),
    "the name of something": lambda: default_registry.get("tool", filled("http_ge")),
    "arguments of brackets": lambda: ToolCall.parse("1", "x", filled("[")),
    "arguments of nests": lambda: ToolCall.parse("1", "x", filled('{"a":')),
    "arguments of digits": lambda: ToolCall.parse("1", "x", filled('{"a":', "9") + "}"),
}


@pytest.mark.row("X20")
@pytest.mark.parametrize("case", CASES)
def test_a_million_characters_or_pieces_are_read_in_seconds(case: str) -> None:
    with limited(SECONDS):
        try:
            CASES[case]()
        except AetherError as error:
            assert len(str(error)) < 2 * N


@pytest.mark.row("X20")
@pytest.mark.parametrize("text", DOCSTRINGS, ids=lambda text: repr(text[:24]))
def test_a_docstring_of_a_million_characters_is_read_in_seconds(text: str) -> None:
    with limited(SECONDS):
        parse_docstring(text)


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
