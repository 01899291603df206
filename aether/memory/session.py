"""A session: a conversation that is remembered, turn by whole turn.

It must not know how an answer comes about or where messages are stored: the client hands it both.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack, overload

from aether.errors import InputError, SessionError
from aether.llm.deadline import Deadline, deadline_after
from aether.llm.messages import (
    LLMResponse,
    Message,
    StreamChunk,
    StructuredChunk,
    StructuredResponse,
    text_message,
)
from aether.llm.scope import current_scope
from aether.llm.streaming import OwnedStream, text_of
from aether.memory._history import History, Stored
from aether.memory._turns import Owner, Turn, TurnQueue
from aether.memory.contracts import SessionStore

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from aether.engine.options import CallOptions
    from aether.llm.budget import Budget

__all__ = ["Conversation", "Session"]

T = TypeVar("T")


class Conversation(Protocol):
    """How a session reaches the model."""

    async def complete_turn(
        self, messages: Sequence[Message], *, session: Session, options: Mapping[str, Any]
    ) -> LLMResponse: ...

    def stream_turn(
        self, messages: Sequence[Message], *, session: Session, options: Mapping[str, Any]
    ) -> AsyncGenerator[StreamChunk, None]: ...


class Session:
    """A conversation under an id. Made by `client.session(...)`.

    A turn is the user's message and the model's final text; tool turns in between are not kept.
    It is stored, whole, when the model has answered and before the answer is handed out. A turn
    that fails, is cancelled (also while it is being stored) or whose stream is left early leaves
    the history as it was.

    Turns run one at a time, in the order in which they were asked for; a stream asks when its
    first item is read. Asking a session from inside its own turn (from a tool that it runs, or
    from the task that reads its stream) raises `SessionError`.

    A prompt may be a sequence of user and assistant messages, without tool calls, that ends with
    the user's: all of them are stored. The options are those of `Aether.ask`; what `timeout=`
    limits begins when the turn is asked for, and ends when the model has answered: an answer that
    is there is stored. An empty system prompt is none. All turns draw on `budget`.
    """

    def __init__(
        self,
        session_id: str,
        *,
        conversation: Conversation,
        store: SessionStore,
        system: str | None = None,
        budget: Budget | None = None,
    ) -> None:
        if not isinstance(session_id, str):
            raise TypeError(f"a session id is a string, not {type(session_id).__name__}")
        if not session_id:
            raise InputError("A session id cannot be empty.")
        self._session_id = session_id
        self._conversation = conversation
        self._history = History(store, session_id)
        self._queue = TurnQueue()
        self.budget = budget
        self._system: Message | None = None
        if system is not None:
            self.set_system(system)

    @property
    def session_id(self) -> str:
        """The id under which it is stored."""
        return self._session_id

    def set_system(self, system: str) -> None:
        """Put another system prompt in place of the stored one, from the next turn."""
        if not isinstance(system, str):
            raise TypeError(f"a system prompt is a string, not {type(system).__name__}")
        self._system = Message(role="system", content=system) if system else None

    @overload
    async def ask(
        self,
        prompt: str | Sequence[Message],
        *,
        output: None = None,
        **options: Unpack[CallOptions],
    ) -> str: ...
    @overload
    async def ask(
        self,
        prompt: str | Sequence[Message],
        *,
        output: TypeForm[T],
        **options: Unpack[CallOptions],
    ) -> T: ...
    async def ask(
        self,
        prompt: str | Sequence[Message],
        *,
        output: Any = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """The model's final text, or with `output` a value of that type.

        It is stored when this returns.
        """
        response = await self.complete(prompt, output=output, **options)
        return response.text if output is None else response.output

    @overload
    async def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        output: None = None,
        **options: Unpack[CallOptions],
    ) -> LLMResponse: ...
    @overload
    async def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        output: TypeForm[T],
        **options: Unpack[CallOptions],
    ) -> StructuredResponse[T]: ...
    async def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        output: Any = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """The final response, which is stored when this returns.

        `SessionSaveError` and `SessionConflictError` carry the response that could not be stored.
        """
        asked = _as_turn(prompt)
        limit = _limit(options)
        with await self._begin(_this_task(), limit):
            before = await limit.wait_for(self._history.load)
            system = self._system or before.system
            response = await self._conversation.complete_turn(
                [*before.messages(system), *asked],
                session=self,
                options=_in_time({**options, "output": output}, limit),
            )
            await self._store(asked, response, system, before)
        return response

    @overload
    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        output: None = None,
        **options: Unpack[CallOptions],
    ) -> OwnedStream[StreamChunk]: ...
    @overload
    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        output: TypeForm[T],
        **options: Unpack[CallOptions],
    ) -> OwnedStream[StructuredChunk[T]]: ...
    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        output: Any = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """The answer's chunks. It is stored before the final chunk is handed out."""
        asked = _as_turn(prompt)
        every = {**options, "output": output}
        return _owned(lambda owner: self._chunks(asked, every, owner))

    def stream_text(
        self, prompt: str | Sequence[Message], **options: Unpack[CallOptions]
    ) -> OwnedStream[str]:
        """The answer's text as it comes, stored when the stream has been read to its end."""
        asked = _as_turn(prompt)
        return _owned(lambda owner: text_of(self._chunks(asked, options, owner)))

    def refuse_reentry(self, caller: object) -> None:
        """Raise `SessionError` inside a turn of this session, or if `caller` reads its stream.

        For who calls on behalf of another: `caller` is the task or thread that would wait.
        """
        scope = current_scope.get()
        inside = scope is not None and any(session is self for session in scope.sessions)
        if inside or self._queue.belongs_to(caller):
            raise SessionError(
                f"Session {self._session_id[:80]!r} was asked from inside its own turn, which "
                "cannot end before it has an answer. Use another session, or finish the turn first."
            )

    async def history(self) -> list[Message]:
        """What is stored: the system message, if any, and the turns. Waits for no turn."""
        stored = await self._history.load()
        return stored.messages(stored.system)

    async def clear(self) -> None:
        """Forget all that is stored, after the turns that were asked for before."""
        with await self._begin(_this_task(), _limit({})):
            await self._history.delete()

    async def _chunks(
        self, asked: tuple[Message, ...], options: Mapping[str, Any], owner: Owner
    ) -> AsyncGenerator[StreamChunk, None]:
        final: StreamChunk | None = None
        limit = _limit(options)
        with await self._begin(owner, limit):
            before = await limit.wait_for(self._history.load)
            system = self._system or before.system
            chunks = self._conversation.stream_turn(
                [*before.messages(system), *asked],
                session=self,
                options=_in_time(options, limit),
            )
            async with aclosing(chunks):
                async for chunk in chunks:
                    if chunk.is_final:
                        final = chunk
                    else:
                        yield chunk
            if final is None or final.response is None:
                raise SessionError("The turn's stream ended without its final chunk.")
            await self._store(asked, final.response, system, before)
        yield final

    async def _store(
        self,
        asked: tuple[Message, ...],
        response: LLMResponse,
        system: Message | None,
        before: Stored,
    ) -> None:
        answer = response.message
        content = response.text if isinstance(answer.content, str) else answer.content
        answered = Message(
            role="assistant",
            content=content,
            provider_state=answer.provider_state,
            untrusted=answer.untrusted,
        )
        await self._history.add((*asked, answered), system=system, before=before, response=response)

    async def _begin(self, owner: Owner, limit: Deadline) -> Turn:
        self.refuse_reentry(owner() or asyncio.current_task())  # nobody may hold the stream
        return await limit.wait_for(partial(self._queue.take, owner))

    def __repr__(self) -> str:
        return f"Session({self._session_id[:80]!r})"


