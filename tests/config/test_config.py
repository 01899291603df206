"""The environment: every variable, its default, its limits, and what becomes of nonsense."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aether import Aether, config
from aether.errors import ToolLoopError
from aether.llm.contracts import LLMResponse, ToolCall
from aether.testing import FakeProvider

Read = Callable[[], Any]

NUMBERS: list[tuple[str, Read, float, float, float]] = [
    # variable, how it is read, default, smallest and greatest that may come of it
    ("AETHER_DEFAULT_TEMPERATURE", config.default_temperature, 0.7, 0, 2),
    ("AETHER_MAX_TOOL_ITERATIONS", config.max_tool_iterations, 10, 1, 1000),
    ("AETHER_MAX_DELEGATION_DEPTH", config.max_delegation_depth, 3, 0, 100),
    ("AETHER_HTTP_TOOL_TIMEOUT", config.http_tool_timeout, 10.0, 0, 600),
    ("AETHER_HTTP_TOOL_MAX_BYTES", config.http_tool_max_bytes, 100_000, 1, 10**8),
    ("AETHER_FILE_TOOL_MAX_BYTES", config.file_tool_max_bytes, 200_000, 1, 10**8),
]
TEXTS: list[tuple[str, Read, Any]] = [
    ("LLM_PROVIDER", config.provider_name, "openai"),
    ("AETHER_MODEL", config.model_reference, None),
    ("AETHER_HTTP", lambda: config.http_transport(lambda _: True), "aiohttp"),
    ("AETHER_LOCAL_MODEL", config.local_model, None),
]
OTHERS: list[tuple[str, Read]] = [
    ("AETHER_PARALLEL_TOOLS", config.parallel_tools),
    ("AETHER_FILE_TOOL_ROOT", config.file_tool_root),
    ("OPENAI_API", config.openai_api),
]
EVERY: list[tuple[str, Read]] = [
    *((name, read) for name, read, *_ in NUMBERS),
    *((name, read) for name, read, _ in TEXTS),
    *OTHERS,
]
INVALID = [
    "",
    " ",
    "ten",
    "1.5.2",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "0x10",
    "1_0",
    "\u0661\u0660",
    "--1",
    "{}",
]

numbers = pytest.mark.parametrize(
    ("name", "read", "default", "smallest", "greatest"), NUMBERS, ids=[row[0] for row in NUMBERS]
)
every = pytest.mark.parametrize(("name", "read"), EVERY, ids=[row[0] for row in EVERY])

# What an environment can hold at all: no NUL, no lone surrogates.
hostile = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])) | st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.from_regex(r"~[a-z]{0,8}(/\.\.)*", fullmatch=True),
)


class Warnings(logging.Handler):
    """The messages that were logged above the level of information."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def setting(name: str, value: str) -> Iterator[list[str]]:
    """The variable set, nothing warned of before; the warnings since."""
    handler = Warnings()
    log = logging.getLogger("aether")
    log.addHandler(handler)
    config._warned.clear()
    try:
        with mock.patch.dict(os.environ, {name: value}):
            yield handler.texts
    finally:
        log.removeHandler(handler)


@numbers
def test_default_holds_where_nothing_is_set(
    name: str, read: Read, default: float, smallest: float, greatest: float
) -> None:
    assert read() == default
    assert type(read()) is type(default)


@pytest.mark.parametrize(("name", "read", "default"), TEXTS)
def test_default_of_names(name: str, read: Read, default: Any) -> None:
    assert read() == default
    with setting(name, "  something "):
        assert read() == "something"
    with setting(name, "  "):
        assert read() == default


def test_default_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.parallel_tools() is True
    monkeypatch.chdir(tmp_path)
    assert config.file_tool_root() == tmp_path


@pytest.mark.row("C1")
@every
@given(value=hostile)
@example("")
@example("~nobody-has-this-name/x")
@example("9" * 5000)
@example("-" + "9" * 5000)
@example("1" + "0" * 400 + ".5")
def test_no_value_crashes_or_warns_twice_or_is_told(name: str, read: Read, value: str) -> None:
    with setting(name, value) as warnings:
        first = read()
        assert read() == first
    assert len(warnings) <= 1
    assert all(name in warning for warning in warnings)


@pytest.mark.row("C1")
@numbers
@given(value=hostile)
@example("0")
@example("-1")
@example("1e308")
@example("99999999999999999999")
def test_no_value_leaves_the_limits(
    name: str, read: Read, default: float, smallest: float, greatest: float, value: str
) -> None:
    with setting(name, value):
        chosen = read()
    assert type(chosen) is type(default)
    assert math.isfinite(chosen)
    assert smallest <= chosen <= greatest
    if name == "AETHER_HTTP_TOOL_TIMEOUT":
        assert chosen > 0


