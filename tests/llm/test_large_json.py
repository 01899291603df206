"""Large JSON is read in pieces, and reads as it would be read whole."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from pydantic_core import from_json

from aether.errors import ProtocolError
from aether.extensions.llm._wire import large_json
from aether.extensions.llm._wire.large_json import ReadDocument, read_in_turns

LEAVES = (
    *(',\\[{"]}:' * 3, "\\," * 9, "]" * 9),
    *(1, -2.5, 1e300, 10**30, True, None, float("nan"), float("-inf"), ""),
    *("a word", "x" * 60, '\n"\\/' * 5, "\N{LATIN SMALL LETTER E WITH ACUTE}\N{GRINNING FACE}" * 7),
)
WRONG = b'{}[]",:\\ud8\n\xc3\xf0 1'


def value(random_: random.Random, depth: int = 0) -> Any:
    kind = random_.random()
    if depth > 4 or kind < 0.3:
        return random_.choice(LEAVES)
    members = range(random_.randint(0, 6))
    if kind < 0.65:
        return [value(random_, depth + 1) for _ in members]
    return {
        random_.choice("ab\n") * random_.randint(0, 30): value(random_, depth + 1) for _ in members
    }


def damaged(document: bytes, random_: random.Random) -> bytes:
    data = bytearray(document)
    place = random_.randrange(len(data))
    match random_.randint(0, 3):
        case 0:
            del data[place]
        case 1:
            data[place] = random_.choice(WRONG)
        case 2:
            data.insert(place, random_.choice(WRONG))
        case _:
            del data[place:]
    return bytes(data)


async def assert_alike(document: bytes) -> None:
    try:
        whole = from_json(document)
    except ValueError:
        assert not isinstance(await read_in_turns(document), ReadDocument), document
        return
    read = await read_in_turns(document)
    assert isinstance(read, ReadDocument), document
    assert repr(read.value) == repr(whole), document


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """Documents are cut every few bytes."""
    random_ = random.Random("pieces")
    monkeypatch.setattr(large_json, "_PIECE", 40)
    monkeypatch.setattr(large_json, "_STRING_PIECE", 13)  # the longest character has 12
    return random_


async def test_any_document_reads_as_it_would_whole(
    small_pieces: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(180):
        monkeypatch.setattr(large_json, "_PIECE", (40, 64, 200)[number % 3])
        monkeypatch.setattr(large_json, "_STRING_PIECE", (12, 13, 17, 40)[number % 4])
        document = json.dumps(
            value(small_pieces), ensure_ascii=number % 2 == 0, indent=(None, 1)[number // 2 % 2]
        ).encode()
        await assert_alike(b" \r\n\t" * (number % 20) + document + b" " * (number % 30))
        for _ in range(3):
            await assert_alike(damaged(document, small_pieces))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"   " * 20,
        b"[]",
        b"[ \n]" + b" " * 50,
        b"[" + b" " * 50 + b"]",
        b"{" + b" " * 50 + b"}",
        b"[1," + b" " * 50 + b"]",
        b"[" + b" " * 50 + b",]",
        b"[1,]",
        b"[,1]",
        b'["%b",,1]' % (b"x" * 50),
        b'["%b",]' % (b"x" * 50),
        b'["%b" "%b"]' % (b"x" * 50, b"y" * 50),
        b'["%b"}' % (b"x" * 50),
        b'{"%b"}' % (b"x" * 50),
        b'{"%b" 1}' % (b"x" * 50),
        b'{1: "%b"}' % (b"x" * 50),
        b'{"a": 1, "a": 2, "b": "%b", "a": 3}' % (b"x" * 50),
        b'{"a": 1, "a": "%b"}' % (b"x" * 50),
        b'{"a": "%b", "a": 1}' % (b"x" * 50),
        b"[" * 200 + b'"%b"' % (b"x" * 50) + b"]" * 200,
        b"[" * 201 + b'"%b"' % (b"x" * 50) + b"]" * 201,
        b'"%b"' % (b"x" * 50),
        b'"%b' % (b"x" * 50),
        b'"%b\\' % (b"x" * 50),
        b'"%b\n"' % (b"x" * 50),
        b'"%b"' % (b"\\ud83d\\ude00" * 9),
        b'"%b"' % (b"\\ud83d" * 9),
        b'"%b"' % (b"\\ude00" * 9),
        b'"%b"' % (b"\xff" * 50),
        b'"%b"' % (b"\xf0\x9f\x98" * 9),
        b"7" * 30,
        b"[%b]" % (b"1" * 5000),
        b"[1] [2]" + b" " * 50,
        b"nul" + b"l" * 50,
        b'{"a":' * 30 + b"1" + b"}" * 30,
    ],
)
async def test_a_document_at_the_edge_reads_as_it_would_whole(document: bytes) -> None:
    await assert_alike(document)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("inside", [40, 49, 50, 51, 60, 100_000])
async def test_depth_is_counted_as_in_the_whole(inside: int) -> None:
    deep = b"[" * inside + b"1" + b"]" * inside
    await assert_alike(b'[{"a":' * 75 + deep + b"}]" * 75)


async def test_the_loop_has_its_turns_and_a_cancellation_ends_it() -> None:
    document = b"[" + b"{}," * 300_000 + b"1]"
    reading = asyncio.ensure_future(read_in_turns(document))
    for _ in range(10):
        await asyncio.sleep(0)
        assert not reading.done()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.parametrize("piece", [7, 1 << 20])
@pytest.mark.parametrize("member", [b"[],", b"{},", b"1,1,"])
async def test_too_many_values_are_refused_before_any_of_them_is_read(
    member: bytes, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_json, "MAX_VALUES", 20_000)
    monkeypatch.setattr(large_json, "_COUNTED_PIECE", piece)
    fits = b"[" + member * 9_999 + b"1]"
    assert isinstance(await read_in_turns(fits), ReadDocument)
    with pytest.raises(ProtocolError, match="more than 20000 values") as caught:
        await read_in_turns(b"no JSON" + fits[:-1] + b",1,1]")
    assert caught.value.kind == "size"


async def test_the_probabilities_of_other_words_are_not_too_many_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A 32nd of what the longest answer of GPT-4o may have, and of what is allowed."""
    monkeypatch.setattr(large_json, "MAX_VALUES", large_json.MAX_VALUES // 32)
    word = b'{"token":" hello","logprob":-1.2345,"bytes":[32,104,101,108,108,111]'
    words = b'%b,"top_logprobs":[%b]}' % (word, b",".join([word + b"}"] * 20))
    document = b'{"content":[%b]}' % b",".join([words] * (16_384 // 32))
    read = await read_in_turns(document)
    assert isinstance(read, ReadDocument)
    assert len(read.value["content"]) == 512


async def test_what_is_no_json_keeps_its_beginning_for_an_error() -> None:
    read = await read_in_turns(b"<html>" + b" " * 300_000)
    assert read.startswith(b"<html>")
    assert len(read) < 100_000
    with pytest.raises(ValueError, match="expected"):
        from_json(read)


async def test_what_begins_as_json_and_goes_on_as_none_is_none() -> None:
    read = await read_in_turns(b"{}" + b" " * 300_000 + b"x")
    assert not isinstance(read, ReadDocument)
    with pytest.raises(ValueError, match="trailing"):
        from_json(read)