def _as_turn(prompt: str | Sequence[Message]) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        return (text_message("user", prompt),)
    messages = tuple(prompt)
    for message in messages:
        if not isinstance(message, Message):
            raise TypeError(
                f"a prompt is a string or a sequence of Message, not of {type(message).__name__}"
            )
        if message.role not in ("user", "assistant") or message.tool_calls:
            raise InputError(
                "A session's prompt has user and assistant messages without tool calls, as its "
                "history has; the system prompt is given to client.session(id, system=...)."
            )
    if not messages or messages[-1].role != "user":
        raise InputError("A session's prompt ends with a user message.")
    return messages


def _limit(options: Mapping[str, Any]) -> Deadline:
    """The turn's deadline, or that of the run that asks for it if it comes sooner."""
    own = deadline_after(options.get("timeout"))
    scope = current_scope.get()
    asking = None if scope is None else scope.deadline
    return Deadline(min((at for at in (own, asking) if at is not None), default=None))


def _in_time(options: Mapping[str, Any], limit: Deadline) -> Mapping[str, Any]:
    """The options, with what is left of their `timeout`."""
    if options.get("timeout") is None:
        return options
    limit.check()
    return {**options, "timeout": limit.left()}


def _this_task() -> Owner:
    task = asyncio.current_task()
    return (lambda: None) if task is None else weakref.ref(task)


def _owned(make: Callable[[Owner], AsyncGenerator[T, None]]) -> OwnedStream[T]:
    """The stream whose turn belongs to whichever task reads it."""
    own: weakref.ref[OwnedStream[T]] | None = None

    def owner() -> object:
        stream = None if own is None else own()
        return None if stream is None else stream.reader

    stream = OwnedStream(make(owner))
    own = weakref.ref(stream)
    return stream
