"""A call that failed is gone with its error: neither waits for the collector."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

import pytest

from aether import Aether
from aether.errors import AetherError, ServerError
from aether.llm.contracts import LLMRequest, LLMResponse, StreamChunk
from aether.llm.policies import Fallbacks, Hedge


class Failing:
    """Fails each time with an error of its own, of which it keeps none."""

    default_model = "m"

    def __init__(self, make: Callable[[], Exception]) -> None:
        self._make = make

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        raise self._make()

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        yield StreamChunk(text="It ")
        raise self._make()


@pytest.mark.parametrize("streamed", [False, True], ids=["complete", "stream"])
@pytest.mark.parametrize("stack", ["alone", "fallback", "hedge"])
@pytest.mark.parametrize(
    "make",
    [lambda: ServerError("down", status=500), lambda: RuntimeError("odd")],
    ids=["own", "foreign"],
)
async def test_nothing_of_a_failed_call_is_part_of_a_cycle(
    make: Callable[[], Exception], stack: str, *, streamed: bool
) -> None:
    layers: dict[str, Any] = {
        "alone": {},
        "fallback": {"fallbacks": Fallbacks([Failing(make)], after_content="restart")},
        "hedge": {"hedge": Hedge(after=3600.0, max_share=1.0)},
    }

    async def fail() -> None:
        with suppress(AetherError):
            if not streamed:
                await client.complete("Hi")
            async for _ in client.stream("Hi"):
                pass

    async with Aether(Failing(make), **layers[stack]) as client:
        await fail()  # what is made once is made now
        gc.collect()
        gc.disable()
        try:
            await fail()
            left = _garbage()
        finally:
            gc.enable()
    assert not [each for each in left if isinstance(each, BaseException | LLMRequest)]


def _garbage() -> list[Any]:
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return list(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
