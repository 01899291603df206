"""Cases that are easily got wrong where retry, breaker, streams and the tool loop meet."""

from __future__ import annotations

from typing import Any

import pytest

from aether import Aether
from aether.errors import (
    CircuitOpenError,
    ProtocolError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import LLMResponse, ToolCall
from aether.testing import FaultServer, faults
from tests.faults.aftermath import Aftermath
from tests.faults.exchanges import (
    ADD,
    CALLING,
    HELLO,
    MODEL,
    PROTOCOLS,
    Way,
    both_ways,
    call,
    each_protocol,
    each_transport,
    first_event,
    is_open,
    opened,
    states,
)
from tests.faults.virtual import stack
from tests.llm.scripted import Clock, Scripted, an_answer


@pytest.mark.row("S14")
@each_protocol
@each_transport
@pytest.mark.parametrize("after_content", [False, True])
async def test_an_error_event_is_tried_again_only_before_the_first_content(
    protocol: str, transport: str, after_content: bool, aftermath: Aftermath
) -> None:
    first = first_event(protocol, b"Hel") + 1
    event = faults.error_event("overloaded", after=first if after_content else 0)
    async with (
        FaultServer(event) as server,
        opened(aftermath, server, protocol, transport, attempts=3) as client,
    ):
        came = await call(client, "stream")
        if after_content:
            error = came.failed()
            assert isinstance(error, StreamInterruptedError)
            assert error.partial is not None
            assert error.partial.text == came.text != ""
            assert (error.attempts, server.count) == (1, 1)
            assert is_open(client)
        else:
            assert came.succeeded() == HELLO.text
            assert server.count == 2
            assert not is_open(client)


@pytest.mark.row("S12")
@each_protocol
async def test_an_event_that_is_no_json_is_not_tried_again_even_before_the_first_content(
    protocol: str, aftermath: Aftermath
) -> None:
    """A server that breaks its protocol breaks it again: nothing says that it will not."""
    garbled = faults.edit(lambda events: [b"data: {not json\n\n", *events])
    async with (
        FaultServer(garbled) as server,
        opened(aftermath, server, protocol, attempts=3, fails=True) as client,
    ):
        error = (await call(client, "stream")).failed()
        assert isinstance(error, ProtocolError)
        assert (error.attempts, server.count) == (1, 1)
        assert is_open(client)


@pytest.mark.row("S18")
@each_transport
async def test_usage_that_is_lost_after_the_finish_is_estimated_and_nothing_is_asked_again(
    transport: str, aftermath: Aftermath
) -> None:
    """Chat Completions tell it in an event of its own, after the one that says why it ended."""
    finish = first_event("openai", b'"finish_reason": "stop"') + 1
    async with (
        FaultServer(faults.cut(events=finish)) as server,
        opened(aftermath, server, "openai", transport, attempts=3) as client,
    ):
        [*_, last] = [chunk async for chunk in client.stream("Hi")]
        assert last.response is not None
        assert (last.response.text, last.response.finish_reason) == (HELLO.text, "stop")
        assert (last.input_tokens, last.output_tokens) == (None, None)
        assert (states(client), client.usage.is_exact) == (["estimated"], False)
        assert server.count == 1
        assert not is_open(client)


@pytest.mark.row("H10", "H15")
@each_protocol
@each_transport
@both_ways
async def test_the_second_turn_of_a_tool_loop_is_tried_again_and_no_tool_is_run_again(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    runs: list[tuple[int, int]] = []

    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        runs.append((a, b))
        return a + b

    async with (
        FaultServer(CALLING, faults.refuse("server"), faults.reset()) as server,
        opened(aftermath, server, protocol, transport, attempts=3) as client,
    ):
        assert (await call(client, way, tools=[add])).succeeded() == HELLO.text
        assert runs == [(ADD.arguments["a"], ADD.arguments["b"])]
        assert server.count == 4
        assert states(client) == ["exact", "unknown", "unknown", "exact"]
        bodies = [request.body for request in server.requests]
        assert bodies[1] == bodies[2] == bodies[3] != bodies[0]


@pytest.mark.row("H5", "H16")
@each_protocol
async def test_each_provider_of_a_client_has_a_circuit_of_its_own(
    protocol: str, aftermath: Aftermath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they have models of the same name."""
    others = [name for name in PROTOCOLS if "." not in name and not protocol.startswith(name)]
    async with FaultServer(reply=faults.refuse("server")) as failing, FaultServer() as well:
        for other in others:
            monkeypatch.setenv(f"{other.upper()}_BASE_URL", well.base_url(other))
            monkeypatch.setenv(f"{other.upper()}_API_KEY", aftermath.key)
        config = failing.config(protocol, api_key=aftermath.key)
        monkeypatch.setitem(RetryingProvider.__init__.__kwdefaults__ or {}, "random", lambda: 0.0)
        async with Aether(config=config) as client:
            aftermath.client(client)
            for _ in range(5):
                assert isinstance((await call(client, "ask")).error, ServerError)
            assert isinstance((await call(client, "ask")).error, CircuitOpenError)
            for other in others:
                assert (await call(client, "ask", model=f"{other}:{MODEL}")).succeeded()
            assert (failing.count, well.count) == (15, len(others))
            assert isinstance((await call(client, "ask")).error, CircuitOpenError)


async def test_a_response_that_a_tool_loop_got_by_retries_says_so_of_its_own_turn() -> None:
    clock = Clock()
    calling = an_answer("", tool_calls=[ToolCall("1", "now", {})], finish_reason="tool_calls")
    script: list[Any] = [ServerError("no"), calling, ServerError("no"), ServerError("no")]
    attempts: list[int] = []

    async def now() -> str:
        """The time."""
        return "noon"

    async with Aether(stack(Scripted(*script, an_answer()), clock)) as client:

        @client.on("request.complete")
        def note(event: Any) -> None:
            attempts.append(event.response.attempts)

        [response] = await clock.run(client.complete("When?", tools=[now]))
    assert isinstance(response, LLMResponse)
    assert (response.attempts, attempts) == (3, [2, 3])
