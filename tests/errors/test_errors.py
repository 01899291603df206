"""The tree of errors: its shape, what each carries, and that it survives copying."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest

import aether.errors
from aether import Aether, AetherError, ProviderConfig
from aether.errors import (
    AuthenticationError,
    BadRequestError,
    CircuitOpenError,
    ClientClosedError,
    ConfigurationError,
    ContentFilterError,
    ContextLengthError,
    InputError,
    MissingExtraError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    SessionConflictError,
    SessionError,
    SessionSaveError,
    StreamInterruptedError,
    ToolError,
    ToolLoopError,
    UnknownNameError,
)
from aether.llm.contracts import LLMResponse, Message, TokenUsage, ToolCall
from aether.testing import FakeProvider

ALL: list[type[AetherError]] = [
    error
    for _, error in inspect.getmembers(aether.errors, inspect.isclass)
    if issubclass(error, AetherError)
]
OF_PROVIDERS = [error for error in ALL if issubclass(error, ProviderError)]
RESPONSE = LLMResponse(text="half", model="m", tool_calls=[ToolCall("1", "t", {"a": [1]})])


def filled(cls: type[AetherError]) -> AetherError:
    """One of that class with everything set that it takes."""
    values: dict[str, Any] = {
        "provider": "openai",
        "model": "m",
        "status": 418,
        "request_id": "req-1",
        "attempts": 3,
        "retryable": True,
        "retry_after": 1.5,
        "partial": RESPONSE,
        "kind": "tls",
        "messages": [Message("user", "hi"), RESPONSE.message],
        "usage": TokenUsage(2, 3, 4),
        "response": RESPONSE,
    }
    known = inspect.signature(cls.__init__).parameters
    return cls("It happened.", **{name: values[name] for name in known if name in values})


every = pytest.mark.parametrize("cls", ALL)


# --- the tree ---------------------------------------------------------------------------------


def test_all_that_is_promised_is_there_and_exported() -> None:
    assert {error.__name__ for error in ALL} == set(aether.errors.__all__)
    assert aether.AetherError is AetherError


@every
def test_root_is_the_one(cls: type[AetherError]) -> None:
    assert issubclass(cls, AetherError)
    assert issubclass(cls, Exception)


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        (ConfigurationError, ValueError),
        (UnknownNameError, ConfigurationError),
        (UnknownNameError, LookupError),
        (MissingExtraError, ImportError),
        (ClientClosedError, RuntimeError),
        (InputError, ValueError),
        (RequestTimeoutError, TimeoutError),
        (ProviderConnectionError, ConnectionError),
        (ContextLengthError, BadRequestError),
        (ContentFilterError, BadRequestError),
        (ToolLoopError, ToolError),
        (SessionConflictError, SessionError),
        (SessionSaveError, SessionError),
        *(
            (child, ProviderError)
            for child in (
                AuthenticationError,
                PermissionDeniedError,
                NotFoundError,
                BadRequestError,
                ContextLengthError,
                ContentFilterError,
                RateLimitError,
                QuotaExceededError,
                OverloadedError,
                ServerError,
                RequestTimeoutError,
                ProviderConnectionError,
                StreamInterruptedError,
                ProtocolError,
            )
        ),
    ],
)
def test_child_has_its_parent(child: type, parent: type) -> None:
    assert issubclass(child, parent)


@pytest.mark.parametrize("cls", [CircuitOpenError, ToolError, SessionError, ConfigurationError])
def test_what_is_no_fault_of_a_call_is_no_provider_error(cls: type) -> None:
    assert not issubclass(cls, ProviderError)


# --- what they carry --------------------------------------------------------------------------


@pytest.mark.parametrize("cls", OF_PROVIDERS)
def test_provider_error_has_its_attributes(cls: type[ProviderError]) -> None:
    bare = cls("It happened.")
    assert str(bare) == "It happened."
    assert (bare.provider, bare.model, bare.status, bare.request_id) == (None, None, None, None)
    assert (bare.attempts, bare.retry_after, bare.partial) == (1, None, None)
    assert isinstance(bare.retryable, bool)
    full = filled(cls)
    assert isinstance(full, ProviderError)
    assert (full.provider, full.model, full.status, full.request_id) == (
        "openai",
        "m",
        418,
        "req-1",
    )
    assert (full.attempts, full.retryable, full.retry_after) == (3, True, 1.5)
    assert full.partial is RESPONSE


def test_only_what_may_succeed_later_is_retryable() -> None:
    retryable = {error for error in OF_PROVIDERS if error("x").retryable}
    assert retryable == {
        RateLimitError,
        OverloadedError,
        ServerError,
        RequestTimeoutError,
        ProviderConnectionError,
        StreamInterruptedError,
    }
    assert RateLimitError("x", retryable=False).retryable is False
    assert AuthenticationError("x", retryable=True).retryable is True


def test_open_circuit_says_when_to_come_back() -> None:
    error = CircuitOpenError("Open.", retry_after=12.5, provider="openai", model="m")
    assert (error.retry_after, error.provider, error.model) == (12.5, "openai", "m")


def test_tool_loop_carries_a_transcript_of_its_own() -> None:
    messages = [Message("user", "hi")]
    error = ToolLoopError("Too long.", messages=messages, usage=TokenUsage(1))
    messages.clear()
    assert [message.text for message in error.messages] == ["hi"]
    assert error.usage == TokenUsage(1)


@pytest.mark.parametrize("cls", [SessionSaveError, SessionConflictError])
def test_session_errors_carry_the_answer(cls: Any) -> None:
    assert cls("x", response=RESPONSE).response is RESPONSE
    assert cls("x").response is None


@every
@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        *(
            lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
            for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_error_survives_copying_whole(cls: type[AetherError], again: Any) -> None:
    error = filled(cls)
    error.add_note("a note")
    twin = again(error)
    assert type(twin) is cls
    assert str(twin) == str(error) == "It happened."
    assert twin.args == error.args
    assert vars(twin) == vars(error)
    assert twin.__notes__ == ["a note"]


@every
def test_error_can_be_raised_and_shown(cls: type[AetherError]) -> None:
    error = filled(cls)
    with pytest.raises(cls) as raised:
        raise error
    assert "It happened." in repr(raised.value)


def test_subclass_of_ones_own_survives_copying_too() -> None:
    assert pickle.loads(pickle.dumps(OwnError("x", status=400))).status == 400


class OwnError(ProviderError):
    pass


def test_error_crosses_a_process_as_futures_do_it() -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        future = pool.submit(fail_there)
        with pytest.raises(RequestTimeoutError, match="elsewhere") as raised:
            future.result(30)
    assert (raised.value.status, raised.value.attempts) == (504, 2)


def fail_there() -> None:
    raise RequestTimeoutError("elsewhere", status=504, attempts=2)


# --- which is raised where --------------------------------------------------------------------


def test_wrong_use_of_python_is_a_plain_type_error() -> None:
    with pytest.raises(TypeError) as raised:
        Aether(FakeProvider(), config=ProviderConfig())
    assert not isinstance(raised.value, AetherError)


def test_setting_that_cannot_work_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        Aether(config=ProviderConfig(provider="openai"))
    with pytest.raises(LookupError, match="openai"):
        Aether(config=ProviderConfig(provider="opneai"))


def test_closed_client_is_a_runtime_error_too() -> None:
    async def use() -> None:
        client = Aether(FakeProvider())
        await client.aclose()
        await client.ask("hi")

    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(use())


def test_missing_extra_is_an_import_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from aether._optional import require

    with pytest.raises(ImportError, match=r"aether-framework\[local\]") as raised:
        require("no_such_module_here", extra="local")
    assert isinstance(raised.value, MissingExtraError)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("raise ImportError('libgomp.so.1: cannot open')", r"libgomp\.so\.1"),
        ("import no_such_module_here", "no_such_module_here"),
    ],
)
def test_an_extra_that_is_there_but_broken_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, told: str
) -> None:
    from aether._optional import require

    (tmp_path / "a_broken_extra.py").write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match=rf"cannot be imported \(.*{told}.*pip install"):
        require("a_broken_extra", extra="local")
