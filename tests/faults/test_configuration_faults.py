"""Nonsense in the environment: every variable with two hundred values, and what becomes of each.

An invalid value is the default, or at the limit, and is warned of once, by the variable's name. One
that would send a key or a prompt astray is an error when the client is made. No value is shown.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aether import Aether, AetherError, Agent, ProviderConfig, config
from aether.errors import ConfigurationError
from aether.extensions.llm.registry import KIND
from aether.llm.contracts import LLMRequest, ToolCall
from aether.registry import default_registry
from aether.testing import FakeProvider
from tests.faults.aftermath import KEY, Aftermath
from tests.faults.ways import WAYS, Way, calling, get_answer, saying

CANARY = "canary-7f3a"

INTEGERS = {
    # variable: how it is read, its default, the least and the most that may come of it
    "AETHER_MAX_TOOL_ITERATIONS": (config.max_tool_iterations, 10, 1, 1000),
    "AETHER_MAX_DELEGATION_DEPTH": (config.max_delegation_depth, 3, 0, 100),
    "AETHER_HTTP_TOOL_MAX_BYTES": (config.http_tool_max_bytes, 100_000, 1, 10**8),
    "AETHER_FILE_TOOL_MAX_BYTES": (config.file_tool_max_bytes, 200_000, 1, 10**8),
}
FLOATS = {
    "AETHER_DEFAULT_TEMPERATURE": (config.default_temperature, 0.7, 0.0, 2.0),
    "AETHER_HTTP_TOOL_TIMEOUT": (config.http_tool_timeout, 10.0, math.ulp(0.0), 600.0),
}
WORDS: dict[str, tuple[Callable[[], Any], Any, Mapping[str, Any]]] = {
    # variable: how it is read, its default, and what other words mean, in small letters
    "AETHER_PARALLEL_TOOLS": (
        config.parallel_tools,
        True,
        {
            **dict.fromkeys(("0", "false", "no", "off"), False),
            **dict.fromkeys(("1", "true", "yes", "on"), True),
        },
    ),
    "OPENAI_API": (
        config.openai_api,
        "auto",
        {"auto": "auto", "chat": "chat", "responses": "responses"},
    ),
    "AETHER_HTTP": (
        lambda: config.http_transport(lambda name: name in ("aiohttp", "httpx")),
        "aiohttp",
        {"aiohttp": "aiohttp", "httpx": "httpx"},
    ),
}
NAMES = {
    "LLM_PROVIDER": (config.provider_name, "openai"),
    "AETHER_MODEL": (config.model_reference, None),
    "AETHER_LOCAL_MODEL": (config.local_model, None),
}

PROVIDERS = default_registry.names(KIND)


def variables(kind: str) -> list[tuple[str, str]]:
    """Provider and variable, for each variable of this kind that a provider is registered with."""
    found = []
    for name in PROVIDERS:
        named = default_registry.entry(KIND, name).metadata.get(kind) or ()
        found += [(name, each) for each in ((named,) if isinstance(named, str) else named)]
    return found


KEYS, MODELS, ADDRESSES = (variables(kind) for kind in ("api_key_env", "model_env", "base_url_env"))


def _values() -> list[str]:
    """Two hundred values: those that are known to go wrong, and any others."""
    known = [
        *("", " ", "\t\n", "0", "1", "2", "3", " 3 ", "-0", "+7", "007", "-1", "-3", "10", "99"),
        *("100", "101", "600", "601", "1000", "1001", "99999", "100000000", "100000001"),
        *("2.0", "2.1", "0.5", ".5", "5.", "1e0", "1e-9", "1e9", "1E3", "1e308", "1e309", "-1e9"),
        *("nan", "NaN", "inf", "-inf", "Infinity", "1_000", "1__0", "0x10", "0b1", "0o7", "1,5"),
        *("1 0", "1\n0", "--1", "+-1", "1.5.2", "1e", "e1", "½", "\uff13", "٣", "\N{MINUS SIGN}1"),
        *("true", "TRUE", "False", "no", "NO", "off", "Off", "on", "yes", "y", "n", "nein", "None"),
        *("auto", "chat", "responses", "aiohttp", "httpx", "AIOHTTP", "chat ", "completions"),
        *("~", "~nobody-has-this-name/x", "/", ".", "..", "/dev/null", "C:\\x", "${HOME}", "$(id)"),
        *("x" * 100_000, "9" * 100_000, "-" + "9" * 100_000, "1" + "0" * 400 + ".5", "0" * 5000),
        *("{}", "[]", "null", '"3"', "'3'", ";", "--", "\u202e3", "\ufeff3", "3\u200b", "💥"),
    ]
    random, letters = Random(7), "0123456789+-.eExX_ \tinfa/~:"
    while len(set(known)) < 200:
        known.append("".join(random.choices(letters, k=random.randrange(1, 12))))
    return list(dict.fromkeys(known))


VALUES = _values()
INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


class Told(logging.Handler):
    """What Aether logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def warnings(self) -> list[str]:
        """Its warnings."""
        return [r.getMessage() for r in self.records if r.levelno >= logging.WARNING]

    @property
    def texts(self) -> list[str]:
        """All that was logged, and with which arguments."""
        return [f"{record.getMessage()} {record.args!r}" for record in self.records]


