"""The public API as a user's code, with the types that a user's editor shows.

mypy and pyright read it, both strict; test_sample.py runs it on a provider without a model.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypedDict, assert_type

from pydantic import BaseModel

import aether
from aether import (
    Aether,
    AetherError,
    Agent,
    Message,
    ProviderConfig,
    SessionStore,
    Tool,
    __version__,
    register,
    register_provider,
    register_tool,
)
from aether.agent import AgentResult, StructuredResult
from aether.errors import CircuitOpenError, OutputError, ProviderError
from aether.events import REQUEST_COMPLETE, Event, EventBus
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider, Usage
from aether.extensions.llm.retrying import RetryingProvider
from aether.extensions.memory import InMemorySessionStore
from aether.llm import ask
from aether.llm.contracts import (
    FinishReason,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    StreamChunk,
    StreamingLLMProvider,
    TokenUsage,
    ToolCall,
)
from aether.llm.messages import StructuredChunk, StructuredResponse
from aether.memory.session import Session
from aether.registry import Registry
from aether.sync import SyncAether
from aether.testing import FakeProvider
from aether.tools import dispatch_tool, get_tool, list_tools
from aether.tools.contracts import NextHandler, ToolInvocation, ToolMiddleware, ToolResult


@register_tool(description="Adds two numbers.")
def sample_add(a: int, b: int = 0) -> int:
    """Adds.

    Args:
        a: the first number
        b: the second number
    """
    return a + b


@register_tool
async def sample_shout(text: str) -> str:
    """Says it louder."""
    return text.upper()


@register_provider("sample", api_key_env="SAMPLE_API_KEY", model_env="SAMPLE_MODEL")
class SampleProvider:
    def __init__(self, api_key: str | None = None, default_model: str = "sample-1") -> None:
        self.default_model = default_model

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        return LLMResponse(text=request.messages[-1].text, model=request.model or "sample-1")


class SampleStreamingProvider(SampleProvider):
    async def stream(self, request: LLMRequest, /) -> AsyncIterator[StreamChunk]:
        response = await self.complete(request)
        yield StreamChunk(text=response.text)
        yield StreamChunk(finish_reason="stop", response=response)


@register("poem", "short", language="en")
def poem() -> str:
    return "an old silent pond"


async def approve(call: ToolInvocation, next: NextHandler, /) -> ToolResult | str:
    return "refused" if call.name == "sample_shout" else await next(call)


async def use_the_client(provider: LLMProvider) -> None:
    middleware: Sequence[ToolMiddleware] = [approve]
    async with Aether(provider, events=EventBus(), tool_middleware=middleware) as client:
        assert_type(client, Aether)
        assert_type(client.provider, LLMProvider)
        assert_type(client.usage, Usage)
        assert_type(client.sync, SyncAether)

        seen: list[Event] = []

        @client.on(REQUEST_COMPLETE)
        def remember(event: Event) -> None:
            seen.append(event)

        assert_type(remember(Event(name="request.complete", run_id="1")), None)

        answer = await client.ask("Hello", model="m", temperature=0.1, max_tokens=10)
        assert_type(answer, str)
        response = await client.complete(
            [Message(role="user", content="Hello")],
            tools=["sample_add", sample_shout, get_tool("sample_add")],
            tool_choice="auto",
            parallel_tools=False,
            max_tool_iterations=3,
        )
        assert_type(response, LLMResponse)
        assert_type(response.finish_reason, FinishReason | None)
        assert_type(response.input_tokens, int | None)
        assert_type(response.tool_calls, list[ToolCall])
        assert_type(response.message, Message)

        async for text in client.stream_text("Hello"):
            assert_type(text, str)
        async with client.stream("Hello") as chunks:
            async for chunk in chunks:
                assert_type(chunk, StreamChunk)
                assert_type(chunk.response, LLMResponse | None)

        assert_type(client.usage.total_cost_usd, float)
        assert_type(client.usage.by_model, dict[str, TokenUsage])
        assert len(seen) == 1 + 2
        await client.warm_up()


class Recipe(BaseModel):
    title: str
    minutes: int = 10


@dataclass
class Point:
    x: int


class City(TypedDict):
    name: str


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


async def use_types_of_output(answering: Callable[[str], LLMProvider]) -> None:
    async with Aether(answering('{"title": "Pancakes"}')) as client:
        assert_type(await client.ask("?", output=Recipe), Recipe)
        response = await client.complete("?", output=Recipe, tools=[sample_add], output_retries=1)
        assert_type(response, StructuredResponse[Recipe])
        assert_type(response.output, Recipe)
        assert_type(response.text, str)
        async with client.stream("?", output=Recipe) as chunks:
            async for chunk in chunks:
                assert_type(chunk, StructuredChunk[Recipe])
                assert_type(chunk.output, Recipe | None)
                assert_type(chunk.partial, Any)
                assert_type(chunk.is_partial, bool)

        session = client.session("one")
        assert_type(await session.ask("?", output=Recipe), Recipe)
        assert_type(await session.complete("?", output=Recipe), StructuredResponse[Recipe])
        async for piece in session.stream("?", output=Recipe):
            assert_type(piece, StructuredChunk[Recipe])

        cook = Agent("cook", client=client)
        result = await cook.run("?", output=Recipe)
        assert_type(result, StructuredResult[Recipe])
        assert_type(result.output, Recipe)
        plain: AgentResult = result
        assert_type(plain.text, str)
        async for piece in cook.stream("?", output=Recipe):
            assert_type(piece, StructuredChunk[Recipe])

        try:
            await client.ask("?", output=Point, output_retries=0)
        except OutputError as error:
            assert_type(error.text, str)
            assert_type(error.problems, list[str])
            assert_type(error.messages, list[Message])
            assert_type(error.usage, TokenUsage | None)
            assert_type(error.response, LLMResponse | None)

    async with Aether(answering('{"value": {"x": 1}}')) as client:
        assert_type(await client.ask("?", output=Point | None), Point | None)
        assert_type(await client.ask("?", output=Point | list[Point]), Point | list[Point])
        assert_type(await client.ask("?", output=dict[str, Point]), dict[str, Point])
    async with Aether(answering('{"name": "Rome"}')) as client:
        assert_type(await client.ask("?", output=City), City)
    async with Aether(answering('{"value": "good"}')) as client:
        assert_type(await client.ask("?", output=Mood), Mood)
        mood = await client.ask("?", output=Literal["good", "bad"])
        assert_type(mood, Literal["good", "bad"])
        assert_type(await client.ask("?", output=str), str)
        assert_type(await client.ask("?", output=str | None), str | None)
    async with Aether(answering('{"value": 1}')) as client:
        assert_type(await client.ask("?", output=int), int)
        response_of = await client.complete("?", output=Literal[1, 2] | None)
        assert_type(response_of.output, Literal[1, 2] | None)
        async for number in client.stream("?", output=int | None):
            assert_type(number, StructuredChunk[int | None])
    async with Aether(answering('{"value": [1]}')) as client:
        assert_type(await client.ask("?", output=list[int]), list[int])
        assert_type(await client.ask("?", output=tuple[int, ...]), tuple[int, ...])


def use_types_of_output_blocking(provider: LLMProvider) -> None:
    client = Aether(provider)
    assert_type(client.sync.ask("?", output=Recipe), Recipe)
    assert_type(client.sync.complete("?", output=Recipe), StructuredResponse[Recipe])
    for chunk in client.sync.stream("?", output=Recipe):
        assert_type(chunk, StructuredChunk[Recipe])
    session = client.sync.session("one")
    assert_type(session.ask("?", output=Recipe), Recipe)
    assert_type(session.complete("?", output=Recipe).output, Recipe)
    for chunk in session.stream("?", output=Recipe):
        assert_type(chunk.output, Recipe | None)
    client.sync.close()


async def use_what_type_checkers_refuse(client: Aether) -> None:
    """Run by nobody: each call is an error to both type checkers, or the comment would be one."""
    schema = {"type": "object"}
    await client.ask("?", output=5)  # type: ignore[call-overload]  # a value is no type
    await client.ask("?", output=Recipe(title="x"))  # type: ignore[call-overload]  # nor is this
    await client.ask("?", output=schema)  # type: ignore[call-overload]  # that is output_schema
    await client.ask("?", output=int, retries=1)  # type: ignore[call-overload]  # no such option
    await client.ask("?", output=int, output_retries="1")  # type: ignore[call-overload]  # a text
    client.stream_text("?", output=Recipe)  # type: ignore[call-arg]  # text has one type


async def use_the_one_liner() -> None:
    assert_type(await ask("?"), str)
    assert_type(await ask("?", output=int | None), int | None)


async def use_sessions(provider: LLMProvider) -> None:
    store: SessionStore = InMemorySessionStore()
    async with Aether(provider, memory_store=store) as client:
        session = client.session("one", system="Be brief.")
        assert_type(session, Session)
        assert_type(await session.ask("Hello"), str)
        async for text in session.stream_text("And again"):
            assert_type(text, str)
        assert_type(await session.history(), list[Message])
        await session.clear()


async def use_agents(client: Aether) -> None:
    writer = Agent("writer", instructions="Write.", tools=[sample_shout], client=client)
    lead = Agent("lead", tools=[writer.as_tool(max_depth=1)], client=client)
    assert_type(writer.as_tool(), Tool)
    assert_type(await lead.run_text("A poem"), str)
    result = await lead.run("A poem")
    assert_type(result, AgentResult)
    assert_type(result.messages, list[Message])
    assert_type(result.usage, TokenUsage)


async def use_tools() -> None:
    assert_type(sample_add(1, b=2), int)
    assert_type(await sample_shout("hi"), str)
    by_hand = Tool(
        name="by_hand",
        description="Made by hand.",
        parameters={"type": "object", "properties": {}},
        handler=lambda: "done",
    )
    assert_type(by_hand.handler, Callable[..., Any])
    assert_type(list_tools(), list[Tool])
    call = ToolCall(id="1", name="sample_add", arguments={"a": 1})
    assert_type(await dispatch_tool(call), ToolResult)


async def use_decorators() -> None:
    inner = FakeProvider(responses=[LLMResponse(text="hi", model="m", input_tokens=1)])
    retrying = RetryingProvider(inner, max_attempts=2, base_delay=0.1, max_delay=1.0)
    guarded = CircuitBreakerProvider(retrying, failure_threshold=2, recovery_timeout=1.0)
    tracked = CostTrackingProvider(guarded)
    streaming: StreamingLLMProvider = tracked
    request = LLMRequest(messages=(Message(role="user", content="Hello"),))
    try:
        assert_type(await streaming.complete(request), LLMResponse)
    except CircuitOpenError as error:
        assert_type(error.retry_after, float)
    except ProviderError as error:
        assert_type(error.status, int | None)
        assert_type(error.retryable, bool)
    except AetherError:
        raise
    assert_type(inner.requests, list[LLMRequest])


def use_it_blocking(provider: LLMProvider) -> None:
    client = Aether(provider)
    assert_type(client.sync.ask("Hello"), str)
    for text in client.sync.stream_text("Hello"):
        assert_type(text, str)
    client.sync.close()


def configure() -> list[Aether]:
    registry = Registry()
    registry.add("llm_provider", "own", SampleProvider)
    explicit = ProviderConfig(provider="own", model="own-1", api_key="k")
    return [
        Aether(config=explicit, registry=registry),
        Aether(config=ProviderConfig(provider="fake"), with_retry=False),
        Aether(SampleStreamingProvider(), with_cost_tracking=False),
    ]


one_liner: Callable[..., Awaitable[str]] = ask
version: str = __version__


def misspell() -> Sequence[Callable[[], object]]:
    """What a checker tells of, too."""
    return [
        lambda: aether.Agnt,  # type: ignore[attr-defined]
        lambda: aether.memory.Sesion,  # type: ignore[attr-defined]
        lambda: aether.tools.Tol,  # type: ignore[attr-defined]
    ]
