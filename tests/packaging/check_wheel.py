"""Build the distributions, compare them with the git tree, and try the wheel where only it is.

Run by `make wheel`. It asks the package index for the dependencies, so it is no test of the suite.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMOKE = Path(__file__).with_name("smoke.py")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        sys.exit(f"failed: {' '.join(str(part) for part in command)}\n{result.stdout}")
    return result.stdout


def tracked() -> dict[str, bytes]:
    """The package's files in git, by path, as they are in the working tree."""
    names = run("git", "ls-files", "-z", "aether").split("\0")
    return {name: (ROOT / name).read_bytes() for name in names if name}


def compare(what: str, found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    for label, names in (
        ("lacks", expected.keys() - found.keys()),
        ("has, though git has not,", found.keys() - expected.keys()),
        ("has, with other content,", {n for n in expected if found.get(n) != expected[n]}),
    ):
        if names:
            sys.exit(f"The {what} {label} {', '.join(sorted(names))}")


def check_wheel(path: Path, expected: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path) as wheel:
        found = {name: wheel.read(name) for name in wheel.namelist()}
    refuse_pth(found)
    package = {name: data for name, data in found.items() if ".dist-info/" not in name}
    compare("wheel", package, expected)
    if "aether/py.typed" not in package:
        sys.exit("The wheel lacks aether/py.typed")


def check_sdist(path: Path, expected: dict[str, bytes]) -> None:
    with tarfile.open(path) as sdist:
        found = {
            member.name.partition("/")[2]: sdist.extractfile(member).read()  # type: ignore[union-attr]  # None for a folder only
            for member in sdist.getmembers()
            if member.isfile()
        }
    refuse_pth(found)
    documents = {"README.md", "CHANGELOG.md", "pyproject.toml"}
    written_by_the_backend = {"PKG-INFO", ".gitignore"}
    compare(
        "source distribution",
        {name: data for name, data in found.items() if name not in written_by_the_backend},
        expected | {name: (ROOT / name).read_bytes() for name in documents},
    )


def refuse_pth(names: Iterable[str]) -> None:
    """A .pth file runs code in every interpreter that sees it."""
    for name in names:
        if name.endswith(".pth"):
            sys.exit(f"A distribution must hold no .pth file: {name}")


def main() -> None:
    expected = tracked()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        # The wheel is built from the source distribution: so that one suffices.
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", scratch / "dist")
        (wheel,) = (scratch / "dist").glob("*.whl")
        (sdist,) = (scratch / "dist").glob("*.tar.gz")
        check_wheel(wheel, expected)
        check_sdist(sdist, expected)
        print(f"{wheel.name} and {sdist.name}: {len(expected)} files, as in git")

        venv.create(scratch / "clean", with_pip=True)
        python = scratch / "clean" / "bin" / "python"
        constraints = ROOT / "constraints.txt"
        run(python, "-m", "pip", "install", "-qq", "--constraint", constraints, wheel)
        run(python, "-m", "pip", "check")
        # -I: neither the working directory nor the environment reaches the interpreter.
        print(run(python, "-I", SMOKE, cwd=scratch), end="")


if __name__ == "__main__":
    main()
