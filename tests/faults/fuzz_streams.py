"""Answers spoilt by chance: whatever comes, an adapter gives an answer that is one, or an error of
Aether's.

python tests/faults/fuzz_streams.py --inputs 1000000 --seed 7   # the long run
python tests/faults/fuzz_streams.py --splits                    # each kind of stream, cut anywhere

Each input is made from the seed and its number alone. What fails is told with both, and kept in
tests/faults/found, whose files the tests read again.
"""

from __future__ import annotations

import argparse
import base64
import functools
import hashlib
import json
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # where it is run as a script

from aether.errors import AetherError, InputError, ProviderConnectionError  # noqa: E402
from tests.faults.exchanges import PROTOCOLS  # noqa: E402
from tests.faults.feeds import Reader  # noqa: E402
from tests.faults.grammar import Said, body, events, joined, say  # noqa: E402

FOUND = Path(__file__).with_name("found")

_TOKENS = (
    *(b"data:", b"data: ", b"event: ", b"event: error\n", b": ", b"\n", b"\n\n", b"\r", b"\r\n"),
    *(
        b"[DONE]",
        b"{}",
        b"[]",
        b"null",
        b"{",
        b"}",
        b'"',
        b"\\",
        b"\\u",
        b"\\ud83d",
        b"\xff",
        b"\0",
    ),
    *(b"\xef\xbb\xbf", b"\xf0\x9f", "\u2028".encode(), b"1e999", b"-1", b"NaN", b"9" * 400),
    *(b'"error"', b'"type"', b'"index"', b'"choices"', b'"delta"', b"error: {}", b"<html>"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 2**63, 10**40, 1.5, -0.0, 1e308, "", "x", "\ud83d", "\0"),
    *([], [None], [[]], [1, "a"], {}, {"": None}, {"error": "no"}, {"type": "error"}),
    *("text", "tool_use", "function_call", "message", "stop", "error", "completed", "0", "\n\n"),
    {"error": {"message": ["no"], "code": {"a": 1}, "type": 5}},
)


_FIELDS = (
    *("refusal", "audio", "images", "reasoning_details", "reasoning", "function_call", "usage"),
    *("extra_content", "tool_calls", "content", "text", "message", "finish_reason", "x_groq"),
    *("annotations", "encrypted_content", "summary", "phase", "status", "output", "item", "delta"),
    *("call_id", "arguments", "input", "result", "incomplete_details", "item_id", "output_index"),
    *("citations", "signature", "thinking", "container", "stop_reason", "content_block", "index"),
    *("partial_json", "input_tokens", "output_tokens", "iterations", "cache_creation"),
    *("thoughtSignature", "thought", "inlineData", "executableCode", "codeExecutionResult"),
    *("promptFeedback", "continuationToken", "finishReason", "candidates", "functionCall", "args"),
    *("usageMetadata", "prompt_feedback", "inline_data", "function_call", "modelVersion", "error"),
    *("prompt_tokens_details", "input_tokens_details", "promptTokensDetails", "cost"),
)
"""Fields that mean something to one of the protocols, wherever they are put."""
_FILLED: tuple[Any, ...] = (
    {"id": "a", "data": "AAAA", "transcript": "x", "expires_at": 1},
    [{"image_url": {"url": "data:image/png;base64,iVBORw=="}}],
    [{"type": "thinking", "thinking": [{"text": "x"}]}, {"type": "text", "text": "y"}],
    [{"index": 0, "type": "reasoning.text", "text": "x"}, {"index": 0, "text": None}],
    [{"index": 1, "id": "b", "function": {"name": "sub", "arguments": '{"a": 1}'}}],
    {"mimeType": "image/png", "data": "iVBORw=="},
    {"language": "PYTHON", "code": "1"},
    {"type": "web_search_tool_result", "content": [{"url": "x"}]},
    {"type": "custom_tool_call", "name": "x", "call_id": "c", "input": "y"},
    {"type": "image_generation_call", "result": "iVBORw==", "output_format": "png"},
    {"reason": "content_filter"},
    {"blockReason": "SAFETY"},
    {"cached_tokens": 3, "audio_tokens": "x"},
    [{"modality": "AUDIO", "tokenCount": 5}],
)


@dataclass(frozen=True)
class Spoilt:
    """An answer that was spoilt."""

    protocol: str
    pieces: tuple[bytes, ...]
    streamed: bool = True
    broken: bool = False
    """Whether the connection breaks where the body ends."""
    intact: Said | None = None
    """What it says, if nothing was done to it."""

    def keep(self) -> Path:
        """Write it where the tests find it."""
        facts = {
            "protocol": self.protocol,
            "streamed": self.streamed,
            "broken": self.broken,
            "pieces": [base64.b64encode(piece).decode() for piece in self.pieces],
        }
        text = json.dumps(facts, indent=1)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        FOUND.mkdir(exist_ok=True)
        path = FOUND / f"{self.protocol}-{name}.json"
        path.write_text(text + "\n", encoding="utf-8")
        return path