@contextmanager
def setting(**values: str) -> Iterator[Told]:
    """With these variables set, and nothing warned of before: what is logged meanwhile."""
    told, log = Told(), logging.getLogger("aether")
    level = log.level
    log.addHandler(told)
    log.setLevel(logging.DEBUG)
    config._warned.clear()
    before = {name: os.environ.pop(name, None) for name in values}
    os.environ.update(values)
    try:
        yield told
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
        log.removeHandler(told)
        log.setLevel(level)


# --- C1, C2: Aether's own variables -----------------------------------------------------------


def test_there_are_two_hundred_values() -> None:
    assert len(VALUES) == 200


def within(number: Any, default: Any, least: Any, most: Any) -> tuple[Any, int]:
    """What becomes of a number, and how many warnings there are."""
    if number is None or number < least:
        return default, 1
    return (most, 1) if number > most else (number, 0)


def judge(name: str, read: Callable[[], Any], value: str, expected: Any, warnings: int) -> None:
    """What is read is as expected, with so many warnings, which name the variable and no value."""
    with setting(**{name: value}) as told:
        came = [read() for _ in range(3)]
    assert came == [expected] * 3, (name, value[:50])
    assert type(came[0]) is type(expected)
    assert len(told.warnings) == warnings, (name, value[:50], told.warnings)
    for warning in told.warnings:
        assert warning.startswith(f"{name} is not valid; using the ")
        assert len(warning) < 120


@pytest.mark.row("C1")
@pytest.mark.parametrize("name", INTEGERS)
def test_number_that_is_none_is_the_default_and_one_too_great_is_the_limit(name: str) -> None:
    read, default, least, most = INTEGERS[name]
    for value in VALUES:
        text = value.strip()
        number = int(text) if INTEGER.fullmatch(text) else None
        expected, warnings = within(number, default, least, most)
        judge(name, read, value, expected, warnings if text else 0)


@pytest.mark.row("C1")
@pytest.mark.parametrize("name", FLOATS)
def test_fraction_that_is_none_is_the_default_and_one_too_great_is_the_limit(name: str) -> None:
    read, default, least, most = FLOATS[name]
    for value in VALUES:
        text = value.strip()
        number = float(text) if FLOAT.fullmatch(text) and len(text) <= 40 else None
        if number is not None and math.isinf(number):
            number = None
        expected, warnings = within(number, default, least, most)
        judge(name, read, value, expected, warnings if text else 0)


@pytest.mark.row("C1", "C2")
@pytest.mark.parametrize("name", WORDS)
def test_word_that_means_nothing_is_the_default(name: str) -> None:
    read, default, known = WORDS[name]
    for value in VALUES:
        word = value.strip()
        if name == "AETHER_PARALLEL_TOOLS":
            word = word.lower()
        expected = known.get(word, default)
        judge(name, read, value, expected, int(bool(word) and word not in known))


@pytest.mark.row("C1")
@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_taken_as_it_is_but_for_the_space_around_it(name: str) -> None:
    read, default = NAMES[name]
    for value in VALUES:
        judge(name, read, value, value.strip() or default, 0)


