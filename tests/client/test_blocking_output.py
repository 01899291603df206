"""Values of a type from the blocking calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aether import Aether
from aether.errors import OutputError
from aether.events import STREAM_ERROR, Event
from aether.sync import SyncAether
from aether.testing import FakeProvider


@pytest.fixture
def sync() -> Iterator[SyncAether]:
    with Aether(FakeProvider('{"value": [1, 2]}')).sync as sync:
        yield sync


def test_a_call_gives_the_value(sync: SyncAether) -> None:
    assert sync.ask("?", output=list[int]) == [1, 2]
    assert sync.complete("?", output=list[int]).output == [1, 2]
    assert sync.ask("?") == '{"value": [1, 2]}'


def test_a_session_gives_the_value(sync: SyncAether) -> None:
    session = sync.session("s")
    assert session.ask("?", output=set[int]) == {1, 2}
    assert session.complete("?", output=list[int]).output == [1, 2]
    assert [chunk.output for chunk in session.stream("?", output=list[int])][-1] == [1, 2]
    assert len(session.history()) == 6


def test_a_stream_shows_the_value_as_it_comes(sync: SyncAether) -> None:
    *deltas, final = sync.stream("?", output=list[int])
    assert [chunk.partial for chunk in deltas] == [None, None, [], [1, 2], [1, 2]]
    assert final.output == [1, 2]


def test_an_answer_of_another_type_is_an_error(sync: SyncAether) -> None:
    with pytest.raises(OutputError) as caught:
        sync.ask("?", output=int)
    assert caught.value.usage is not None
    assert caught.value.usage.requests == 3
    with pytest.raises(OutputError):
        list(sync.stream("?", output=int, output_retries=0))


def test_a_stream_left_early_is_released_at_once() -> None:
    client = Aether(FakeProvider('{"value": [1, 2]}'))
    ended: list[Event] = []
    client.events.subscribe(STREAM_ERROR, ended.append)
    with client.sync as sync, sync.stream("?", output=list[int]) as chunks:
        next(chunks)
        chunks.close()
        assert [event.cancelled for event in ended] == [True]