def found() -> list[Path]:
    """What failed once."""
    return sorted(FOUND.glob("*.json"))


def load(path: Path) -> Spoilt:
    """What was kept."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    pieces = tuple(base64.b64decode(piece) for piece in facts["pieces"])
    return Spoilt(facts["protocol"], pieces, facts["streamed"], facts["broken"])


def make(seed: int, number: int) -> Spoilt:
    """The input of that number."""
    chance = random.Random(f"{seed}:{number}")
    protocol = PROTOCOLS[number % len(PROTOCOLS)]
    if chance.random() < 0.15:
        return _whole(chance, protocol)
    if chance.random() < 0.08:
        soup = [chance.choice(_TOKENS) for _ in range(chance.randint(1, 40))]
        return Spoilt(protocol, tuple(soup), broken=chance.random() < 0.3)
    said, pieces = _streamed(protocol, chance.randrange(_KINDS))
    if chance.random() < 0.04:
        data = joined(chance, pieces)
        return Spoilt(protocol, tuple(_cut(chance, data)), intact=said)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        pieces = chance.choice(_SPOILING_EVENTS)(chance, pieces)
    data = joined(chance, pieces) if chance.random() < 0.3 else b"".join(pieces)
    if chance.random() < 0.5:
        data = chance.choice(_SPOILING_BYTES)(chance, data)
    return Spoilt(protocol, tuple(_cut(chance, data)), broken=chance.random() < 0.2)


_KINDS = 400
"""So many streams of each protocol are spoilt, each in any number of ways."""


@functools.cache
def _streamed(protocol: str, kind: int) -> tuple[Said, list[bytes]]:
    said = say(random.Random(kind), most=3)
    return said, events(protocol, said)


def _whole(chance: random.Random, protocol: str) -> Spoilt:
    said = say(chance, most=3)
    data = body(protocol, said)
    if chance.random() < 0.05:
        return Spoilt(protocol, (data,), streamed=False, intact=said)
    value = json.loads(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        _change_a_place(chance, value)
    data = json.dumps(value).encode()
    if chance.random() < 0.3:
        data = chance.choice(_SPOILING_BYTES)(chance, data)
    return Spoilt(protocol, (data,), streamed=False)


def _cut(chance: random.Random, data: bytes) -> Iterator[bytes]:
    """Into a few pieces, seldom into many."""
    size = chance.choice((len(data) + 1, len(data) // 2 + 1, 100, 1 if len(data) < 500 else 50))
    for start in range(0, len(data), size):
        yield data[start : start + size]


Events = list[bytes]


def _change_an_event(chance: random.Random, pieces: Events) -> Events:
    """Another value somewhere in the JSON of one of them."""
    place = chance.randrange(len(pieces)) if pieces else 0
    for piece in pieces[place : place + 1]:
        head, found, data = piece.partition(b"data: ")
        try:
            value = json.loads(data)
        except ValueError:
            continue
        value = _change_a_place(chance, value)
        return [*pieces[:place], head + found + _written(value), *pieces[place + 1 :]]
    return pieces


def _written(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n\n"


def _change_a_place(chance: random.Random, value: Any) -> Any:
    places = list(_places(value))
    if not places:
        return chance.choice(_VALUES)
    container, key = chance.choice(places)
    if isinstance(container, dict) and chance.random() < 0.35:
        key = chance.choice(_FIELDS)
        container[key] = None
    if chance.random() < 0.25:
        container[key] = json.loads(json.dumps(chance.choice(_FILLED)))
        return value
    what = chance.random()
    if what < 0.2:
        del container[key]
    elif what < 0.3 and isinstance(container, dict):
        container[chance.choice(("error", "type", "index", "x", key.upper()))] = container[key]
    elif what < 0.4 and isinstance(container, list):
        container.append(container[key])
    else:
        container[key] = json.loads(json.dumps(chance.choice(_VALUES)))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in list(pairs):
            yield value, key
            yield from _places(inner)


def _leave_one_out(chance: random.Random, pieces: Events) -> Events:
    place = chance.randrange(len(pieces) + 1)
    return [*pieces[:place], *pieces[place + 1 :]]


def _repeat_one(chance: random.Random, pieces: Events) -> Events:
    place = chance.randrange(len(pieces) + 1)
    return [*pieces[:place], *pieces[place : place + 1], *pieces[place:]]


def _mix_up(chance: random.Random, pieces: Events) -> Events:
    mixed = list(pieces)
    chance.shuffle(mixed)
    return mixed


def _put_in_another_s(chance: random.Random, pieces: Events) -> Events:
    place = chance.randrange(len(pieces) + 1)
    foreign = events(chance.choice(PROTOCOLS), say(chance, most=1))
    return [*pieces[:place], chance.choice(foreign), *pieces[place:]]


def _stop_early(chance: random.Random, pieces: Events) -> Events:
    return pieces[: chance.randrange(len(pieces) + 1)]


def _change_a_byte(chance: random.Random, data: bytes) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]


def _leave_some_out(chance: random.Random, data: bytes) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + data[place + chance.randint(1, 20) :]


def _repeat_some(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(len(data) + 1)
    end = start + chance.randint(1, 60)
    return data[:end] + data[start:]


def _put_in(chance: random.Random, data: bytes) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.choice(_TOKENS) + data[place:]


def _end_early(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


_SPOILING_EVENTS: tuple[Callable[[random.Random, Events], Events], ...] = (
    *(_change_an_event, _change_an_event, _change_an_event, _leave_one_out, _repeat_one),
    *(_mix_up, _put_in_another_s, _stop_early),
)
_SPOILING_BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(_change_a_byte, _leave_some_out, _repeat_some, _put_in, _end_early),
)


async def check(reader: Reader, spoilt: Spoilt) -> str:
    """Read it. How it ended, in a word; anything but an answer or an `AetherError` is raised."""
    cut = ProviderConnectionError("It broke.", kind="reset") if spoilt.broken else None
    if spoilt.streamed:
        read = await reader.read_stream(spoilt.protocol, spoilt.pieces, then=cut)
    else:
        read = await reader.read_whole(spoilt.protocol, b"".join(spoilt.pieces))
    error, response = read.error, read.response
    if error is not None:
        assert type(error) is not AetherError, f"an error without a class: {error!r}"
        assert not isinstance(error, InputError), f"an answer is no input: {error!r}"
        assert str(error).isprintable(), f"a message that cannot be printed: {error!r}"
        assert spoilt.intact is None, f"nothing was wrong with it: {error!r}"
        partial = getattr(error, "partial", None)
        if partial is not None and read.text:
            assert partial.text == read.text, "what had come is not what was handed out"
        return type(error).__name__
    assert response is not None, "a stream without a final chunk passed for an answer"
    assert response.finish_reason is not None, "an answer without a reason for its end"
    response.model_dump_json()  # it can be stored
    if spoilt.streamed:
        final = [chunk for chunk in read.chunks if chunk.is_final]
        assert len(final) == 1, "not one final chunk"
        assert read.chunks[-1].is_final, "the final chunk is not the last"
        assert read.text == response.text, "the pieces do not join to the text"
    said = spoilt.intact
    if said is not None:
        assert response.text == said.text
        assert [(call.name, call.arguments) for call in response.tool_calls] == said.calls
        assert response.finish_reason == said.finish
        assert (response.input_tokens, response.output_tokens) == said.usage
    return "answer"


def run(numbers: range, seed: int, *, told: Callable[[int], None] | None = None) -> Counter[str]:
    """Check the inputs of these numbers: how many ended in which way. Raises at the first that
    ended otherwise, with a note that says which it was.
    """
    ends: Counter[str] = Counter()

    async def check_all() -> None:
        for number in numbers:
            spoilt = make(seed, number)
            try:
                ends[await check(reader, spoilt)] += 1
            except Exception as error:
                error.add_note(f"seed {seed}, input {number}: {spoilt!r}, kept as {spoilt.keep()}")
                raise
            if told is not None:
                told(number)

    with Reader() as reader:
        reader.run(check_all())
    return ends


def splits(most: int | None = None) -> Iterator[tuple[str, bytes]]:
    """Streams of every protocol in which everything is said, five of each, for cutting in two."""
    for protocol in PROTOCOLS:
        for seed in range(5):
            chance = random.Random(seed)
            said = say(chance, most=most or 14)
            yield protocol, joined(chance, events(protocol, said))


def check_splits(step: int = 1) -> int:
    """Cut every one of these streams in two, at each `step`-th byte: how many cuts there were."""
    count = 0
    with Reader() as reader:
        for protocol, data in splits():
            whole = reader.stream(protocol, data)
            assert whole.error is None, f"{protocol}: {whole.error!r}"
            for place in range(count % step, len(data) + 1, step):
                count += 1
                read = reader.stream(protocol, data[:place], data[place:])
                assert read.ending == whole.ending, f"{protocol}, cut at {place}: {data!r}"
                assert read.said == whole.said, f"{protocol}, cut at {place}: {data!r}"
    return count


def main() -> int:
    """The long run, or every cut."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--splits", action="store_true", help="cut streams in two instead")
    given = parser.parse_args()
    begun = time.monotonic()
    if given.splits:
        count = check_splits()
        _say(f"{count:,} cuts, all read alike, in {time.monotonic() - begun:.0f} s")
        return 0
    seed = random.SystemRandom().randrange(10**9) if given.seed is None else given.seed

    def told(number: int) -> None:
        done = number + 1 - given.first
        if done % 50_000 == 0:
            _say(f"{done:,} inputs, {time.monotonic() - begun:.0f} s")

    _say(f"seed {seed}")
    try:
        ends = run(range(given.first, given.first + given.inputs), seed, told=told)
    except Exception:  # noqa: BLE001 - whatever it is, it is what was looked for
        _say(traceback.format_exc())
        return 1
    _say(f"{given.inputs:,} inputs, no untyped error, in {time.monotonic() - begun:.0f} s:")
    for end, count in ends.most_common():
        _say(f"  {end:30} {count:>10,}")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
