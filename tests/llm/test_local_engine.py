"""The engine's life without an engine: loading, failing, stopping, closing, and what is counted.

A stand-in takes the place of the library; `test_local_model.py` has the real one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from aether.errors import (
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ContextLengthError,
    InputError,
    MissingExtraError,
    NotFoundError,
    ProtocolError,
    ProviderError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.llm.local import LocalProvider
from aether.llm.contracts import (
    CallContext,
    ImagePart,
    LLMProvider,
    LLMRequest,
    Message,
    StreamChunk,
    StreamingLLMProvider,
)
from aether.tools.contracts import Tool

Callback = Callable[[dict[str, Any]], bool]

ADD = Tool(
    "add",
    "Add two integers.",
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
    lambda a, b: a + b,
)


def chunk(text: str = "", *, finish: str | None = None, tokens: int = 1, **more: Any) -> Any:
    return {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "delta": {"content": text or None}, "finish_reason": finish}],
        "timings": {"cache_n": 4, "prompt_n": 6, "predicted_n": tokens},
        **more,
    }


def ending(finish: str = "stop", *, tokens: int = 3) -> list[Any]:
    usage = {"prompt_tokens": 10, "completion_tokens": tokens}
    return [chunk(finish=finish, tokens=tokens), {"choices": [], "usage": usage}]


class Library(ModuleType):
    """A stand-in for `xllamacpp`: plays `script` to every request, and keeps what it got."""

    def __init__(self) -> None:
        super().__init__("xllamacpp")
        self.loaded: list[Any] = []
        self.alive = 0
        self.bodies: list[dict[str, Any]] = []
        self.running = 0
        self.most_running = 0
        self.handed_over = 0
        self.script: list[Any] = [chunk("Hel"), chunk("lo", tokens=2), *ending()]
        """Chunks; an exception is raised, an event waited for."""
        self.load_error: Exception | None = None
        self.is_loading = threading.Event()
        self.may_load = threading.Event()
        self.may_load.set()
        self.lock = threading.Lock()
        library = self

        class Server:
            def __init__(self, parameters: Any) -> None:
                library.is_loading.set()
                library.may_load.wait(10)
                if library.load_error is not None:
                    raise library.load_error
                library.loaded.append(parameters)
                library.alive += 1
                weakref.finalize(self, library.free)

            def handle_chat_completions(self, body: dict[str, Any], callback: Callback) -> None:
                with library.lock:
                    library.bodies.append(body)
                    library.running += 1
                    library.most_running = max(library.most_running, library.running)
                try:
                    library.play(callback)
                finally:
                    with library.lock:
                        library.running -= 1

        self.Server = Server
        self.CommonParams = lambda: SimpleNamespace(
            model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace()
        )

    def free(self) -> None:
        self.alive -= 1

    def play(self, callback: Callback) -> None:
        for step in list(self.script):
            if isinstance(step, threading.Event):
                step.wait(10)
                continue
            if isinstance(step, Exception):
                raise step
            self.handed_over += 1
            if callback(step):
                return


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    stand_in = Library()
    monkeypatch.setitem(sys.modules, "xllamacpp", stand_in)
    return stand_in


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0")
    return path


@pytest.fixture
def provider(library: Library, model: Path) -> Iterator[LocalProvider]:
    provider = LocalProvider(model_path=model)
    yield provider
    provider._engine.close()


def request(*messages: Message, **fields: Any) -> LLMRequest:
    fields.setdefault("context", CallContext())
    return LLMRequest(messages or [Message("user", "Hi")], **fields)


async def read(provider: LocalProvider, asked: LLMRequest) -> list[StreamChunk]:
    async with aclosing(provider.stream(asked)) as chunks:
        return [one async for one in chunks]


def entry(asked: LLMRequest) -> Any:
    assert asked.context is not None
    (only,) = asked.context.entries
    return only


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for happens in a thread
        await asyncio.sleep(0.001)


def test_it_is_a_provider(provider: LocalProvider) -> None:
    assert isinstance(provider, LLMProvider)
    assert isinstance(provider, StreamingLLMProvider)


async def test_answer_with_its_tokens(provider: LocalProvider) -> None:
    asked = request()
    response = await provider.complete(asked)
    assert response.text == "Hello"
    assert response.model == provider.default_model == "tiny"
    assert response.provider == "local"
    assert response.finish_reason == response.finish_reason_raw == "stop"
    assert (response.input_tokens, response.output_tokens) == (10, 3)
    assert response.cache_read_tokens == 4
    assert response.request_id == "chatcmpl-1"
    assert (entry(asked).state, entry(asked).provider, entry(asked).model) == (
        "exact",
        "local",
        "tiny",
    )
    assert (entry(asked).input_tokens, entry(asked).output_tokens) == (10, 3)


async def test_stream_has_one_final_chunk_and_joins_to_the_text(provider: LocalProvider) -> None:
    *deltas, last = await read(provider, request())
    assert [delta.text for delta in deltas] == ["Hel", "lo"]
    assert not any(delta.is_final for delta in deltas)
    assert last.response is not None
    assert last.response.text == "Hello"
    assert (last.input_tokens, last.output_tokens) == (10, 3)


async def test_call_without_a_context_needs_no_ledger(provider: LocalProvider) -> None:
    assert (await provider.complete(request(context=None))).text == "Hello"


@pytest.mark.parametrize(
    ("finish", "expected"), [("stop", "stop"), ("length", "length"), ("strange", "other")]
)
async def test_finish_reasons(
    provider: LocalProvider, library: Library, finish: str, expected: str
) -> None:
    library.script = [chunk("a"), *ending(finish)]
    response = await provider.complete(request())
    assert response.finish_reason == expected
    assert response.finish_reason_raw == finish


async def test_reasoning_is_kept_apart(provider: LocalProvider, library: Library) -> None:
    thought = {"choices": [{"delta": {"reasoning_content": "Hm."}, "finish_reason": None}]}
    library.script = [thought, chunk("a"), *ending()]
    first, *_, last = await read(provider, request())
    assert first.reasoning == "Hm."
    assert last.response is not None
    assert (last.response.reasoning, last.response.text) == ("Hm.", "a")


async def test_sampling_as_the_model_card_has_it_where_nobody_chose(
    provider: LocalProvider, library: Library
) -> None:
    await provider.complete(request(temperature=0.7, temperature_is_default=True))
    await provider.complete(request(temperature=0.7, top_p=0.5, seed=3, max_tokens=9, stop="."))
    default, chosen = library.bodies
    assert (default["temperature"], default["top_p"], default["repeat_penalty"]) == (0.2, 0.9, 1.1)
    assert "seed" not in default
    assert "max_tokens" not in default
    assert (chosen["temperature"], chosen["top_p"], chosen["seed"]) == (0.7, 0.5, 3)
    assert (chosen["max_tokens"], chosen["stop"]) == (9, ["."])
    assert chosen["cache_prompt"] is False


async def test_engine_options_pass_through_but_the_stream_stays(
    provider: LocalProvider, library: Library
) -> None:
    await provider.complete(request(extra_body={"min_p": 0.1, "top_p": 0.3, "stream": False}))
    (body,) = library.bodies
    assert (body["min_p"], body["top_p"], body["stream"]) == (0.1, 0.3, True)


async def test_numbers_are_copied_without_a_penalty_until_a_tool_has_answered(
    provider: LocalProvider, library: Library
) -> None:
    library.script = [chunk('{"answer": "42"}'), *ending()]
    await provider.complete(request(tools=[ADD]))
    await provider.complete(request(Message("tool", "42", tool_call_id="x"), tools=[ADD]))
    first, second = library.bodies
    assert (first["repeat_penalty"], second["repeat_penalty"]) == (1.0, 1.1)


async def test_forced_tool_is_set_as_the_schema(provider: LocalProvider, library: Library) -> None:
    written = '{ "tool": "add", "arguments": {"a": 17, "b": 25} }'
    library.script = [*map(chunk, written), *ending()]
    asked = request(tools=[ADD], tool_choice="add")
    *deltas, last = await read(provider, asked)
    (body,) = library.bodies
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["tool"] == {"const": "add"}
    assert "Add two integers." in body["messages"][0]["content"]
    calls = [delta.tool_call for delta in deltas]
    assert all(calls)
    arguments = "".join(call.arguments for call in calls if call)
    assert json.loads(arguments) == {"a": 17, "b": 25}
    assert last.response is not None
    assert last.finish_reason == "tool_calls"
    (call,) = last.response.tool_calls
    assert (call.name, call.arguments) == ("add", {"a": 17, "b": 25})
    assert calls[0] is not None
    assert call.id == calls[0].id
    assert last.response.text == ""
    assert entry(asked).state == "exact"


async def test_engine_is_stopped_as_soon_as_the_reply_is_whole(
    provider: LocalProvider, library: Library
) -> None:
    held = threading.Event()
    library.script = [chunk('{"answer": "42"', tokens=7), held, chunk(" "), chunk("}"), *ending()]
    *_, last = await read(provider, request(tools=[ADD]))
    held.set()
    await until(lambda: library.running == 0)
    assert library.handed_over <= 2
    assert (last.finish_reason, last.output_tokens) == ("stop", 7)
    assert last.response is not None
    assert last.response.text == "42"


async def test_cut_call_is_no_call(provider: LocalProvider, library: Library) -> None:
    library.script = [chunk('{"tool": "add", "arguments": {"a": 17'), *ending("length")]
    response = await provider.complete(request(tools=[ADD]))
    assert response.finish_reason == "length"
    assert response.tool_calls == []


async def test_cut_answer_keeps_its_text(provider: LocalProvider, library: Library) -> None:
    library.script = [chunk('{"answer": "So far STO'), *ending("length")]
    *deltas, last = await read(provider, request(tools=[ADD], stop=["STOP"]))
    assert last.response is not None
    assert last.response.text == "So far STO"
    assert "".join(delta.text for delta in [*deltas, last]) == "So far STO"
    assert last.finish_reason == "length"


@pytest.mark.parametrize("written", ["Sure, 42!", '{"tool": "add"}', '{"answer": "42'])
async def test_reply_that_breaks_its_schema_is_an_error(
    provider: LocalProvider, library: Library, written: str
) -> None:
    library.script = [chunk(written), *ending()]
    with pytest.raises(ProtocolError, match="does not follow the schema"):
        await provider.complete(request(tools=[ADD]))


async def test_output_that_is_no_json_is_an_error(
    provider: LocalProvider, library: Library
) -> None:
    library.script = [chunk("Sure!"), *ending()]
    with pytest.raises(ProtocolError):
        await provider.complete(request(output_schema={"type": "object"}))
    library.script = [chunk("17"), *ending()]
    assert (await provider.complete(request(output_schema={"type": "integer"}))).text == "17"


async def test_wrong_requests_are_refused_before_anything_is_loaded(
    provider: LocalProvider, library: Library
) -> None:
    image = Message("user", [ImagePart(url="https://example.com/a.png")])
    lost = Tool("t", "", {"type": "object", "properties": {"a": {"$ref": "#/x"}}}, print)
    for asked in (
        request(image),
        request(tools=[lost]),
        request(tools=[ADD], tool_choice="x"),
        request(output_schema={"type": "object"}, stop=["."]),
    ):
        with pytest.raises(InputError):
            await provider.complete(asked)
        assert asked.context is not None
        assert asked.context.entries == []
    with pytest.raises(NotFoundError, match="runs tiny, not 'gpt-4'"):
        await provider.complete(request(model="gpt-4"))
    assert library.loaded == []


async def test_model_goes_by_its_name_and_by_its_reference(library: Library, model: Path) -> None:
    provider = LocalProvider(default_model=str(model))
    for name in (None, "tiny", str(model)):
        assert (await provider.complete(request(model=name))).model == "tiny"
    await provider.aclose()


async def test_long_prompt_is_a_context_length_error(
    provider: LocalProvider, library: Library
) -> None:
    report = {
        "code": 400,
        "message": "request (6031 tokens) exceeds the available context size (4096 tokens)",
        "type": "exceed_context_size_error",
    }
    library.script = [{"error": report}]
    asked = request()
    with pytest.raises(ContextLengthError, match="6031 tokens") as caught:
        await provider.complete(asked)
    assert (caught.value.provider, caught.value.model) == ("local", "tiny")
    assert (entry(asked).state, entry(asked).error) == ("not_billed", "ContextLengthError")


@pytest.mark.parametrize(
    ("code", "kind", "expected"),
    [(400, "invalid_request_error", BadRequestError), (500, "server_error", ServerError)],
)
async def test_reported_errors_are_not_tried_again(
    provider: LocalProvider, library: Library, code: int, kind: str, expected: type[ProviderError]
) -> None:
    library.script = [{"error": {"code": code, "message": "no", "type": kind}}]
    with pytest.raises(expected) as caught:
        await provider.complete(request())
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("JSON schema error"), BadRequestError),
        (RuntimeError("no such format"), ProviderError),
        (KeyError("x"), ProviderError),
    ],
)
async def test_what_the_engine_raises_is_translated(
    provider: LocalProvider, library: Library, raised: Exception, expected: type[ProviderError]
) -> None:
    library.script = [raised]
    with pytest.raises(expected) as caught:
        await provider.complete(request())
    assert caught.value.__cause__ is raised
    assert not caught.value.retryable


async def test_error_after_the_first_token_carries_what_had_come(
    provider: LocalProvider, library: Library
) -> None:
    report = {"error": {"code": 500, "message": "no", "type": "server_error"}}
    for broken in ([chunk("Hel"), report], [chunk("Hel")], [chunk("Hel"), RuntimeError("no")]):
        library.script = broken
        asked = request()
        with pytest.raises(ProviderError) as caught:
            await provider.complete(asked)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "Hel"
        assert entry(asked).state == "estimated"
        assert entry(asked).output_tokens == 1


async def test_stream_that_just_ends_is_an_error(provider: LocalProvider, library: Library) -> None:
    library.script = []
    with pytest.raises(StreamInterruptedError):
        await provider.complete(request())


async def test_model_is_loaded_once_however_many_ask(
    provider: LocalProvider, library: Library
) -> None:
    assert library.loaded == []
    await asyncio.gather(*(provider.complete(request()) for _ in range(6)))
    (parameters,) = library.loaded
    assert parameters.n_parallel == 2
    assert parameters.n_ctx == 2 * 4096
    assert parameters.verbosity == -1
    assert len(parameters.api_keys[0]) >= 32


async def test_as_many_run_at_once_as_were_asked_for(
    provider: LocalProvider, library: Library
) -> None:
    go = threading.Event()
    library.script = [go, *ending()]
    calls = [asyncio.create_task(provider.complete(request())) for _ in range(6)]
    await until(lambda: library.running == 2)
    go.set()
    await asyncio.gather(*calls)
    assert library.most_running == 2
    assert len(library.bodies) == 6


async def test_cancelled_call_stops_the_engine_and_one_that_waits_never_starts(
    provider: LocalProvider, library: Library
) -> None:
    go = threading.Event()
    library.script = [chunk("Hel"), go, *(chunk("x") for _ in range(100)), *ending()]
    asked = [request() for _ in range(3)]
    calls = [asyncio.create_task(provider.complete(one)) for one in asked]
    await until(lambda: library.handed_over == 2)
    for call in calls:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    go.set()
    await until(lambda: library.running == 0)
    assert library.handed_over <= 4
    assert len(library.bodies) == 2
    first, _, third = map(entry, asked)
    assert (first.state, first.error) == ("estimated", "CancelledError")
    assert third.state == "not_billed"
    assert (await provider.complete(request())).finish_reason == "stop"


async def test_leaving_a_stream_stops_the_engine(provider: LocalProvider, library: Library) -> None:
    go = threading.Event()
    library.script = [chunk("Hel"), go, *(chunk("x") for _ in range(100)), *ending()]
    asked = request()
    async with aclosing(provider.stream(asked)) as chunks:
        async for one in chunks:
            assert one.text == "Hel"
            break
    go.set()
    await until(lambda: library.running == 0)
    assert library.handed_over <= 2
    assert entry(asked).state == "estimated"
    assert entry(asked).output_tokens == 1


async def test_close_ends_what_runs_and_what_waits_and_frees_the_model(
    provider: LocalProvider, library: Library
) -> None:
    go = threading.Event()
    library.script = [chunk("Hel"), go, chunk("x"), *ending()]
    calls = [asyncio.create_task(provider.complete(request())) for _ in range(4)]
    await until(lambda: library.handed_over == 2)
    closing = asyncio.create_task(provider.aclose())
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [ClientClosedError] * 4
    go.set()
    await closing
    assert library.alive == 0
    await provider.aclose()
    with pytest.raises(ClientClosedError):
        await provider.complete(request())


async def test_close_while_the_model_is_loaded_keeps_nothing(
    provider: LocalProvider, library: Library
) -> None:
    library.may_load.clear()
    call = asyncio.create_task(provider.complete(request()))
    await until(library.is_loading.is_set)
    closing = asyncio.create_task(provider.aclose())
    with pytest.raises(ClientClosedError):
        await call
    library.may_load.set()
    await closing
    assert len(library.loaded) == 1
    assert library.alive == 0
    assert library.bodies == []


async def test_forgotten_provider_frees_the_model(library: Library, model: Path) -> None:
    provider = LocalProvider(model_path=model)
    await provider.complete(request())
    assert library.alive == 1
    del provider
    assert library.alive == 0


def test_one_provider_serves_loop_after_loop_and_threads(
    provider: LocalProvider, library: Library
) -> None:
    texts: list[str] = []

    def ask() -> None:
        texts.append(asyncio.run(provider.complete(request())).text)

    ask()
    ask()
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["Hello"] * 6
    assert len(library.loaded) == 1


async def test_threads_leave_room_unless_they_are_chosen(library: Library, model: Path) -> None:
    for chosen in (None, 3):
        provider = LocalProvider(model_path=model, n_threads=chosen)
        await provider.complete(request())
        await provider.aclose()
    default, three = [parameters.cpuparams.n_threads for parameters in library.loaded]
    assert 1 <= default <= max(1, (os.cpu_count() or 1) // 2)
    assert three == 3


async def test_failed_load_says_what_may_be_wrong_and_is_tried_again(
    provider: LocalProvider, library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    library.load_error = RuntimeError("Failed to init server, please check the input params.")
    asked = request()
    with pytest.raises(ConfigurationError, match=r"tiny\.gguf.*pip install --upgrade xllamacpp"):
        await provider.complete(asked)
    assert entry(asked).state == "not_billed"
    library.load_error = None
    assert (await provider.complete(request())).text == "Hello"
    assert capsys.readouterr().err == ""


def test_file_that_changed_is_looked_at_again_before_it_is_loaded(
    provider: LocalProvider, library: Library, model: Path
) -> None:
    model.write_bytes(b"<html>")
    with pytest.raises(ConfigurationError, match="not a GGUF file"):
        asyncio.run(provider.complete(request()))
    assert library.loaded == []


async def test_missing_library_names_the_command_that_installs_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    provider = LocalProvider(model_path=model)
    with pytest.raises(
        MissingExtraError, match=r"pip install 'aether-framework\[local\]'"
    ) as caught:
        await provider.complete(request())
    assert "wheels for Linux with glibc" in str(caught.value)
    await provider.aclose()


async def test_loading_can_be_shown(
    library: Library, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = LocalProvider(model_path=model, progress=True)
    await provider.complete(request())
    await provider.aclose()
    assert capsys.readouterr().err.startswith("Loading tiny ... done in ")
