"""The jail of `read_file` against somebody who may write inside of it, and swaps what is read.

`FILE_RACES=1000000` makes it a long siege: so many reads, instead of ten thousand.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aether.errors import ToolError
from aether.extensions.tools import file as file_tool
from aether.extensions.tools.file import read_file
from aether.llm.contracts import ToolCall
from aether.tools import dispatch_tool
from tests.extension_tools.test_file_tool import OUTSIDE, OUTSIDE_WITH_ODD_CHARACTERS

RACES = int(os.environ.get("FILE_RACES", "10000"))
SECRET = "the outside secret"
PATIENCE = 60 + RACES / 1000  # seconds

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that may be read, with folders of secrets beside it, named as those inside."""
    folder = tmp_path / "root"
    for place, text in ((folder, "today"), (tmp_path / "outside", SECRET)):
        (place / "notes" / "deep").mkdir(parents=True)
        (place / "notes" / "today.txt").write_text(text, encoding="utf-8")
        (place / "notes" / "deep" / "today.txt").write_text(text, encoding="utf-8")
    monkeypatch.setenv("AETHER_FILE_TOOL_ROOT", str(folder))
    return folder


def link_to_file(door: Path, outside: Path) -> None:
    door.symlink_to(outside / "notes" / "today.txt")


def relative_link(door: Path, outside: Path) -> None:
    door.symlink_to("../../outside/notes/today.txt")


def hard_link(door: Path, outside: Path) -> None:
    os.link(outside / "notes" / "today.txt", door)


def pipe(door: Path, outside: Path) -> None:
    os.mkfifo(door)


def link_to_folder(door: Path, outside: Path) -> None:
    door.symlink_to(outside / "notes", target_is_directory=True)


def folder_of_links(door: Path, outside: Path) -> None:
    door.mkdir()
    (door / "today.txt").symlink_to(outside / "notes" / "today.txt")
    (door / "deep").symlink_to(outside / "notes" / "deep", target_is_directory=True)


SWAPS: list[tuple[str, str, Callable[[Path, Path], None]]] = [
    ("notes/today.txt", "notes/today.txt", link_to_file),
    ("notes/today.txt", "notes/today.txt", relative_link),
    ("notes/today.txt", "notes/today.txt", hard_link),
    ("notes/today.txt", "notes/today.txt", pipe),
    ("notes/today.txt", "notes", link_to_folder),
    ("notes/deep/today.txt", "notes", link_to_folder),
    ("notes/deep/today.txt", "notes/deep", link_to_folder),
    ("notes/deep/today.txt", "notes", folder_of_links),
]
"""What is read, what of it is swapped, and for what."""


SWAPPER = """
import ctypes, os, sys

place, other = sys.argv[1:]
names = os.fsencode(place), os.fsencode(other)
rename = getattr(ctypes.CDLL(None), "renameat2", None)
HERE, EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: renameat2(2)
at_once = rename is not None and rename(HERE, names[0], HERE, names[1], EXCHANGE) == 0
print("swapping", flush=True)
while True:
    if at_once:
        rename(HERE, names[0], HERE, names[1], EXCHANGE)
    else:
        os.rename(place, other + "-aside")
        os.rename(other, place)
        os.rename(other + "-aside", other)
"""
"""Exchanges two files, over and over; in one step where the system can."""


@contextmanager
def swapped_all_the_time(place: Path, other: Path) -> Iterator[None]:
    """By a process of its own, so that it is done in the middle of a read, too."""
    command = [sys.executable, "-S", "-c", SWAPPER, str(place), str(other)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        try:
            yield
        finally:
            swapper.kill()


@pytest.mark.row("X11", "X12")
@pytest.mark.parametrize(("path", "part", "swap_for"), SWAPS)
def test_whoever_swaps_a_part_of_the_path_does_not_get_out_and_keeps_nobody_waiting(
    root: Path, tmp_path: Path, path: str, part: str, swap_for: Callable[[Path, Path], None]
) -> None:
    swap_for(tmp_path / "door", tmp_path / "outside")
    outcomes: dict[str, int] = {}

    def read_often() -> None:
        # At least so often, and until both have been met: the system may let one process wait.
        for count in range(100 * RACES):
            if count >= RACES // len(SWAPS) and len(outcomes) > 1:
                return
            try:
                text = read_file(path)
            except ToolError:
                text = "refused"
            outcomes[text] = outcomes.get(text, 0) + 1

    reader = threading.Thread(target=read_often, daemon=True)
    with swapped_all_the_time(root / part, tmp_path / "door"):
        reader.start()
        reader.join(PATIENCE)
        assert not reader.is_alive(), "read_file hangs"
    assert outcomes.keys() == {"today", "refused"}


def test_there_are_a_hundred_attacks_beside_the_races() -> None:
    assert len({*OUTSIDE, *OUTSIDE_WITH_ODD_CHARACTERS}) >= 100


@pytest.mark.row("X12")
@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="needs Linux's /proc")
def test_a_system_s_state_is_refused_wherever_it_is_mounted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = root.stat().st_dev
    mounts = tmp_path / "mountinfo"
    line = "23 27 {}:{} / {}/proc rw,relatime shared:1 - {} proc rw\n"
    monkeypatch.setattr(file_tool, "_MOUNTS", mounts)
    mounts.write_text(line.format(os.major(device), os.minor(device), root, "ext4"))
    assert read_file("notes/today.txt") == "today"
    for kind in ("proc", "sysfs", "debugfs", "cgroup", "cgroup2", "pstore", "binfmt_misc"):
        mounts.write_text(line.format(os.major(device), os.minor(device), root, kind))
        with pytest.raises(ToolError, match="system's own state"):
            read_file("notes/today.txt")


@pytest.mark.row("X11", "X12")
async def test_what_is_refused_is_an_error_result_that_shows_nothing_of_what_is_outside(
    root: Path, tmp_path: Path
) -> None:
    for path in ("../outside/notes/today.txt", str(tmp_path / "outside" / "notes" / "today.txt")):
        call = ToolCall(id="1", name="read_file", arguments={"path": path})
        result = await dispatch_tool(call)
        assert (result.is_error, result.error_type) == (True, "ToolError")
        assert SECRET not in result.content
        assert str(root) not in result.content