@pytest.mark.row("C1")
@numbers
@pytest.mark.parametrize("value", INVALID)
def test_invalid_value_is_the_default(
    name: str, read: Read, default: float, smallest: float, greatest: float, value: str
) -> None:
    with setting(name, value) as warnings:
        assert read() == default
    assert len(warnings) == (1 if value.strip() else 0)


@pytest.mark.row("C1")
@numbers
def test_value_above_the_limit_is_the_limit(
    name: str, read: Read, default: float, smallest: float, greatest: float
) -> None:
    for value in (str(int(greatest) + 1), str(10**18)):
        with setting(name, value) as warnings:
            assert read() == greatest
            assert read() == greatest
        assert len(warnings) == 1
        assert name in warnings[0]


@numbers
def test_valid_value_is_taken_without_a_word(
    name: str, read: Read, default: float, smallest: float, greatest: float
) -> None:
    for value in ("1", " 2\n", str(greatest)):
        with setting(name, value) as warnings:
            assert read() == type(default)(float(value))
        assert warnings == []


def test_fractions_are_taken_where_they_make_sense() -> None:
    with setting("AETHER_DEFAULT_TEMPERATURE", "0.25"):
        assert config.default_temperature() == 0.25
    with setting("AETHER_HTTP_TOOL_TIMEOUT", "0.5"):
        assert config.http_tool_timeout() == 0.5
    with setting("AETHER_MAX_TOOL_ITERATIONS", "2.5"):
        assert config.max_tool_iterations() == 10


@pytest.mark.row("C1")
@pytest.mark.parametrize(
    "name",
    [name for name, *_ in NUMBERS] + [name for name, _ in OTHERS],
)
def test_warning_names_the_variable_and_not_the_value(name: str) -> None:
    value = "~canary-7f3a/x"
    with setting(name, value) as warnings:
        dict(EVERY)[name]()
    assert len(warnings) == 1
    assert name in warnings[0]
    assert "canary" not in warnings[0]


@pytest.mark.row("C5")
def test_each_reading_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.max_tool_iterations() == 10
    monkeypatch.setenv("AETHER_MAX_TOOL_ITERATIONS", "3")
    assert config.max_tool_iterations() == 3
    monkeypatch.delenv("AETHER_MAX_TOOL_ITERATIONS")
    assert config.max_tool_iterations() == 10


@pytest.mark.row("C2")
@pytest.mark.parametrize("value", ["0", "false", "no", "off", "FALSE", " Off ", "NO"])
def test_parallel_tools_can_be_switched_off(value: str) -> None:
    with setting("AETHER_PARALLEL_TOOLS", value) as warnings:
        assert config.parallel_tools() is False
    assert warnings == []


@pytest.mark.row("C2")
@pytest.mark.parametrize(("value", "warned"), [("1", 0), ("true", 0), ("", 0), ("2", 1), ("nö", 1)])
def test_parallel_tools_are_on_otherwise(value: str, warned: int) -> None:
    with setting("AETHER_PARALLEL_TOOLS", value) as warnings:
        assert config.parallel_tools() is True
    assert len(warnings) == warned


def test_root_of_the_file_tool_is_the_folder_that_is_named(tmp_path: Path) -> None:
    with setting("AETHER_FILE_TOOL_ROOT", str(tmp_path)):
        assert config.file_tool_root() == tmp_path
    with setting("AETHER_FILE_TOOL_ROOT", "~"):
        assert config.file_tool_root() == Path.home()


def test_depth_of_delegation_may_be_none() -> None:
    with setting("AETHER_MAX_DELEGATION_DEPTH", "0") as warnings:
        assert config.max_delegation_depth() == 0
    assert warnings == []


@pytest.mark.row("C1")
async def test_tool_turns_of_the_environment_hold_and_are_never_endless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ping() -> str:
        """Answer."""
        return "pong"

    call = LLMResponse(text="", model="m", tool_calls=[ToolCall("1", "ping", {})])
    for value, turns in (("2", 2), ("0", 10), ("-1", 10), ("none", 10)):
        monkeypatch.setenv("AETHER_MAX_TOOL_ITERATIONS", value)
        fake = FakeProvider(responses=[call] * 20)
        with pytest.raises(ToolLoopError):
            await Aether(fake).ask("hi", tools=[ping])
        assert len(fake.requests) == turns
