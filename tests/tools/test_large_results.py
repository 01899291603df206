"""Large results are written piece by piece, to the same text, and no further than is shown."""

from __future__ import annotations

import asyncio
import dataclasses
import types
from collections import deque
from datetime import date
from enum import Enum, IntEnum
from typing import Any

import pytest
from pydantic import BaseModel

from aether.tools import results
from aether.tools.results import bounded, render_bounded, render_result


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Record(BaseModel):
    when: date
    ratio: float


@dataclasses.dataclass
class Span:
    start: int
    inner: Any = None


VALUES = [
    {"a": [1, 2.5, None, True, "text\n", {}, [], ()], "b": {"c": {"d": "\N{EURO SIGN}"}}},
    {2: "two", None: 2, True: 3, 1.5: 4, (1, 2): 5, Colour.RED: 6},
    [
        Colour.RED,
        Size.LARGE,
        b"abc",
        bytearray(b"ab"),
        memoryview(b"a"),
        float("nan"),
        -float("inf"),
    ],
    {3, 1, 2},
    frozenset({"b", "a", "\N{EURO SIGN}"}),
    [Record(when=date(2025, 1, 2), ratio=0.5), Span(1, Span(2)), deque([1]), {"a": 1}.values()],
    types.MappingProxyType({"a": date(2025, 1, 2)}),
    1,
    None,
]


@pytest.mark.row("T11")
@pytest.mark.parametrize("value", VALUES)
async def test_a_large_value_is_written_as_a_small_one_is(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = render_result(value)
    assert await render_bounded(value, 1000) == small
    monkeypatch.setattr(results, "LARGE", -1)
    assert await render_bounded(value, 1000) == small


@pytest.mark.row("T11")
@pytest.mark.parametrize("value", [[range(3).__iter__()], [object()], [1, {"a": object}]])
async def test_what_has_no_form_is_refused_in_a_large_value_too(value: Any) -> None:
    filler = [0] * results.LARGE
    with pytest.raises(TypeError):
        await render_bounded([filler, *value], 1_000_000)


@pytest.mark.row("T11", "T12")
async def test_a_large_value_that_contains_itself_is_refused() -> None:
    circle: list[Any] = [0] * results.LARGE
    circle.insert(0, circle)
    with pytest.raises(ValueError, match="contains itself"):
        await render_bounded(circle, 1_000_000)


@pytest.mark.row("T11")
async def test_no_more_of_a_large_value_is_looked_at_than_is_shown() -> None:
    seen = 0

    class Lazy(dict[str, int]):
        def items(self) -> Any:
            nonlocal seen
            for number in range(10_000_000):
                seen += 1
                yield str(number), number

    text = await render_bounded(Lazy(), 1000)
    assert seen < 200
    assert text.startswith('{"0": 0, "1": 1, ')
    shown, _, mark = text.partition("\n")
    assert mark == "[truncated: more than 1000 characters, of which at most 1000 bytes are shown]"
    assert len(text) == 1000
    assert len(shown) > 900


@pytest.mark.row("T11")
async def test_long_texts_in_a_large_value_are_cut_between_letters() -> None:
    value = {"text": "\N{EURO SIGN}" * 100_000}
    text = await render_bounded(value, 1000)
    assert text.startswith('{"text": "\N{EURO SIGN}')
    assert len(text.encode()) in range(998, 1001)
    assert await render_bounded(value, 10_000_000) == render_result(value)
    value = {"text": "x" * 100_000}
    assert await render_bounded(value, 100_012) == bounded(render_result(value), 100_012)
    assert "truncated" in await render_bounded(value, 100_011)


@pytest.mark.row("T11")
async def test_writing_a_large_value_can_be_cancelled() -> None:
    writing = asyncio.ensure_future(render_bounded([[1]] * 200_000, 1_000_000))
    await asyncio.sleep(0)
    assert not writing.done()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
