"""What a call does in C and in other libraries' code, which the counts of Aether's own do not see.

What is dear is counted by its name, and its bound is what it is: a second reading of the same JSON
would drown in a sum. The sums have a tenth of room, for other versions of Python and pydantic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from aether import Aether
from tests.costs.counting import Answering, build_client
from tests.costs.steps import Steps, instructions, steps

PROMPT = "What is 17 + 25?"
CHUNKS = 10

DEAR = {
    "from_json": "JSON read",
    "to_json": "JSON written",
    "loads": "JSON read",
    "dumps": "JSON written",
    "raw_decode": "JSON read",
    "iterencode": "JSON written",
    "SchemaValidator.validate_python": "validations",
    "SchemaValidator.validate_json": "validations",
    "SchemaSerializer.to_python": "dumps of models",
    "SchemaSerializer.to_json": "dumps of models",
    "model_copy": "copies of models",
    "deepcopy": "deep copies",
    "str.join": "joins",
    "bytes.join": "joins",
    **{
        f"Pattern.{name}": "regular expressions"
        for name in ("findall", "finditer", "fullmatch", "match", "search", "split", "sub", "subn")
    },
    "compile": "regular expressions",
    "find_spec": "imports",
    "stat": "looks at files",
    "open": "looks at files",
}
"""Functions, in C or in Python, that take a µs or more each, or as long as what they are given, by
their names."""


def dear(found: Steps) -> Counter[str]:
    counted: Counter[str] = Counter()
    for name, times in found.c.items():
        if name in DEAR:
            counted[DEAR[name]] += times
    for name, times in found.python.items():
        if (function := name.partition(":")[2]) in DEAR:
            counted[DEAR[function]] += times
    return counted


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def ask(client: Aether) -> None:
    await client.ask(PROMPT)


async def ask_with_a_tool(client: Aether) -> None:
    await client.ask(PROMPT, tools=[add])


async def stream(client: Aether) -> None:
    async for _ in client.stream_text(PROMPT):
        pass


async def first_turn_of_a_session(client: Aether) -> None:
    session = client.session("s")
    await session.clear()
    await session.ask(PROMPT)


Way = Callable[[Aether], Awaitable[None]]


@pytest.mark.parametrize(
    ("way", "most"),
    [
        (ask, {"JSON read": 1, "JSON written": 1}),
        # Two requests and answers; the call, its arguments, its result and what stands around them.
        (
            ask_with_a_tool,
            {
                "JSON read": 3,
                "JSON written": 4,
                "validations": 1,
                "copies of models": 3,
                "regular expressions": 3,
                "joins": 1,
            },
        ),
        # Each chunk once; the first, the last, the usage, the end mark. The texts at the end alone.
        (
            stream,
            {"JSON read": CHUNKS + 4, "JSON written": 1, "joins": 3},
        ),
        # As an ask; the message of the answer, and the store's copies of both.
        (
            first_turn_of_a_session,
            {"JSON read": 1, "JSON written": 1, "validations": 1, "copies of models": 2},
        ),
    ],
)
async def test_what_is_dear_is_done_as_often_as_it_must_be(way: Way, most: dict[str, int]) -> None:
    client = build_client(Answering(chunks=CHUNKS))
    found = await steps(lambda: way(client))
    more = {name: n for name, n in dear(found).items() if n > most.get(name, 0)}
    assert not more, {name: n for name, n in (found.c + found.python).items() if n}
    assert dear(found)["JSON read"] > 0
    assert dear(found)["JSON written"] > 0
    assert dear(found)["validations"] == most.get("validations", 0)


@pytest.mark.parametrize(("events_a_read", "python", "c"), [(16, 9.4, 12.8), (1, 18.7, 23.1)])
async def test_a_chunk_is_read_once_and_by_few_functions(
    events_a_read: int, python: float, c: float
) -> None:
    """By the short way that a text alone takes; what a read takes is shared by its chunks."""
    few, many = [
        await steps(lambda client=client: stream(client))  # type: ignore[misc]
        for client in (
            build_client(Answering(chunks=200, events_a_read=events_a_read)),
            build_client(Answering(chunks=400, events_a_read=events_a_read)),
        )
    ]
    more = many - few
    assert dear(more) == {"JSON read": 200}
    assert more.python["aether.extensions.llm._wire.repetition:read"] == 200
    assert not more.python["aether.extensions.llm._wire.repetition:show"]
    assert 1 < more.python.total() / 200 <= python, more.python.most_common(20)
    assert 1 < more.c.total() / 200 <= c, more.c.most_common(20)


@pytest.mark.parametrize(
    ("way", "most"),
    [(ask, 3_700), (ask_with_a_tool, 11_200), (stream, 12_000), (first_turn_of_a_session, 5_800)],
)
async def test_few_instructions_are_run(way: Way, most: int) -> None:
    client = build_client(Answering(chunks=CHUNKS))
    (count,) = await instructions(lambda: way(client))
    assert 1_000 < count <= most
