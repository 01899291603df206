"""A provider whose answers show what it was asked, and stores that fail or are slow on demand."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence

from aether.errors import SessionConflictError
from aether.llm.contracts import LLMRequest, LLMResponse, Message, StreamChunk
from aether.llm.streaming import final_chunk

DELTAS = 4


def answer_to(messages: Sequence[Message]) -> str:
    """The one answer to this transcript, eight letters long."""
    text = "\n".join(f"{message.role}:{message.text}" for message in messages)
    return hashlib.sha256(text.encode()).hexdigest()[: 2 * DELTAS]


class Talker:
    """Answers with `answer_to`, in `DELTAS` deltas, giving way to other tasks in between.

    While `gate` is set to an event, no answer begins before that is set. `error` is raised instead
    of an answer, in a stream after half of it.
    """

    default_model = "talker"

    def __init__(self) -> None:
        self.requests: list[LLMRequest] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None
        self.open_streams = 0

    @property
    def asked(self) -> list[str]:
        """The last message of each request, in order."""
        return [request.messages[-1].text for request in self.requests]

    async def complete(self, request: LLMRequest) -> LLMResponse:
        await self._begin(request)
        if self.error is not None:
            raise self.error
        return _response(request)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[StreamChunk, None]:
        self.open_streams += 1
        try:
            await self._begin(request)
            response = _response(request)
            for start in range(0, len(response.text), 2):
                if self.error is not None and start >= len(response.text) // 2:
                    raise self.error
                yield StreamChunk(text=response.text[start : start + 2])
                await asyncio.sleep(0)
            yield final_chunk(response)
        finally:
            self.open_streams -= 1

    async def _begin(self, request: LLMRequest) -> None:
        self.requests.append(request)
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()


def _response(request: LLMRequest) -> LLMResponse:
    return LLMResponse(
        text=answer_to(request.messages), model="talker", finish_reason="stop", provider="talker"
    )


class SavingStore:
    """A store for one writer. Each operation gives way before and behind what it does.

    `faults` are used up by writes, in order: `before` and `after` raise `OSError` before and behind
    the write, anything else lets it pass. `broken` makes every load raise.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, list[Message]] = {}
        self.faults: list[str] = []
        self.broken = False
        self.writes = 0
        self.written = asyncio.Event()

    async def load(self, session_id: str) -> list[Message]:
        await asyncio.sleep(0)
        if self.broken:
            raise OSError("the disk is gone")
        return list(self.sessions.get(session_id, []))

    async def save(self, session_id: str, messages: Sequence[Message]) -> None:
        fault = await self._begin()
        self._put(session_id, messages)
        await self._end(fault)

    async def delete(self, session_id: str) -> None:
        await asyncio.sleep(0)
        self.sessions.pop(session_id, None)

    async def exists(self, session_id: str) -> bool:
        return session_id in self.sessions

    def _put(self, session_id: str, messages: Sequence[Message]) -> None:
        self.writes += 1
        self.written.set()
        self.sessions[session_id] = list(messages)

    async def _begin(self) -> str:
        fault = self.faults.pop(0) if self.faults else ""
        await asyncio.sleep(0)
        if fault == "before":
            raise OSError("no room")
        return fault

    async def _end(self, fault: str) -> None:
        await asyncio.sleep(0)
        if fault == "after":
            raise OSError("no word from the disk")


class AppendingStore(SavingStore):
    """One that compares and sets, but only ever adds."""

    async def append(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        fault = await self._begin()
        present = self._expect(session_id, expected_length)
        self._put(session_id, [*present, *messages])
        await self._end(fault)

    def _expect(self, session_id: str, expected_length: int) -> list[Message]:
        present = self.sessions.get(session_id, [])
        if len(present) != expected_length:
            raise SessionConflictError(f"{len(present)} messages, not {expected_length}")
        return present


class ReplacingStore(AppendingStore):
    """One with all that a store can have."""

    async def replace(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        fault = await self._begin()
        self._expect(session_id, expected_length)
        self._put(session_id, messages)
        if not messages:
            del self.sessions[session_id]
        await self._end(fault)


def texts(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]
