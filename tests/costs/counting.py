"""Counting what a call does: the same number every time, on a busy machine too."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from pydantic_core import to_json

import aether
from aether import Aether, ProviderConfig
from aether.http.contracts import HTTPResponse

__all__ = ["Answering", "blocks_kept", "build_client", "python_calls"]

_AETHER = str(Path(aether.__file__).parent)
_HEADERS = {"content-type": "application/json", "x-request-id": "req_1"}
_USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 5,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


async def python_calls(work: Callable[[], Awaitable[object]]) -> Counter[str]:
    """How often each function of Aether's own is entered while `work` runs once, warmed up.

    A coroutine or generator is entered again each time that it goes on.
    """
    for _ in range(3):
        await work()
    entered: Counter[CodeType] = Counter()

    def watch(frame: FrameType, what: str, _: Any) -> None:
        if what == "call":
            entered[frame.f_code] += 1

    sys.setprofile(watch)
    try:
        await work()
    finally:
        sys.setprofile(None)
    calls: Counter[str] = Counter()
    for code, times in entered.items():
        if code.co_filename.startswith(_AETHER):
            place = code.co_filename.removeprefix(_AETHER)
            calls[f"{place}:{code.co_name}:{code.co_firstlineno}"] += times
    return calls


async def blocks_kept(work: Callable[[], Awaitable[object]], *, times: int) -> int:
    """Blocks of memory that are there after `work` has run so often, and were not before."""
    for _ in range(3):
        await work()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(times):
        await work()
    gc.collect()
    return sys.getallocatedblocks() - before


class Answering:
    """A transport that answers at once, from memory: all that is counted is Aether's own.

    It speaks Chat Completions: a text, in `chunks` pieces where it is streamed; to a request with
    tools first `turns` calls of `add`, one after another.
    """

    def __init__(self, *, chunks: int = 10, turns: int = 1, events_a_read: int = 16) -> None:
        self.sent: list[bytes] = []
        self._turns = turns
        events = [_chunk({"role": "assistant", "content": ""})]
        events += [_chunk({"content": f"word {number} "}) for number in range(chunks)]
        events += [_chunk({}, finish_reason="stop"), _chunk(None, usage=_USAGE), b"[DONE]"]
        whole = [b"data: %s\n\n" % event for event in events]
        self._reads = [
            b"".join(whole[at : at + events_a_read]) for at in range(0, len(whole), events_a_read)
        ]

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, **options: Any
    ) -> HTTPResponse:
        self.sent.append(body)
        turn = body.count(b'"tool_call_id"')
        if b'"tools":' in body and turn < self._turns:
            call = {"name": "add", "arguments": '{"a": 17, "b": 25}'}
            calls = [{"id": f"call_{turn}", "type": "function", "function": call}]
            answer = _answer({"content": None, "tool_calls": calls}, "tool_calls")
        else:
            answer = _answer({"content": "It is 42."}, "stop")
        return HTTPResponse(200, _HEADERS, answer)

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, **options: Any
    ) -> AsyncGenerator[_Streamed, None]:
        self.sent.append(body)
        yield _Streamed(self._reads)

    async def aclose(self) -> None: ...


class _Streamed:
    status = 200
    headers: Mapping[str, str] = {"content-type": "text/event-stream"}

    def __init__(self, reads: list[bytes]) -> None:
        self._reads = reads

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for read in self._reads:
            yield read


def build_client(transport: Answering, **options: Any) -> Aether:
    """A client with its default stack on that transport."""
    config = ProviderConfig(
        provider="openai",
        model="gpt-4o-mini",
        api_key="sk-none",
        base_url="http://127.0.0.1:9/v1",
        transport=transport,
    )
    return Aether(config=config, **options)


def _answer(message: Mapping[str, Any], finish_reason: str) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", **message},
        "finish_reason": finish_reason,
    }
    return to_json({"id": "a1", "model": "gpt-4o-mini", "choices": [choice], "usage": _USAGE})


def _chunk(
    delta: Mapping[str, Any] | None,
    *,
    finish_reason: str | None = None,
    usage: Mapping[str, Any] | None = None,
) -> bytes:
    choices = [] if delta is None else [{"delta": delta, "finish_reason": finish_reason}]
    return to_json({"id": "a1", "model": "gpt-4o-mini", "choices": choices, "usage": usage})
