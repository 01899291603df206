"""The registry: one source of truth for all that can be plugged in."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aether import Aether, ProviderConfig, register, register_provider, register_tool
from aether.errors import AetherError, ConfigurationError, MissingExtraError, UnknownNameError
from aether.registry import Registry, default_registry
from aether.testing import FakeProvider
from aether.tools import get_tool, list_tools

pytestmark = pytest.mark.usefixtures("aether_registry")


class Haiku:
    pass


class Sonnet:
    pass


def package(folder: Path, name: str, points: dict[str, dict[str, str]], **modules: str) -> None:
    """An installed package with entry points, by group."""
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines: list[str] = []
    for group, names in points.items():
        lines += [f"[{group}]", *(f"{point} = {target}" for point, target in names.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is searched for packages; what was imported from it is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


# --- registering ------------------------------------------------------------------------------


def test_class_or_function_of_any_kind_is_registered_and_returned_unchanged() -> None:
    assert register("poem", "haiku", lines=3)(Haiku) is Haiku

    def write() -> str:
        return "pond"

    assert register("poem", "pond")(write) is write
    assert default_registry.get("poem", "haiku") is Haiku
    assert default_registry.get("poem", "pond") is write
    assert dict(default_registry.metadata("poem", "haiku")) == {"lines": 3}
    assert dict(default_registry.metadata("poem", "pond")) == {}
    assert default_registry.names("poem") == ["haiku", "pond"]
    assert "poem" in default_registry.kinds()
    assert ("poem", "haiku") in default_registry
    assert ("poem", "ode") not in default_registry
    assert [entry.name for entry in default_registry.entries("poem")] == ["haiku", "pond"]


def test_decorator_syntax_registers() -> None:
    @register("poem", "ode")
    class Ode:
        pass

    assert default_registry.get("poem", "ode") is Ode


def test_metadata_cannot_be_changed_afterwards() -> None:
    register("poem", "haiku", lines=3)(Haiku)
    metadata: Any = default_registry.metadata("poem", "haiku")
    with pytest.raises(TypeError):
        metadata["lines"] = 4


def test_names_of_one_kind_are_none_of_anothers() -> None:
    register("poem", "one")(Haiku)
    register("song", "one")(Sonnet)
    assert default_registry.get("poem", "one") is Haiku
    assert default_registry.get("song", "one") is Sonnet


def test_unknown_name_is_an_error_that_lists_the_known_and_the_close() -> None:
    register("poem", "haiku")(Haiku)
    register("poem", "sonnet")(Sonnet)
    with pytest.raises(UnknownNameError) as raised:
        default_registry.get("poem", "hiaku")
    assert "Did you mean 'haiku'?" in str(raised.value)
    assert "haiku, sonnet" in str(raised.value)
    assert isinstance(raised.value, LookupError | ConfigurationError)
    with pytest.raises(UnknownNameError, match="none"):
        default_registry.get("nothing of the kind", "x")


@pytest.mark.parametrize(("kind", "name"), [("", "x"), ("poem", "")])
def test_empty_kind_or_name_is_refused(kind: str, name: str) -> None:
    with pytest.raises(ConfigurationError):
        register(kind, name)(Haiku)


@pytest.mark.row("X22")
def test_two_origins_for_one_name_are_an_error_that_names_both() -> None:
    register("poem", "one")(Haiku)
    with pytest.raises(ConfigurationError) as raised:
        register("poem", "one")(Sonnet)
    for part in ("Haiku", "Sonnet", "'one'", "replace=True"):
        assert part in str(raised.value)
    assert default_registry.get("poem", "one") is Haiku


def test_replace_takes_the_place_of_another_origin() -> None:
    register("poem", "one", lines=3)(Haiku)
    register("poem", "one", replace=True)(Sonnet)
    assert default_registry.get("poem", "one") is Sonnet
    assert dict(default_registry.metadata("poem", "one")) == {}


CELL = """
@register("poem", "cell", version={version})
class Cell:
    version = {version}
