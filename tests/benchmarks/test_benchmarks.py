"""The benchmarks: each measure runs and finds what is so, the tables say what was found.

No time is judged here. The other libraries are in `make bench-peers` alone.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from aether.registry import Registry
from benchmarks import __main__ as bench
from benchmarks import peers, profiling, server, timing
from benchmarks.contracts import Figure
from benchmarks.counting import counted, module_of, package_of
from benchmarks.measures import COMPARED, MEASURES, figures_of
from benchmarks.measures.crowd import STREAMS, advice
from benchmarks.options import add_options, measures_told, usable_cpus
from benchmarks.page import PAGE, put_into
from benchmarks.peers import TARGETS, prepare, upgraded
from benchmarks.profiling import profile
from benchmarks.running import Plan, Taken
from benchmarks.setting import Setting
from benchmarks.subjects import PEERS, SUBJECTS, floor
from benchmarks.table import bench_table, notes, peers_table, ratios_table
from benchmarks.worker import taken

ROOT = Path(__file__).parents[2]
SCALE = 0.002
STARTS_PROCESSES = ("cold",)
CHECKED_OTHERWISE = ("agent", "cold", "crowd")
"""They ask nothing, ask in another process, or count what is wrong."""


@pytest.fixture
async def origin() -> AsyncIterator[str]:
    async with await server.start() as running:
        yield f"http://127.0.0.1:{server.port_of(running)}"
        running.close()


def subjects_of(name: str) -> tuple[str, ...]:
    return MEASURES[name].subjects or ("aether", "floor")


PAIRS = [
    (name, subject)
    for name in MEASURES
    if name not in STARTS_PROCESSES
    for subject in subjects_of(name)
]
WHAT_IS_SO = {
    ("crowd", "aether"): {"crowd": 20, "crowd_wrong": 0},
    ("events", "aether"): {"events_unheard": 0, "events_heard": 6},
    ("memory", "aether"): {"memory_calls": 40},
    ("offered", "aether"): {"offered_calls": 0},
    ("session", "aether"): {"session_added": 2, "session_rewritten": 0},
}
"""On every machine, by measure and subject: an event for each of two chunks, two for each call."""


@pytest.mark.parametrize(("name", "subject"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
async def test_a_measure_finds_what_is_so(
    name: str,
    subject: str,
    origin: str,
    aether_registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "BLOCKS", 1)
    row = await taken(name, Setting(subject, origin, SCALE))
    if (name, subject) == ("agent", "floor"):
        assert row["why_not"] == "it has no agents"
        return
    assert "why_not" not in row, row
    assert row["reference"] > 0
    assert row["values"].keys() == {figure.key for figure in figures_of(name)}
    assert WHAT_IS_SO.get((name, subject), {}).items() <= row["values"].items()
    for figure in figures_of(name):
        if figure.is_time:
            assert row["values"][figure.key] > 0, figure.title


@pytest.mark.parametrize("name", [name for name in MEASURES if name not in CHECKED_OTHERWISE])
async def test_a_wrong_answer_is_not_measured(
    name: str, origin: str, aether_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"benchmarks.measures.{name}")
    monkeypatch.setattr(module, "TEXT", "another text", raising=False)
    monkeypatch.setattr(module, "text_of", lambda _: "another text", raising=False)
    row = await taken(name, Setting("aether", origin, SCALE))
    assert "wrong answer" in row["why_not"]


@pytest.mark.parametrize("subject", ["aether", "floor"])
async def test_a_tool_flow_runs_the_tool_in_each_turn_but_the_last(
    subject: str, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    def add(a: int, b: int) -> int:
        ran.append(a + b)
        return a + b

    monkeypatch.setattr(f"benchmarks.subjects.{subject}.add", add)
    async with Setting(subject, origin).client("calls=3") as client:
        assert await client.tool(4) == server.TEXT
    assert ran == [42, 42, 42]


async def test_a_start_is_a_process_that_has_loaded_nothing_else(origin: str) -> None:
    script = str(ROOT / "benchmarks" / "starting.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", script, "import asyncio, json", "floor", f"{origin}/v1"),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
    )
    printed, _ = await process.communicate()
    found = json.loads(printed)
    assert found["ms"] > 0
    assert 0 < found["modules"] < 400


class TestCounting:
    async def test_calls_are_counted_exactly(self) -> None:
        def one() -> None:
            pass

        async def do() -> None:
            for _ in range(7):
                one()

        found = await counted(do)
        assert found.python[one.__code__] == 7

    def test_a_file_is_told_by_its_module(self) -> None:
        assert module_of(str(ROOT / "aether" / "engine" / "loop.py")) == "aether.engine.loop"
        assert module_of("/x/site-packages/aiohttp/client.py") == "aiohttp.client"
        assert module_of(asyncio.__file__) == "asyncio"
        assert package_of("/x/site-packages/yarl/__init__.py") == "yarl"

    def test_code_without_a_file_is_told_as_generated(self) -> None:
        assert module_of("<string>").startswith("generated code")
        assert package_of("<string>") == module_of("<string>")


async def test_a_profile_names_what_was_called(origin: str) -> None:
    report = await profile(Setting("aether", origin), "call", 1, 500)
    assert "Own time, by package" in report
    assert re.search(r"^\| aether\.client +\| +\d+ \|", report, re.MULTILINE)


class TestPlan:
    def test_what_is_measured_alone_has_a_process_of_its_own(self) -> None:
        plan = Plan({}, ["call", "memory", "tool"], rounds=2)
        assert list(plan.groups("aether", 0)) == [["call", "tool"], ["memory"]]
        assert list(plan.groups("aether", 1)) == [["call", "tool"]]
        assert list(plan.groups("openai", 0)) == [["call", "tool"]]

    def test_one_that_cannot_be_installed_is_named(self) -> None:
        pythons, missing = prepare(
            Path("there"), ["openai", "litellm"], lambda _, n: "no index" if n == "openai" else None
        )
        assert list(pythons) == ["aether", "litellm", "floor"]
        assert missing == {"openai": "no index"}


def told(*arguments: str) -> list[str]:
    """The measures that a command takes which is told this."""
    parser = argparse.ArgumentParser()
    add_options(parser, ["call", "chunk"])
    return measures_told(parser, parser.parse_intermixed_args(arguments), ["call", "chunk"])


class TestOptions:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--rounds", "0"], "from 1 on"),
            (["--rounds", "-1"], "from 1 on"),
            (["--rounds", "often"], "from 1 on"),
            (["--scale", "0"], "above 0"),
            (["--scale", "-1"], "above 0"),
            (["--scale", "nan"], "above 0"),
            (["--scale", "inf"], "above 0"),
            (["--cpu", "99999"], "-1 for anywhere"),
            (["--cpu", "-2"], "-1 for anywhere"),
            (["coll"], "there are call, chunk"),
            (["call", "--write"], "with some measures"),
            (["--scale", "0.5", "--write"], "with --scale 0.5"),
            (["--raw", "--write"], "with --raw"),
        ],
    )
    def test_what_is_not_allowed_ends_with_what_is(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            told(*arguments)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err

    def test_measures_are_told_anywhere_and_each_is_taken_once(self) -> None:
        assert told() == told("--write") == ["call", "chunk"]
        assert told("chunk", "chunk") == ["chunk"]
        assert told("chunk", "--rounds", "9", "call") == ["chunk", "call"]

    def test_a_cpu_is_one_that_may_be_used_or_any(self) -> None:
        for number in (-1, *usable_cpus()):
            told("--cpu", str(number))

    @pytest.mark.parametrize("option", ["--samples", "--top"])
    def test_a_profile_has_samples_and_lines(
        self, option: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["profile", option, "0"])
        with pytest.raises(SystemExit) as ended:
            profiling.main()
        assert ended.value.code == 2

    def test_a_profile_is_of_what_is_installed_beside_it(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["profile", "--subject", "openai"])
        with pytest.raises(SystemExit):
            profiling.main()
        assert "'aether', 'floor'" in capsys.readouterr().err

    def test_help_names_nothing_that_the_makefile_says(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["peers", "--environments=there", "--help"])
        with pytest.raises(SystemExit) as ended:
            peers.main()
        assert ended.value.code == 0
        assert "environments=" not in (printed := capsys.readouterr().out)
        assert "ENVIRONMENTS" not in printed

    def test_the_command_stands_beside_the_table_as_it_was_told(self) -> None:
        said = bench.circumstances(
            "make bench-peers", ["--environments=/there", "--only", "litellm", "--write"]
        )
        assert said.endswith('`make bench-peers ARGS="--only litellm"`')


class TestUpgrade:
    def test_one_that_changes_a_version_says_both(self) -> None:
        assert upgraded("openai 1.0", "openai 1.1", []) == "openai 1.0 is now openai 1.1"

    def test_one_that_changes_nothing_says_so_and_what_pip_says(self) -> None:
        said = upgraded("openai 1.0", "openai 1.0", ["WARNING: no route"])
        assert said.startswith("openai 1.0 stays")
        assert said.endswith("pip says: WARNING: no route")


@pytest.mark.parametrize("allowed", [110, 256, 1024, 4096])
def test_the_scale_that_a_crowd_is_advised_needs_no_more_files_than_there_are(allowed: int) -> None:
    scale = float(advice(allowed).split()[2])
    assert 0 < Setting("aether", "", scale).times(STREAMS) + 100 <= allowed


def test_a_crowd_for_which_there_are_no_files_is_advised_nothing() -> None:
    assert not advice(100)


async def test_every_other_call_in_memory_is_a_stream(
    origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    for name in ("call", "stream"):
        before = getattr(floor.Client, name)

        def noting(*given: Any, name: str = name, before: Any = before) -> Any:
            done.append(name)
            return before(*given)

        monkeypatch.setattr(floor.Client, name, noting)
    await taken("memory", Setting("floor", origin, SCALE))
    assert done[:4] == ["call", "stream"] * 2
    assert done.count("call") == done.count("stream")


@pytest.mark.parametrize("name", MEASURES)
def test_a_title_says_what_was_done_at_a_scale(name: str) -> None:
    titles = [figure.title for figure in figures_of(name, SCALE)]
    assert not any("000" in title for title in titles)
    assert any("000" in figure.title for figure in figures_of(name)) == (
        name in ("chunk", "many", "session", "offered", "events", "long")
    )


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


class TestTables:
    FIGURES = (Figure("call", "one call"), Figure("events", "built", "events"))

    def of(self, name: str, *values: tuple[float, float], events: float = 0) -> Taken:
        return Taken(name, {"call": list(values), "events": [(events, 100)]})

    def test_a_time_is_scaled_by_the_reference_around_it(self) -> None:
        found = [self.of("aether", (20, 100), (60, 300), (20, 100))]
        assert "|     20 |                20 |    3.00 |" in bench_table(
            found, self.FIGURES, is_raw=False
        )
        assert "20 to 60" in bench_table(found, self.FIGURES, is_raw=True)
        assert "slow" in notes(found, is_raw=False)

    def test_a_ratio_stands_beside_what_it_is_to_be(self) -> None:
        found = [self.of("aether", (20, 100)), self.of("openai", (200, 100), events=3)]
        lines = peers_table(
            found, self.FIGURES, {"call": 0.12}, reference="openai", is_raw=False
        ).splitlines()
        assert cells(lines[2]) == ["one call", "µs", "20", "200", "0.10", "0.12"]
        assert cells(lines[3]) == ["built", "events", "0", "3", "-", "-"]
        ratios = ratios_table(found, self.FIGURES, reference="openai", is_raw=False).splitlines()
        assert cells(ratios[2]) == ["one call", "0.10", "1.00"]

    def test_what_was_not_measured_is_named(self) -> None:
        found = [Taken("floor", why_not={"agent": ["it has no agents"] * 5})]
        assert "no `agent` (5 times): it has no agents" in notes(found, is_raw=False)


class TestPage:
    def test_it_has_a_place_for_each_table(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        for name in ("figures", "peers"):
            assert "a new table" in put_into(text, name, "a new table")

    def test_it_names_each_measure(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        for name in MEASURES:
            assert f"| `{name}` |" in text


def test_each_target_is_a_figure_that_others_have() -> None:
    assert TARGETS.keys() <= {figure.key for name in COMPARED for figure in figures_of(name)}


def test_each_figure_has_a_key_of_its_own() -> None:
    keys = [figure.key for name in MEASURES for figure in figures_of(name)]
    assert len(keys) == len(set(keys))


def modules() -> Iterator[str]:
    for path in (ROOT / "benchmarks" / "subjects").glob("[a-z]*.py"):
        yield path.stem


def test_each_subject_is_described() -> None:
    assert set(modules()) == set(SUBJECTS)
    assert set(PEERS) == set(SUBJECTS) - {"aether", "floor"}
