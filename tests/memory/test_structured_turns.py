"""Turns with a type: what is stored of them, and that a failure changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from aether import Aether
from aether.errors import OutputError, SessionSaveError
from aether.extensions.memory import InMemorySessionStore
from aether.llm.contracts import LLMResponse, Message
from aether.llm.messages import StructuredResponse
from aether.memory.session import Session
from aether.testing import FakeProvider
from tests.memory.talking import texts


class Person(BaseModel):
    name: str


ADA = '{"name": "Ada"}'


class FailingStore(InMemorySessionStore):
    async def append(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        raise OSError("disk full")

    async def replace(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        raise OSError("disk full")


async def turn(session: Session, prompt: str, *, streamed: bool, **options: Any) -> Any:
    if not streamed:
        return await session.ask(prompt, output=Person, **options)
    chunks = [chunk async for chunk in session.stream(prompt, output=Person, **options)]
    assert all(chunk.is_partial for chunk in chunks[:-1])
    assert chunks[-2].partial == {"name": "Ada"}
    return chunks[-1].output


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_turn_gives_the_value_and_stores_the_text(*, streamed: bool) -> None:
    async with Aether(FakeProvider(responses=["Hello.", ADA, "Bye."])) as client:
        session = client.session("s", system="Be brief.")
        await session.ask("Hi")
        assert await turn(session, "Who?", streamed=streamed) == Person(name="Ada")
        await session.ask("Bye")
        assert texts(await session.history()) == [
            ("system", "Be brief."),
            ("user", "Hi"),
            ("assistant", "Hello."),
            ("user", "Who?"),
            ("assistant", ADA),
            ("user", "Bye"),
            ("assistant", "Bye."),
        ]


@pytest.mark.parametrize("streamed", [False, True])
async def test_tries_that_failed_are_not_stored(*, streamed: bool) -> None:
    async with Aether(FakeProvider(responses=["Ada!", ADA])) as client:
        session = client.session("s")
        assert await turn(session, "Who?", streamed=streamed) == Person(name="Ada")
        assert texts(await session.history()) == [("user", "Who?"), ("assistant", ADA)]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_turn_without_an_answer_of_the_type_leaves_no_trace(*, streamed: bool) -> None:
    cut = LLMResponse('{"name": "Ad', "fake", finish_reason="length")
    async with Aether(FakeProvider(responses=["Hello.", "?", cut, ADA])) as client:
        session = client.session("s")
        await session.ask("Hi")
        before = await session.history()
        with pytest.raises(OutputError) as caught:
            await turn(session, "Who?", streamed=streamed, output_retries=0)
        assert [message.text for message in caught.value.messages] == ["Hi", "Hello.", "Who?", "?"]
        with pytest.raises(OutputError):
            await turn(session, "Who?", streamed=streamed)
        assert await session.history() == before
        assert await turn(session, "Who?", streamed=streamed) == Person(name="Ada")


async def test_leaving_a_stream_early_leaves_no_trace() -> None:
    async with Aether(FakeProvider(ADA)) as client:
        session = client.session("s")
        async with session.stream("Who?", output=Person) as chunks:
            await anext(aiter(chunks))
        assert await session.history() == []
        assert await session.ask("Who?", output=Person) == Person(name="Ada")


async def test_an_answer_that_could_not_be_stored_is_in_the_error() -> None:
    async with Aether(FakeProvider(ADA), memory_store=FailingStore()) as client:
        with pytest.raises(SessionSaveError) as caught:
            await client.session("s").ask("Who?", output=Person)
    assert isinstance(caught.value.response, StructuredResponse)
    assert caught.value.response.output == Person(name="Ada")


async def test_complete_gives_the_response() -> None:
    async with Aether(FakeProvider(ADA)) as client:
        response = await client.session("s").complete("Who?", output=Person)
    assert isinstance(response, StructuredResponse)
    assert response.output == Person(name="Ada")
