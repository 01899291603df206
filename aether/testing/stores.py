"""The conformance suite of session stores: what every `SessionStore` must do, as tests.

It must not know where a store keeps what it is given. Run your own through it:

    from aether.testing.stores import SessionStoreConformance

    class TestMyStore(SessionStoreConformance):
        def make_store(self):
            return MyStore(...)     # an empty one

pytest collects the inherited tests; they need pytest-asyncio, in any mode, or its like.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aether.errors import SessionConflictError
from aether.llm.contracts import ImagePart, Message, TextPart, ToolCall
from aether.memory.contracts import (
    AppendingSessionStore,
    ReplacingSessionStore,
    SessionStore,
)
from aether.testing._asynchronous import AsynchronousTests

__all__ = ["SessionStoreConformance"]

_HELLO = [Message("user", "hello"), Message("assistant", "hi")]
_MORE = [Message("user", "and?"), Message("assistant", "well")]
_RICH = [
    Message("system", "Be brief. \N{SNOWMAN} \U0001f600 \x00 \u2028"),
    Message("user", [TextPart(text="what is this?"), ImagePart(url="https://example.com/a.png")]),
    Message("user", [ImagePart(data=b"\x00\xff", media_type="image/png")]),
    Message(
        "assistant",
        "",
        tool_calls=[
            ToolCall("c1", "add", {"a": 1.5, "b": [None, {"c": "\u00e4"}]}),
            ToolCall("c2", "add", invalid_arguments='{"a": '),
        ],
        provider_state={"openai": {"items": [1, "x", None]}},
    ),
    Message("tool", "no", tool_call_id="c1", is_error=True),
]


class SessionStoreConformance(AsynchronousTests):
    """Inherit from it, and say how to make the store."""

    def make_store(self) -> SessionStore | Awaitable[SessionStore]:
        """A new, empty store."""
        raise NotImplementedError("say how to make the store")

    async def test_an_unknown_session_is_empty(self) -> None:
        async with self._store() as store:
            assert await store.load("nobody") == []
            assert not await store.exists("nobody")
            await store.delete("nobody")

    async def test_what_was_saved_is_loaded(self) -> None:
        async with self._store() as store:
            await store.save("a", _RICH)
            assert await store.load("a") == _RICH
            assert await store.exists("a")

    async def test_what_others_may_have_written_stays_marked(self) -> None:
        messages = [
            Message("user", "a page that I found", untrusted=True),
            Message("assistant", "made from it", untrusted=True),
            Message("assistant", "made of nothing"),
            Message("tool", "the time", tool_call_id="c1", untrusted=False),
            Message("tool", "a page", tool_call_id="c2"),
        ]
        async with self._store() as store:
            await store.save("a", messages)
            loaded = await store.load("a")
        assert [message.untrusted for message in loaded] == [True, True, False, False, True]

    async def test_saving_replaces_all(self) -> None:
        async with self._store() as store:
            await store.save("a", [*_HELLO, *_MORE])
            await store.save("a", _MORE)
            assert await store.load("a") == _MORE

    async def test_what_was_deleted_is_gone(self) -> None:
        async with self._store() as store:
            await store.save("a", _HELLO)
            await store.save("b", _MORE)
            await store.delete("a")
            assert await store.load("a") == []
            assert not await store.exists("a")
            assert await store.load("b") == _MORE

    @pytest.mark.parametrize(
        "name", ["a/b", "../x", "%", "*", "'; --", "\U0001f600", " ", "A", "\u202e", "x" * 200]
    )
    async def test_an_id_means_itself_alone(self, name: str) -> None:
        async with self._store() as store:
            await store.save("a", _HELLO)
            await store.save(name, _MORE)
            assert await store.load(name) == _MORE
            assert await store.load("a") == _HELLO
            await store.delete(name)
            assert await store.load("a") == _HELLO

    async def test_what_is_stored_cannot_be_changed_from_outside(self) -> None:
        state: dict[str, object] = {"x": [1]}
        messages = [Message("user", "a", provider_state={"p": state})]  # type: ignore[dict-item]
        async with self._store() as store:
            await store.save("a", messages)
            messages.append(Message("user", "b"))
            state["x"] = [2]
            loaded = await store.load("a")
            assert loaded == [Message("user", "a", provider_state={"p": {"x": [1]}})]
            loaded[0].provider_state["p"] = None
            loaded.clear()
            again = await store.load("a")
            assert again == [Message("user", "a", provider_state={"p": {"x": [1]}})]

    async def test_many_sessions_at_once_do_not_mix(self) -> None:
        async with self._store() as store:
            await asyncio.gather(
                *(store.save(f"s{i}", [Message("user", str(i))]) for i in range(50))
            )
            loaded = await asyncio.gather(*(store.load(f"s{i}") for i in range(50)))
        assert [messages[0].content for messages in loaded] == [str(i) for i in range(50)]

    async def test_appending_adds_behind_what_is_there(self) -> None:
        async with self._appending() as store:
            await store.append("a", _HELLO, expected_length=0)
            await store.append("a", _MORE, expected_length=2)
            assert await store.load("a") == [*_HELLO, *_MORE]
            assert await store.exists("a")

    @pytest.mark.parametrize("expected", [0, 1, 3])
    async def test_appending_to_another_length_changes_nothing(self, expected: int) -> None:
        async with self._appending() as store:
            await store.save("a", _HELLO)
            with pytest.raises(SessionConflictError):
                await store.append("a", _MORE, expected_length=expected)
            assert await store.load("a") == _HELLO

    async def test_a_refused_append_makes_no_session(self) -> None:
        async with self._appending() as store:
            with pytest.raises(SessionConflictError):
                await store.append("a", _MORE, expected_length=2)
            assert not await store.exists("a")

    async def test_of_many_appends_to_one_length_one_succeeds(self) -> None:
        async with self._appending() as store:
            outcomes = await asyncio.gather(
                *(
                    store.append("a", [Message("user", str(i))], expected_length=0)
                    for i in range(20)
                ),
                return_exceptions=True,
            )
            assert len(await store.load("a")) == 1
        assert outcomes.count(None) == 1
        assert sum(isinstance(outcome, SessionConflictError) for outcome in outcomes) == 19

    async def test_replacing_puts_other_messages_in_place_of_all(self) -> None:
        async with self._replacing() as store:
            await store.replace("a", _HELLO, expected_length=0)
            assert await store.load("a") == _HELLO
            await store.replace("a", [_RICH[0], *_HELLO, *_MORE], expected_length=2)
            assert await store.load("a") == [_RICH[0], *_HELLO, *_MORE]
            await store.append("a", _MORE, expected_length=5)
            assert await store.load("a") == [_RICH[0], *_HELLO, *_MORE, *_MORE]

    async def test_replacing_with_nothing_forgets_the_session(self) -> None:
        async with self._replacing() as store:
            await store.save("a", _HELLO)
            await store.replace("a", [], expected_length=2)
            assert await store.load("a") == []
            assert not await store.exists("a")

    @pytest.mark.parametrize("expected", [0, 1, 3])
    async def test_replacing_another_length_changes_nothing(self, expected: int) -> None:
        async with self._replacing() as store:
            await store.save("a", _HELLO)
            for messages in (_MORE, []):
                with pytest.raises(SessionConflictError):
                    await store.replace("a", messages, expected_length=expected)
            assert await store.load("a") == _HELLO

    async def test_a_refused_replacement_makes_no_session(self) -> None:
        async with self._replacing() as store:
            with pytest.raises(SessionConflictError):
                await store.replace("a", _MORE, expected_length=2)
            assert not await store.exists("a")

    async def test_what_replaced_cannot_be_changed_from_outside(self) -> None:
        state: dict[str, Any] = {"x": [1]}
        async with self._replacing() as store:
            message = Message("user", "a", provider_state={"p": state})
            await store.replace("a", [message], expected_length=0)
            for shared in (message, (await store.load("a"))[0]):
                inner: Any = shared.provider_state["p"]
                inner["x"].append(2)
                shared.tool_calls.append(ToolCall("c", "add"))
            assert await store.load("a") == [Message("user", "a", provider_state={"p": {"x": [1]}})]

    async def test_closing_twice_is_fine(self) -> None:
        async with self._store() as store:
            await store.save("a", _HELLO)
            await _close(store)

    def test_it_works_in_one_loop_after_another(self) -> None:
        made = self.make_store()
        if inspect.isawaitable(made):
            return  # it belongs to the loop that makes it

        async def once(number: int) -> int:
            await made.save(f"s{number}", _HELLO)
            return len(await made.load("s0"))

        assert [asyncio.run(once(i)) for i in range(3)] == [2, 2, 2]
        asyncio.run(_close(made))

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[SessionStore]:
        made = self.make_store()
        store = await made if inspect.isawaitable(made) else made
        assert isinstance(store, SessionStore), (
            f"{type(store).__name__} lacks one of load(), save(), delete() and exists()"
        )
        try:
            yield store
        finally:
            await _close(store)

    @asynccontextmanager
    async def _appending(self) -> AsyncIterator[AppendingSessionStore]:
        async with self._store() as store:
            if not isinstance(store, AppendingSessionStore):
                pytest.skip("this store has no append: it is for one writer only")
            yield store

    @asynccontextmanager
    async def _replacing(self) -> AsyncIterator[ReplacingSessionStore]:
        async with self._store() as store:
            if not isinstance(store, ReplacingSessionStore):
                pytest.skip("this store has no replace")
            yield store


async def _close(store: SessionStore) -> None:
    close = getattr(store, "aclose", None)
    if close is not None:
        await close()