@pytest.mark.row("C1")
def test_any_folder_is_taken_but_for_the_home_of_nobody() -> None:
    for value in VALUES:
        text = value.strip()
        nobody = text.startswith("~") and text.partition("/")[0] != "~"
        expected = Path.cwd() if nobody or not text else Path(text).expanduser()
        judge("AETHER_FILE_TOOL_ROOT", config.file_tool_root, value, expected, int(nobody))


@pytest.mark.row("C1")
@pytest.mark.parametrize("way", WAYS)
async def test_no_value_keeps_a_client_from_answering(way: Way, aftermath: Aftermath) -> None:
    client = aftermath.client(Aether(FakeProvider("hello")))
    names = [*INTEGERS, *FLOATS, *WORDS]
    for value in VALUES[:: 1 if way == "ask" else 10]:
        with setting(**dict.fromkeys(names, value)):
            assert (await get_answer(client, way)).text == "hello"
    for request in client.provider.inner.requests:  # type: ignore[attr-defined]  # the fake's
        assert 0 <= request.temperature <= 2


@pytest.mark.row("C1")
@pytest.mark.parametrize("value", ["0", "-1", "1e9", "nan", "inf", "none", "9" * 30])
async def test_no_value_lets_a_loop_or_a_delegation_go_on_for_ever(
    value: str, aftermath: Aftermath
) -> None:
    class Endless:
        default_model = "endless"
        count = 0

        async def complete(self, request: LLMRequest, /) -> Any:
            self.count += 1
            return calling(ToolCall(f"c{self.count}", "ping"))

    async def ping() -> str:
        return "pong"

    endless = Endless()
    client = aftermath.client(Aether(endless))
    with setting(AETHER_MAX_TOOL_ITERATIONS=value), pytest.raises(AetherError, match="turns"):
        await client.ask("go", tools=[ping])
    assert endless.count <= 1000
    with setting(AETHER_MAX_DELEGATION_DEPTH=value):
        assert 0 <= config.max_delegation_depth() <= 100


@pytest.mark.row("C2")
@pytest.mark.parametrize(
    ("value", "parallel"),
    [
        *((value, False) for value in ("0", "false", "no", "off", "FALSE", "No", "OFF", " off\n")),
        *((value, True) for value in ("", "  ", "1", "true", "yes", "on", "2", "nein", "-0")),
    ],
)
async def test_tools_run_one_by_one_where_the_environment_says_so(
    value: str, parallel: bool, aftermath: Aftermath
) -> None:
    running = most = 0

    async def step() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(3):
            await asyncio.sleep(0)
        running -= 1

    script = [calling(ToolCall("a", "step"), ToolCall("b", "step")), saying()]
    client = aftermath.client(Aether(FakeProvider(responses=script)))
    with setting(AETHER_PARALLEL_TOOLS=value):
        await client.ask("go", tools=[step])
    assert most == (2 if parallel else 1)


# --- C1, C3, C4: the variables of providers ---------------------------------------------------


def made(told: Told, **settings: Any) -> tuple[Aether | None, list[str]]:
    """A client of the environment, or none; and all that can be seen of it."""
    try:
        client = Aether(config=ProviderConfig(**settings))
    except ConfigurationError as error:
        chained = [error, error.__cause__, error.__context__]
        return None, [*told.texts, *(f"{each!r} {each}" for each in chained if each is not None)]
    return client, [*told.texts, repr(client), repr(client.provider), repr(vars(client))]


ENOUGH = {"api_key": KEY, "base_url": "https://models.example/v1", "model": "m"}
"""With these any provider can be made."""


@pytest.mark.row("C1")
@pytest.mark.parametrize(("provider", "variable"), [each for each in MODELS if each[0] != "local"])
def test_any_model_of_the_environment_is_taken_as_it_is(provider: str, variable: str) -> None:
    given = {name: value for name, value in ENOUGH.items() if name != "model"}
    for value in VALUES:
        with setting(**{variable: value}) as told:
            client, _ = made(told, provider=provider, **given)
        assert client is not None
        assert told.warnings == []
        model = getattr(client.provider, "default_model", None)
        assert model == value.strip() or not value.strip()


