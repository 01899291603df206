"""What comes with the package, what may take the place of what, and what the examples teach."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from aether.registry import Registry, register
from aether.tools.registry import get_tool, register_tool

ROOT = Path(__file__).parents[2]
WATCHED_IMPORT = Path(__file__).with_name("watched_import.py")
IN_GIT = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the git tree")


def run(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- plug-ins ------------------------------------------------------------------------------------


@pytest.mark.row("X22")
@pytest.mark.parametrize(
    ("kind", "name"), [("llm_provider", "openai"), ("http_transport", "aiohttp")]
)
def test_whoever_takes_the_place_of_a_built_in_is_logged_with_the_place_he_comes_from(
    kind: str, name: str, aether_registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="aether.registry")

    class Mine:
        pass

    register(kind, name)(Mine)
    assert aether_registry.get(kind, name) is Mine
    (record,) = [each for each in caplog.records if each.name == "aether.registry"]
    assert kind in record.getMessage()
    assert f"{__name__}:" in record.getMessage()


@pytest.mark.row("X22")
def test_a_tool_takes_the_place_of_another_only_if_its_author_says_so(
    aether_registry: Registry,
) -> None:
    @register_tool(name="pay")
    def pay(amount: int) -> str:
        """Pay."""
        return "paid"

    with pytest.raises(ValueError, match="pay"):

        @register_tool(name="pay")
        def steal(amount: int) -> str:
            """Pay somebody else."""
            return "stolen"

    assert get_tool("pay").handler is pay

    @register_tool(name="pay", replace=True)
    def pay_twice(amount: int) -> str:
        """Pay twice."""
        return "paid twice"

    assert get_tool("pay").handler is pay_twice


# --- the package ---------------------------------------------------------------------------------


def build(tree: Path, folder: Path) -> Path:
    """The wheel of a tree. Nothing is asked of a package index."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=tree)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.mark.row("X23")
@IN_GIT
def test_the_wheel_is_the_git_tree_byte_for_byte(wheel: Path) -> None:
    # What is not in git yet is on its way there; `make wheel` takes what is in it alone.
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "aether")
    names = {name for name in listed.split("\0") if name and (ROOT / name).exists()}
    with zipfile.ZipFile(wheel) as archive:
        package = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert package == names
        assert [name for name in names if archive.read(name) != (ROOT / name).read_bytes()] == []


@pytest.mark.row("X23")
def test_the_wheel_runs_nothing_when_it_is_installed_or_a_python_starts(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = [name for name in names if name.endswith("/entry_points.txt")]
        declared = archive.read(entry_points).decode()
    suffixes = {Path(name).suffix for name in names if ".dist-info/" not in name}
    assert suffixes <= {".py", ".typed"}
    assert not [name for name in names if "sitecustomize" in name or ".data/" in name]
    # The one entry point is the plugin of pytest.
    assert re.findall(r"^\[(.*)\]$", declared, re.MULTILINE) == ["pytest11"]


@pytest.mark.row("X23")
def test_a_wheel_that_is_built_elsewhere_and_later_is_the_same(wheel: Path, tmp_path: Path) -> None:
    tree = tmp_path / "elsewhere"
    tree.mkdir()
    shutil.copytree(
        ROOT / "aether",
        tree / "aether",
        copy_function=shutil.copyfile,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copyfile(ROOT / name, tree / name)
    assert build(tree, tmp_path / "dist").read_bytes() == wheel.read_bytes()


@pytest.mark.row("X23")
@pytest.mark.parametrize("file", ["constraints.txt", "tests/peers/constraints.txt"])
def test_every_version_that_is_installed_for_development_is_exact(file: str) -> None:
    lines = (ROOT / file).read_text(encoding="utf-8").split()
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


@pytest.mark.row("X23")
def test_importing_all_of_it_sends_starts_and_writes_nothing_and_reads_no_setting() -> None:
    watched = json.loads(run(sys.executable, str(WATCHED_IMPORT)))
    assert watched["count"] > 100
    assert watched["done"] == []


@pytest.mark.row("X23")
def test_what_an_import_did_would_be_seen() -> None:
    done = json.loads(run(sys.executable, str(WATCHED_IMPORT), "deeds"))["done"]
    found = [each.partition(" ")[0] for each in done]
    assert found == ["open", "socket.__new__", "environment", "open"]


# --- what the examples teach ---------------------------------------------------------------------

UNSAFE = {
    "turns TLS off": r"verify\s*=\s*False|ssl\s*=\s*False|CERT_NONE|check_hostname\s*=\s*False"
    r"|_create_unverified_context|NODE_TLS_REJECT|--insecure|curl -k\b|--trusted-host",
    "prints a key": r"print\([^)\n]*(?:api_?key|API_KEY|secret|token\b)|echo\s+\$\w*KEY",
    "has a key in it": r"\bsk-(?!canary)[A-Za-z0-9_-]{10,}|AIza[0-9A-Za-z_-]{10,}"
    r"|api_key=[\"'](?!\.\.\.)[^\"']{12,}",
    "sends over plain HTTP": r"http://(?!localhost|127\.0\.0\.1|\[::1\]|0\.0\.0\.0|host[:/]"
    r"|(?:[\w-]+\.)*example(?:\.com|\.org)?[:/\"'`) ]|www\.w3\.org)[\w.-]+\.\w+",
    "runs what it fetched": r"curl[^\n|]*\|\s*(?:ba)?sh|eval\(|pickle\.loads?\(|shell=True",
}


def examples() -> list[Path]:
    """What is shown to users: documents, the demo, and the docstrings of the package."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.py")]
    return [*found, ROOT / "try_it.py", *ROOT.glob("aether/**/*.py")]


@pytest.mark.row("X24")
@pytest.mark.parametrize("what", UNSAFE)
def test_no_example_is_unsafe(what: str) -> None:
    assert len(examples()) > 100
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in examples()
        for match in re.finditer(UNSAFE[what], path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.row("X24")
@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("turns TLS off", "httpx.Client(verify=False)"),
        ("turns TLS off", "context.verify_mode = ssl.CERT_NONE"),
        ("prints a key", 'print(os.environ["OPENAI_API_KEY"])'),
        ("has a key in it", 'api_key="abcdefghijklmnop"'),
        ("has a key in it", "sk-proj-0123456789"),
        ("sends over plain HTTP", "http://api.somewhere.net/v1"),
        ("runs what it fetched", "curl https://x.example/install | sh"),
    ],
)
def test_an_unsafe_example_would_be_found(what: str, text: str) -> None:
    assert re.search(UNSAFE[what], text)