"""


def test_cell_that_is_run_again_takes_its_own_place() -> None:
    namespace = {"register": register, "__name__": "__main__"}
    for version in (1, 2):
        exec(CELL.format(version=version), namespace)
    assert default_registry.get("poem", "cell").version == 2
    assert default_registry.metadata("poem", "cell")["version"] == 2


def test_same_name_in_another_module_is_another_origin() -> None:
    exec(CELL.format(version=1), {"register": register, "__name__": "one"})
    with pytest.raises(ConfigurationError, match=r"one:Cell.*two:Cell"):
        exec(CELL.format(version=2), {"register": register, "__name__": "two"})


def test_partials_of_two_functions_are_two_origins() -> None:
    def one() -> None: ...

    def two() -> None: ...

    register("poem", "part")(partial(one))
    register("poem", "part")(partial(one))
    with pytest.raises(ConfigurationError, match=r"one.*two"):
        register("poem", "part")(partial(two))


INSTANCE = "register('poem', 'instance')(Sonnet())"


def test_objects_of_one_class_are_told_apart_by_where_they_were_registered() -> None:
    for module in ("one", "one"):
        exec(INSTANCE, {"register": register, "Sonnet": Sonnet, "__name__": module})
    with pytest.raises(ConfigurationError, match=r"one:Sonnet.*two:Sonnet"):
        exec(INSTANCE, {"register": register, "Sonnet": Sonnet, "__name__": "two"})


def test_removed_is_forgotten_and_twice_is_fine() -> None:
    register("poem", "haiku")(Haiku)
    default_registry.remove("poem", "haiku")
    default_registry.remove("poem", "haiku")
    assert ("poem", "haiku") not in default_registry


def test_restored_puts_the_registrations_back_after_an_error_too() -> None:
    registry = Registry()
    registry.add("poem", "kept", Haiku)

    def change() -> None:
        with registry.restored():
            registry.add("poem", "kept", Sonnet, replace=True)
            registry.add("poem", "more", Sonnet)
            registry.add("song", "other", Sonnet)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        change()
    assert registry.get("poem", "kept") is Haiku
    assert registry.names("poem") == ["kept"]
    assert ("song", "other") not in registry


def test_registering_from_many_threads_loses_nothing() -> None:
    registry = Registry()
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        for n in range(200):
            registry.add(f"kind-{n}", str(number), Haiku)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert all(registry.names(f"kind-{n}") == ["0", "1", "2", "3"] for n in range(200))


# --- one source of truth ----------------------------------------------------------------------


def test_providers_are_entries_of_it() -> None:
    register_provider("mine", api_key_env="MINE_API_KEY", model_env="MINE_MODEL")(FakeProvider)
    entry = default_registry.entry("llm_provider", "mine")
    assert entry.value is FakeProvider
    assert entry.metadata["api_key_env"] == "MINE_API_KEY"
    register("llm_provider", "bare")(FakeProvider)
    assert repr(Aether(config=ProviderConfig(provider="bare"))).endswith("Fake)")


def test_tools_are_entries_of_it() -> None:
    @register_tool
    def ping() -> str:
        """Answer."""
        return "pong"

    assert ("tool", "ping") in default_registry
    default_registry.remove("tool", "ping")
    with pytest.raises(UnknownNameError):
        get_tool("ping")

    @register("tool", "raw")
    def raw(number: int) -> int:
        """Give back."""
        return number

    assert get_tool("raw").parameters["required"] == ["number"]
    assert "raw" in [tool.name for tool in list_tools()]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("llm_provider", {"openai", "local", "fake", "ollama", "azure"}),
        ("http_transport", {"aiohttp", "httpx"}),
        ("session_store", {"memory"}),
    ],
)
def test_built_ins_are_known_once_aether_is_imported(kind: str, names: set[str]) -> None:
    code = (
        "import aether; from aether.registry import default_registry as registry\n"
        f"assert {names!r} <= set(registry.names({kind!r})), registry.names({kind!r})\n"
        f"assert {kind!r} in registry.kinds()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.row("X22")
def test_registration_takes_the_place_of_a_built_in_and_gives_it_back() -> None:
    built_in = default_registry.get("llm_provider", "ollama")
    register_provider("ollama")(FakeProvider)
    assert default_registry.get("llm_provider", "ollama") is FakeProvider
    assert dict(default_registry.metadata("llm_provider", "ollama"))["api_key_env"] is None
    with pytest.raises(ConfigurationError):
        register_provider("ollama")(Haiku)
    default_registry.remove("llm_provider", "ollama")
    assert default_registry.get("llm_provider", "ollama") is built_in


def test_names_are_listed_without_an_import(installed: Path) -> None:
    package(installed, "poems", {"aether.poem": {"ode": "never_imported_poems:Ode"}})
    assert "ode" in default_registry.names("poem")
    assert ("poem", "ode") in default_registry
    assert "never_imported_poems" not in sys.modules


def test_registry_of_ones_own_shares_the_built_ins_and_nothing_else() -> None:
    register("llm_provider", "global")(FakeProvider)
    own = Registry()
    own.add("llm_provider", "own", FakeProvider)
    assert {"openai", "fake", "own"} <= set(own.names("llm_provider"))
    assert ("llm_provider", "global") not in own
    assert ("llm_provider", "own") not in default_registry


# --- entry points -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["llm_provider", "tool", "session_store", "http_transport", "poem"]
)
def test_installed_package_is_found_under_its_kinds_group(installed: Path, kind: str) -> None:
    module = f"found_{kind}"
    package(
        installed,
        "pack",
        {f"aether.{kind}": {"new": f"{module}:New"}},
        **{module: "class New: ..."},
    )
    assert default_registry.get(kind, "new").__name__ == "New"
    assert "new" in default_registry.names(kind)


@pytest.mark.row("X22")
def test_only_the_name_that_was_asked_for_is_imported(installed: Path) -> None:
    package(
        installed,
        "pack",
        {"aether.poem": {"good": "good_poem:Good", "bad": "bad_poem:Bad"}},
        good_poem="class Good: ...",
        bad_poem="raise RuntimeError('imported')",
    )
    assert default_registry.get("poem", "good").__name__ == "Good"
    assert "bad_poem" not in sys.modules


def test_package_that_cannot_be_imported_is_an_error_that_names_it(installed: Path) -> None:
    package(
        installed,
        "pack",
        {"aether.poem": {"bad": "broken_poem:Bad", "gone": "gone_poem:X", "none": "empty_poem:X"}},
        broken_poem="raise RuntimeError('line 1 is bad')",
        empty_poem="",
    )
    for name, reason in (("bad", "line 1 is bad"), ("gone", "gone_poem"), ("none", "X")):
        with pytest.raises(ConfigurationError, match=reason) as raised:
            default_registry.get("poem", name)
        assert repr(name) in str(raised.value)
        assert raised.value.__cause__ is not None


def test_package_that_lacks_an_extra_says_so_itself(installed: Path) -> None:
    package(
        installed,
        "pack",
        {"aether.poem": {"extra": "extra_poem:X"}},
        extra_poem="from aether.errors import MissingExtraError\nraise MissingExtraError('pip it')",
    )
    with pytest.raises(MissingExtraError, match="pip it"):
        default_registry.get("poem", "extra")


@pytest.mark.row("X22")
def test_two_packages_for_one_name_are_an_error_that_names_both(installed: Path) -> None:
    package(installed, "a", {"aether.poem": {"one": "poem_a:One"}}, poem_a="class One: ...")
    package(installed, "b", {"aether.poem": {"one": "poem_b:One"}}, poem_b="class One: ...")
    with pytest.raises(ConfigurationError, match=r"poem_a:One and poem_b:One"):
        default_registry.get("poem", "one")
    register("poem", "one")(Haiku)
    assert default_registry.get("poem", "one") is Haiku


@pytest.mark.row("X22")
def test_installed_package_takes_no_built_ins_place(installed: Path) -> None:
    package(
        installed,
        "thief",
        {"aether.llm_provider": {"openai": "thief_module:Thief"}},
        thief_module="class Thief: ...",
    )
    assert default_registry.get("llm_provider", "openai").__name__ == "OpenAIProvider"
    assert "thief_module" not in sys.modules


def test_package_that_is_installed_later_is_found(installed: Path) -> None:
    with pytest.raises(UnknownNameError):
        default_registry.get("poem", "late")
    package(installed, "late", {"aether.poem": {"late": "late_poem:X"}}, late_poem="class X: ...")
    assert default_registry.get("poem", "late").__name__ == "X"


def test_module_that_registers_its_own_keeps_its_metadata(installed: Path) -> None:
    package(
        installed,
        "pack",
        {"aether.llm_provider": {"parrot": "parrot_module:Parrot"}},
        parrot_module=(
            "from aether import register_provider\n"
            "from aether.testing import FakeProvider\n"
            "@register_provider('parrot', model_env='PARROT_MODEL')\n"
            "class Parrot(FakeProvider): ...\n"
        ),
    )
    entry = default_registry.entry("llm_provider", "parrot")
    assert entry.metadata["model_env"] == "PARROT_MODEL"
    own = Registry()
    assert own.metadata("llm_provider", "parrot")["model_env"] == "PARROT_MODEL"


def test_errors_are_aether_errors() -> None:
    with pytest.raises(AetherError):
        default_registry.get("poem", "none")
