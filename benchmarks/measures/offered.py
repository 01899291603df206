"""A call that offers three tools, where three are registered, and where a thousand are."""

from __future__ import annotations

from aether import register_tool
from benchmarks.contracts import PROMPT, Figure, Values, add
from benchmarks.counting import counted
from benchmarks.measures import check
from benchmarks.server import TEXT
from benchmarks.setting import Setting, Times
from benchmarks.subjects.aether import Client, client
from benchmarks.timing import cpu_us

ALL, OFFERED = 1000, 3


def figures(times: Times) -> tuple[Figure, ...]:
    """What it yields."""
    registered = _registered(times)
    return (
        Figure("offered_few", f"a call that offers {OFFERED} tools of {OFFERED}"),
        Figure("offered_many", f"a call that offers {OFFERED} tools of {registered:,}"),
        Figure("offered_calls", f"functions called more, with {registered:,} tools", "calls"),
    )


def _registered(times: Times) -> int:
    return OFFERED + times(ALL - OFFERED)


async def measure(setting: Setting) -> Values:
    """The processor time before and after the others are registered, and what is called more."""
    names = [f"add_{number}" for number in range(_registered(setting.times))]
    times = setting.times(100)
    one: Client = client(setting.url("calls=0"))

    async def call() -> None:
        text = await one.aether.ask(PROMPT, tools=names[:OFFERED])
        check(text == TEXT, text)

    try:
        for name in names[:OFFERED]:
            register_tool(name=name)(add)
        few = await cpu_us(call, times=times, warm=times)
        few_calls = await counted(call)
        for name in names[OFFERED:]:
            register_tool(name=name)(add)
        many = await cpu_us(call, times=times, warm=times)
        many_calls = await counted(call)
    finally:
        await one.close()
    more = many_calls.total - few_calls.total
    more += many_calls.builtin.total() - few_calls.builtin.total()
    return {"offered_few": few, "offered_many": many, "offered_calls": more}
