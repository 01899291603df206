"""The facade: the only place that joins the engine and the extensions.

It must not know how a provider is called, a loop is run or a session is kept.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload
from weakref import WeakValueDictionary

from aether.config import ProviderConfig
from aether.engine.context import RunContext
from aether.engine.options import CallOptions, as_messages, build_request, set_options
from aether.engine.run import Run
from aether.errors import ClientClosedError
from aether.events import EventBus
from aether.extensions.llm.builder import Stack, build_stack, wrap_provider, wrap_run
from aether.extensions.llm.cost_tracking import Usage
from aether.extensions.llm.factory import config_of_another, split_model
from aether.extensions.llm.settings import read_settings
from aether.llm.ask import set_client_factory
from aether.llm.budget import checked_budget
from aether.llm.contracts import Layer, LLMProvider
from aether.llm.messages import (
    LLMResponse,
    Message,
    StreamChunk,
    StructuredChunk,
    StructuredResponse,
)
from aether.llm.streaming import OwnedStream, text_of
from aether.llm.wrapper import describe
from aether.memory.contracts import KIND as SESSION_STORE
from aether.memory.contracts import SessionStore
from aether.registry import Registry, default_registry

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from aether.llm.budget import Budget
    from aether.llm.caching import ResponseCache
    from aether.llm.estimate import Estimate
    from aether.llm.policies import Fallbacks, Hedge, RateLimit
    from aether.memory.session import Session
    from aether.sync import SyncAether
    from aether.tools.contracts import ToolMiddleware

__all__ = ["Aether"]

T = TypeVar("T")
S = TypeVar("S", bound=Callable[..., Any])


class Aether:
    """A client: one provider with its stack, tools, sessions, events and usage.

    `Aether()` reads the environment, `Aether(config=...)` takes an explicit configuration, and
    `Aether(provider)` takes a provider or a stack that you built: it is used as it is, without
    retry or breaker, and is closed with the client. Cost tracking is put around it unless it has
    it already.

    One client serves many tasks at once, several event loops one after another, and threads.
    """

    def __init__(
        self,
        provider: LLMProvider | None = None,
        /,
        *,
        config: ProviderConfig | None = None,
        with_retry: bool = True,
        with_circuit_breaker: bool = True,
        with_cost_tracking: bool = True,
        budget: Budget | None = None,
        cache: bool | str | ResponseCache | None = None,
        fallbacks: Sequence[str | LLMProvider] | Fallbacks | None = None,
        hedge: bool | Hedge | None = None,
        rate_limit: RateLimit | None = None,
        layers: Sequence[Layer] = (),
        events: EventBus | None = None,
        memory_store: SessionStore | None = None,
        tool_middleware: Sequence[ToolMiddleware] = (),
        registry: Registry | None = None,
    ) -> None:
        if provider is not None and config is not None:
            raise TypeError("pass either a provider or config=, not both")
        if config is not None and not isinstance(config, ProviderConfig):
            raise TypeError(f"config is a ProviderConfig, not {type(config).__name__}")
        if isinstance(provider, type):
            raise TypeError(f"a provider is an instance, such as {provider.__name__}(), no class")
        if provider is not None and not isinstance(provider, LLMProvider):
            raise TypeError(
                f"a provider has `async def complete(self, request)`; {type(provider).__name__} "
                "has not. To name one, use Aether(config=ProviderConfig(provider=...))."
            )
        if events is not None and not isinstance(events, EventBus):
            raise TypeError(f"events is an EventBus, not {type(events).__name__}")
        if memory_store is not None and (
            isinstance(memory_store, type) or not isinstance(memory_store, SessionStore)
        ):
            raise TypeError(
                "memory_store is an instance with async load, save, delete and exists, such as "
                f"InMemorySessionStore(), not {memory_store!r}"
            )
        if not isinstance(tool_middleware, Sequence) or not all(map(callable, tool_middleware)):
            raise TypeError("tool_middleware is a list of async functions (call, next) -> result")
        self.events = EventBus() if events is None else events
        self._registry = default_registry if registry is None else registry
        self._middleware = tuple(tool_middleware)
        given = config or ProviderConfig()
        self._settings = read_settings(
            given,
            registry=self._registry,
            with_retry=with_retry,
            with_circuit_breaker=with_circuit_breaker,
            with_cost_tracking=with_cost_tracking,
            budget=budget,
            cache=cache,
            fallbacks=fallbacks,
            hedge=hedge,
            rate_limit=rate_limit,
            layers=layers,
        )
        # How requests are sent, also to other providers; not the configuration, which has the key.
        self._sending = ProviderConfig(transport=given.transport, timeout=given.timeout)
        usage = Usage() if with_cost_tracking else Usage.disabled()
        self._stack: Stack
        if provider is not None:
            self._stack = wrap_provider(
                provider, registry=self._registry, usage=usage, settings=self._settings
            )
        else:
            self._stack = self._build(given, usage)
        self._others: dict[str, Stack] = {}
        self._store = memory_store
        self._sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()
        self._lock = threading.Lock()
        self._sync: SyncAether | None = None
        self._closed = False

    @property
    def provider(self) -> LLMProvider:
        """The composed stack that calls go through."""
        return self._stack.provider

    @property
    def usage(self) -> Usage:
        """What this client has used so far, live."""
        return self._stack.usage

    @property
    def sync(self) -> SyncAether:
        """The same calls, blocking, on a private event loop. Works where a loop is running too."""
        with self._lock:
            if self._sync is None:
                self._check_open()
                from aether.sync import SyncAether

                self._sync = SyncAether(self)
            return self._sync

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
        """The final assistant text, or with `output` a value of that type.

        Tools, if given, are run until the model answers. A type is anything that pydantic
        describes: a model, a dataclass, a TypedDict, a list, a Literal, an enum, a union. An
        answer of another type is shown to the model with what is wrong, `output_retries` times;
        then `OutputError` has the last text.
        """
        if output is None:
            return (await self.prepare(prompt, options).complete()).text
        return (await self.prepare(prompt, {**options, "output": output}).complete()).output

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
        """The final response: the last turn's, where tools took several.

        With `output`, its `output` is a value of that type, as `ask` gives it.
        """
        if output is None:
            return await self.prepare(prompt, options).complete()
        return await self.prepare(prompt, {**options, "output": output}).complete()

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
        """The chunks of every turn as they come; the last one is final and has the usage of all.

        With `output`, each has the value so far as `partial`, and the last one has `output`.
        """
        return OwnedStream(self.prepare(prompt, {**options, "output": output}).stream())

    def stream_text(
        self, prompt: str | Sequence[Message], **options: Unpack[CallOptions]
    ) -> OwnedStream[str]:
        """The text of every turn as it comes, in deltas that are not empty."""
        return OwnedStream(text_of(self.prepare(prompt, options).stream()))

    async def estimate(
        self, prompt: str | Sequence[Message], *, output: Any = None, **options: Unpack[CallOptions]
    ) -> Estimate:
        """What the same call of `ask` would use at least and at most. Nothing is sent.

        At most is what a budget would set aside for it; with tools, for each of the
        `max_tool_iterations` turns that it may take, of which all but the first may read as much as
        a model can. It leaves out attempts that fail and are repeated, what fallbacks and hedges
        use, and what tools themselves do; and that an answer from the cache would cost nothing. A
        cost is `None` if no price is known. The prices are loaded, in a worker thread, if
        they were not yet.
        """
        from aether.extensions.llm.estimating import estimate_calls

        run = self.prepare(prompt, {**options, "output": output})
        stack, _ = self._route(options.get("model"))
        turns = run.context.most_turns() if run.context.tools else 1
        if output is not None:
            turns += run.context.output_retries
        return await estimate_calls(
            run.request, provider=stack.name, turns=turns, prices=stack.usage.prices
        )

    def session(
        self, session_id: str, system: str | None = None, *, budget: Budget | None = None
    ) -> Session:
        """The session of that id; the same object while anyone holds it.

        A system prompt or a budget given again takes the place of the one before from the next
        turn.
        """
        checked_budget(budget)
        self._check_open()
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None:
                from aether.memory.session import Session

                session = Session(
                    session_id,
                    conversation=_Conversation(self),
                    store=self._session_store(),
                    system=system,
                    budget=budget,
                )
                self._sessions[session_id] = session
            else:
                if system is not None:
                    session.set_system(system)
                session.budget = budget or session.budget
        return session

    def on(self, event_name: str) -> Callable[[S], S]:
        """A decorator that subscribes a sync or async callback and returns it unchanged."""
        return self.events.on(event_name)

    async def warm_up(self) -> None:
        """Load now what is loaded on first need: the prices, in a worker thread."""
        await self.usage.warm_up()

    def explain(self) -> str:
        """Print what runs, and return the same text: the layers in order, how each is set, where
        every setting came from, and a warning for each order of layers that breaks a promise.
        """
        from aether.extensions.llm.explaining import explain

        text = explain(
            self.provider,
            self._settings,
            choice=self._stack.choice,
            others=self._stack.others,
            given=self._stack.given,
        )
        sys.stdout.write(f"{text}\n")
        return text

    async def aclose(self) -> None:
        """Close the connections. Twice is fine; a call after it raises `ClientClosedError`."""
        if self._closed:
            return
        with self._lock:
            self._closed = True
            stacks = (self._stack, *self._others.values())
        async with AsyncExitStack() as closing:  # one that fails keeps no other open
            if self._sync is not None:
                closing.callback(self._sync.stop)
            close = getattr(self._settings.cache, "aclose", None)
            if close is not None and self._settings.owns_cache:
                closing.push_async_callback(close)
            for stack in stacks:
                close = getattr(stack.provider, "aclose", None)
                if close is not None:
                    closing.push_async_callback(close)

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"Aether({describe(self.provider)})"

    def prepare(
        self,
        prompt: str | Sequence[Message],
        options: Mapping[str, Any],
        *,
        agent: str | None = None,
        session: Session | None = None,
        depth: int = 0,
        budgets: Sequence[Budget] = (),
    ) -> Run:
        """A run that is ready to go. For who builds on the client, as agents and sessions do."""
        self._check_open()
        messages = as_messages(prompt)
        stack, model = self._route(options.get("model"))
        if session is not None and session.budget is not None:
            budgets = (*budgets, session.budget)
        context = RunContext(
            client=self,
            events=self.events,
            middleware=self._middleware,
            agent=agent,
            session=session,
            depth=depth,
            budgets=budgets,
        )
        if options:
            set_options(context, options, self._registry)
        request = build_request(messages, options, model=model, run=context)
        return Run(wrap_run(stack, context.budgets), request, context)

    def _route(self, model: str | None) -> tuple[Stack, str | None]:
        """The stack that serves the model, and the model's plain name."""
        stack = self._stack
        if model is not None and not isinstance(model, str):
            raise TypeError(f"a model is named by a string, not {type(model).__name__}")
        if model is not None and ":" in model:
            provider, name = split_model(model, self._registry)
            if provider is not None:
                model = name
                if provider != stack.name:
                    stack = self._other(provider)
        if model is None:
            model = getattr(stack.provider, "default_model", None)
        return stack, model

    def _other(self, provider: str) -> Stack:
        with self._lock:
            stack = self._others.get(provider)
            if stack is None:
                config = config_of_another(self._sending, provider, self._registry)
                stack = self._build(config, self.usage)
                self._others[provider] = stack
            return stack

    def _build(self, config: ProviderConfig, usage: Usage) -> Stack:
        return build_stack(config, registry=self._registry, usage=usage, settings=self._settings)

    def _session_store(self) -> SessionStore:
        if self._store is None:
            store: SessionStore = self._registry.get(SESSION_STORE, "memory")()
            self._store = store
        return self._store

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("This client is closed. Make a new one.")


class _Conversation:
    """How a session reaches the model: through its client, as runs of the session."""

    def __init__(self, client: Aether) -> None:
        self._client = client

    async def complete_turn(
        self, messages: Sequence[Message], *, session: Session, options: Mapping[str, Any]
    ) -> LLMResponse:
        return await self._client.prepare(messages, options, session=session).complete()

    def stream_turn(
        self, messages: Sequence[Message], *, session: Session, options: Mapping[str, Any]
    ) -> AsyncGenerator[StreamChunk, None]:
        return self._client.prepare(messages, options, session=session).stream()


set_client_factory(Aether)