@pytest.mark.row("C1", "C4")
@pytest.mark.parametrize(("provider", "variable"), ADDRESSES)
def test_address_of_the_environment_is_used_and_announced_once_or_refused_when_it_is_none(
    provider: str, variable: str
) -> None:
    given = {name: value for name, value in ENOUGH.items() if name != "base_url"}
    for value in [
        *VALUES,
        "https://user:secret@h/v1",
        "https://h/v1?key=secret",
        "http://[::1]:8/v1",
    ]:
        with setting(**{variable: value}) as told:
            client, seen = made(told, provider=provider, **given)
        text = value.strip()
        announced = f"{variable} sets the endpoint of provider '{provider}'"
        said = [record.getMessage() for record in told.records]
        assert said == ([announced] if text else [])
        assert told.warnings == []
        usable = text.startswith(("http://", "https://")) and "@" not in text
        if text:
            assert (client is not None) == usable, text[:50]
            assert not any("secret" in each for each in seen)
            if len(text) > 12 and not usable:
                assert not any(text in each for each in seen)
        elif client is None:  # one without a common address, which says what to set
            assert any(variable in each for each in seen)


bad_letters = st.characters(codec=None, exclude_categories=["Cs"]).filter(
    lambda letter: not "!" <= letter <= "~" and letter != "\x00"
)


@pytest.mark.row("C3")
@pytest.mark.parametrize(("provider", "variable"), KEYS)
@given(bad=bad_letters, before=st.sampled_from(["sk-", ""]))
@example(bad="\n", before="sk-")
@example(bad="\r\nX-Injected: 1", before="sk-")
@example(bad=" ", before="sk-")
@example(bad="ä", before="sk-")
@settings(max_examples=20, deadline=None)
def test_key_that_no_header_can_carry_is_refused_and_not_shown(
    provider: str, variable: str, bad: str, before: str
) -> None:
    key = f"{before}{CANARY}{bad}{CANARY}"
    given = {name: value for name, value in ENOUGH.items() if name != "api_key"}
    with setting(**{variable: key}) as told:
        client, seen = made(told, provider=provider, **given)
        assert client is None
        assert not any(CANARY in each for each in seen)
    with setting() as told:
        client, seen = made(told, provider=provider, api_key=key, **given)
    assert client is None
    assert not any(CANARY in each for each in seen)


@pytest.mark.row("C1", "C3")
@pytest.mark.parametrize(("provider", "variable"), KEYS)
def test_any_other_key_is_taken_without_the_space_around_it_and_not_shown(
    provider: str, variable: str
) -> None:
    given = {name: value for name, value in ENOUGH.items() if name != "api_key"}
    for number, value in enumerate(VALUES):
        key = (value, f"  {CANARY}{value}{CANARY}\n")[number % 2]
        with setting(**{variable: key}) as told:
            client, seen = made(told, provider=provider, **given)
        text = key.strip()
        usable = re.fullmatch(r"[!-~]+", text, re.ASCII) is not None
        assert (client is not None) == usable or not text, key[:50]
        assert not any(CANARY in each for each in seen)
        assert not any(len(text) > 99 and text in each for each in seen)


@pytest.mark.row("C3")
@pytest.mark.parametrize("provider", ["openai", "gemini", "anthropic", "groq", "deepseek"])
@pytest.mark.parametrize("value", [None, "", "  ", "\n"])
def test_missing_key_is_an_error_that_says_what_to_set_and_how_to_do_without(
    provider: str, value: str | None
) -> None:
    names = [variable for each, variable in KEYS if each == provider]
    values = {} if value is None else dict.fromkeys(names, value)
    with setting(LLM_PROVIDER=provider, **values), pytest.raises(ConfigurationError) as raised:
        Aether()
    assert any(name in str(raised.value) for name in names)
    assert "LLM_PROVIDER=local" in str(raised.value)


@pytest.mark.row("C3")
@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1))
@example("opnai")
@example("OpenAI")
@example("openai:gpt")
@example("x" * 100_000)
@example("a\r\nb\x1b[31m")
@settings(deadline=None)
def test_unknown_provider_is_an_error_that_lists_the_known_and_is_short(name: str) -> None:
    if not name.strip() or name.strip() in PROVIDERS:
        return
    with setting(LLM_PROVIDER=name), pytest.raises(ConfigurationError) as raised:
        Aether()
    message = str(raised.value)
    assert all(provider in message for provider in PROVIDERS)
    assert len(message) < 500
    assert message.isprintable()


@pytest.mark.row("C4")
@pytest.mark.parametrize(("provider", "variable"), ADDRESSES)
async def test_an_address_is_announced_when_the_client_is_made_and_not_with_each_call(
    provider: str, variable: str
) -> None:
    with setting(**{variable: "http://127.0.0.1:9/v1", "LLM_PROVIDER": provider}) as told:
        client = Aether(config=ProviderConfig(api_key=KEY, model="m"), with_retry=False)
        for _ in range(2):
            with suppress(AetherError):
                await client.ask("hi")
        await client.aclose()
    announced = [text for text in told.texts if "sets the endpoint" in text]
    assert len(announced) == 1
    assert "127.0.0.1" not in announced[0]


# --- C5: an environment that changes ----------------------------------------------------------


class Flickering:
    """An environment in which each look at a variable sees the next of its values."""

    def __init__(self, **values: list[str | None]) -> None:
        self._values = {name: itertools.cycle(each) for name, each in values.items()}
        self.looks: dict[str, int] = {}

    def __getitem__(self, name: str) -> str:
        self.looks[name] = self.looks.get(name, 0) + 1
        value = next(self._values[name]) if name in self._values else None
        if value is None:
            raise KeyError(name)
        return value


@pytest.mark.row("C5")
@given(st.lists(st.sampled_from([None, "", "0.2", "1.9", "nonsense"]), min_size=1, max_size=5))
@settings(deadline=None)
def test_the_temperature_of_a_call_and_whether_it_was_chosen_are_of_one_look(
    values: list[str | None],
) -> None:
    fake = FakeProvider("hello")
    client = Aether(fake)

    async def ask() -> None:
        for _ in range(6):
            await client.ask("go")

    with mock.patch.object(
        config, "os", SimpleNamespace(environ=Flickering(AETHER_DEFAULT_TEMPERATURE=values))
    ):
        asyncio.run(ask())
    taken = {"0.2": (0.2, False), "1.9": (1.9, False)}
    expected = [taken.get(values[n % len(values)] or "", (0.7, True)) for n in range(6)]
    assert [(r.temperature, r.temperature_is_default) for r in fake.requests] == expected


@pytest.mark.row("C5")
@pytest.mark.parametrize("way", WAYS)
async def test_a_call_looks_at_each_variable_at_most_once(way: Way, aftermath: Aftermath) -> None:
    async def ping() -> str:
        return "pong"

    script = [calling(ToolCall(f"c{n}", "ping")) for n in range(3)]
    client = aftermath.client(Aether(FakeProvider(responses=[*script, saying()])))
    environment = Flickering(
        AETHER_MAX_TOOL_ITERATIONS=["9", "1"], AETHER_PARALLEL_TOOLS=["0", "1"]
    )
    with mock.patch.object(config, "os", SimpleNamespace(environ=environment)):
        assert (await get_answer(client, way, tools=[ping])).text == "done"
    assert environment.looks
    assert set(environment.looks.values()) == {1}


@pytest.mark.row("C5")
async def test_a_delegation_looks_at_its_limit_once(aftermath: Aftermath) -> None:
    script = [calling(ToolCall("c", "leaf", {"task": "x"})), saying("leaf"), saying()]
    client = aftermath.client(Aether(FakeProvider(responses=script)))
    environment = Flickering(AETHER_MAX_DELEGATION_DEPTH=["1", "0"])
    with mock.patch.object(config, "os", SimpleNamespace(environ=environment)):
        assert await client.ask("go", tools=[Agent("leaf").as_tool()]) == "done"
    assert environment.looks["AETHER_MAX_DELEGATION_DEPTH"] == 1


@pytest.mark.row("C5")
@pytest.mark.parametrize("provider", ["openai", "gemini", "anthropic", "groq"])
def test_a_client_is_made_of_one_look_at_each_variable(provider: str) -> None:
    names = [variable for each, variable in [*KEYS, *MODELS, *ADDRESSES] if each == provider]
    environment = Flickering(
        LLM_PROVIDER=[provider, "nobody"],
        AETHER_MODEL=[None, "nobody:x"],
        **{name: ["https://h.example/v1" if "URL" in name else "k", None] for name in names},
    )
    with mock.patch.object(config, "os", SimpleNamespace(environ=environment)):
        Aether()
    assert environment.looks["LLM_PROVIDER"] == 1
    assert max(environment.looks.values()) == 1, environment.looks
