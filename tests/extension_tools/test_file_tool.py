# ruff: noqa: RUF001, SIM905 - tables of words, some with look-alike characters on purpose
from __future__ import annotations

import errno
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aether.errors import ToolError
from aether.extensions.tools import file as file_tool
from aether.extensions.tools.file import read_file

SECRET = "the outside secret"

posix = pytest.mark.skipif(os.name == "nt", reason="links, pipes and devices of POSIX")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The allowed folder, with a secret beside it."""
    folder = tmp_path / "root"
    (folder / "notes" / "deep").mkdir(parents=True)
    (folder / "plain.txt").write_text("plain", encoding="utf-8")
    (folder / "notes" / "today.txt").write_text("today", encoding="utf-8")
    (folder / "notes" / "deep" / "well.txt").write_text("well", encoding="utf-8")
    (folder / ".env").write_text(SECRET, encoding="utf-8")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text(SECRET, encoding="utf-8")
    (folder / "notes" / ".hidden.txt").write_text(SECRET, encoding="utf-8")
    (tmp_path / "secret.txt").write_text(SECRET, encoding="utf-8")
    (tmp_path / "root-of-another").mkdir()
    (tmp_path / "root-of-another" / "secret.txt").write_text(SECRET, encoding="utf-8")
    monkeypatch.setenv("AETHER_FILE_TOOL_ROOT", str(folder))
    return folder


@pytest.fixture(params=["walk", "look"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to open a file: part by part, and as a whole where the system has no other."""
    monkeypatch.setattr(file_tool, "_CAN_WALK", request.param == "walk")
    return str(request.param)


@pytest.fixture(autouse=True)
def no_descriptor_stays_open() -> Iterator[None]:
    folder = Path("/proc/self/fd")
    before = len(list(folder.iterdir())) if folder.exists() else None
    yield
    assert before is None or len(list(folder.iterdir())) == before


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("plain.txt", "plain"),
        ("./plain.txt", "plain"),
        ("notes/today.txt", "today"),
        ("notes//./today.txt", "today"),
        ("notes/deep/well.txt", "well"),
    ],
)
def test_a_file_in_the_folder_is_read(root: Path, path: str, text: str) -> None:
    assert read_file(path) == text


@pytest.mark.usefixtures("way")
def test_an_absolute_path_is_read_if_it_is_inside(root: Path) -> None:
    assert read_file(str(root / "notes" / "today.txt")) == "today"


@posix
@pytest.mark.usefixtures("way")
def test_the_folder_itself_may_be_named_through_a_link(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(root, target_is_directory=True)
    monkeypatch.setenv("AETHER_FILE_TOOL_ROOT", str(alias))
    assert read_file("notes/today.txt") == "today"
    assert read_file(f"{alias}/notes/today.txt") == "today"
    assert read_file(f"{root}/notes/today.txt") == "today"


def test_the_working_directory_is_the_default_at_every_call(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AETHER_FILE_TOOL_ROOT")
    monkeypatch.chdir(root)
    assert read_file("plain.txt") == "plain"
    monkeypatch.chdir(root / "notes")
    assert read_file("today.txt") == "today"
    with pytest.raises(ToolError):
        read_file("../plain.txt")


OUTSIDE = """
    .. ../secret.txt ../../etc/passwd notes/../../secret.txt notes/../plain.txt ./../secret.txt
    notes/deep/../../../secret.txt ../root/plain.txt ../root-of-another/secret.txt
    ....//secret.txt ..//secret.txt /etc/passwd /etc/shadow //etc/passwd ///etc/passwd / //
    /proc/self/root/etc/passwd /proc/self/cwd/plain.txt /proc/self/fd/0 /proc/self/mem
    /proc/../etc/passwd /sys/kernel/notes /dev/fd/0 /dev/random /run/secrets /var/run/docker.sock
    /./etc/passwd /etc/./passwd plain.txt/.. notes/.. notes/../.. notes/./../../secret.txt
    .ssh/id_rsa .aws/credentials .netrc .git/HEAD notes/.git/config .\\..\\secret.txt
    file:plain.txt file://plain.txt http://127.0.0.1/ \\\\.\\pipe\\x $HOME/.ssh/id_rsa
    ${HOME}/x `id` $(id) /proc/self/environ /proc/1/environ /dev/zero /dev/stdin
    /dev/tcp/127.0.0.1/80
    /root/.ssh/id_rsa ~ ~/ ~/.ssh/id_rsa ~root/.bashrc ~nobody ..\\secret.txt
    ..\\..\\windows\\win.ini notes\\today.txt \\\\server\\share\\file.txt C:\\boot.ini
    \\\\?\\C:\\boot.ini //server/share/file.txt //?/C:/boot.ini file:///etc/passwd C:/boot.ini
    .env ./.env .git/config .git notes/.hidden.txt ./notes/./.hidden.txt .git/../plain.txt ...
    %2e%2e/secret.txt ..%2fsecret.txt %2fetc%2fpasswd ..;/secret.txt ．．/secret.txt ‥/secret.txt
    ․․/secret.txt ..／secret.txt ..∕secret.txt ..⁄secret.txt
""".split()
OUTSIDE_WITH_ODD_CHARACTERS = [
    "",
    " ",
    "\0",
    "plain.txt\0",
    "plain.txt\0.png",
    "..\0/secret.txt",
    "\0/etc/passwd",
    "../secret.txt\n",
    "\n../secret.txt",
    " ../secret.txt",
    " /etc/passwd",
    "\ud800",
    "notes/\udcff",
    "a" * 300,
    "a" * 100_000,
    "a/" * 50_000 + "b",
    "../" * 1000 + "etc/passwd",
    "plain.txt/../../secret.txt",
    "plain.txt/secret.txt",
    "notes/deep/well.txt/",
    "notes",
    "notes/",
    ".",
    "./",
    "missing.txt",
    "missing/plain.txt",
    "PLAIN.TXT/x",
]


@pytest.mark.row("X11", "X12")
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("path", OUTSIDE + OUTSIDE_WITH_ODD_CHARACTERS)
def test_what_is_not_an_open_file_inside_is_refused(root: Path, path: str) -> None:
    if path == "notes/deep/well.txt/":
        assert read_file(path) == "well"  # the final slash says nothing more
        return
    with pytest.raises(ToolError) as caught:
        read_file(path)
    assert SECRET not in str(caught.value)
    assert len(str(caught.value)) < 1200


@pytest.mark.row("X11")
@pytest.mark.usefixtures("way")
def test_a_neighbour_whose_name_begins_alike_is_outside(root: Path) -> None:
    path = f"{root}-of-another/secret.txt"
    with pytest.raises(ToolError, match=re.escape(f"{path!r} is refused: it is outside")):
        read_file(path)


@posix
def test_a_path_that_is_no_text_is_told_so(root: Path) -> None:
    assert root.is_dir()
    with pytest.raises(ToolError, match="is refused: it is not valid Unicode"):
        read_file("\ud800")


@pytest.mark.row("X11")
@posix
@pytest.mark.parametrize("name", ["~", "~root", "notes\\today.txt", "..\\secret.txt", "C:\\x"])
def test_a_name_that_means_another_place_elsewhere_is_refused_even_if_it_is_there(
    root: Path, name: str
) -> None:
    (root / name).write_text("a file", encoding="utf-8")
    with pytest.raises(ToolError, match="refused"):
        read_file(name)


def test_a_colon_is_refused_where_it_leads_to_another_stream_of_a_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as windows:
        windows.setattr(os, "name", "nt")  # of the whole tool only this part bears it elsewhere
        assert file_tool._judge("today.txt", "'today.txt'", root) == ("today.txt",)
        with pytest.raises(ToolError, match="a name may not have a colon"):
            file_tool._judge("notes.txt:b", "'notes.txt:b'", root)
    if os.name != "nt":
        (root / "notes.txt:b").write_text("a file", encoding="utf-8")
        assert read_file("notes.txt:b") == "a file"


def test_a_climb_out_of_an_absolute_path_is_refused(root: Path) -> None:
    with pytest.raises(ToolError, match=r"'\.\.'"):
        read_file(f"{root}/../secret.txt")


def test_hidden_folders_above_the_root_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".config" / "app"
    folder.mkdir(parents=True)
    (folder / "open.txt").write_text("open", encoding="utf-8")
    monkeypatch.setenv("AETHER_FILE_TOOL_ROOT", str(folder))
    assert read_file("open.txt") == "open"
    assert read_file(str(folder / "open.txt")) == "open"


@pytest.mark.row("X11")
@posix
@pytest.mark.usefixtures("way")
class TestLinks:
    @pytest.mark.parametrize(
        "target", ["../secret.txt", "plain.txt", "/etc/passwd", ".env", "self", "nothing"]
    )
    def test_a_link_is_not_followed_wherever_it_leads(self, root: Path, target: str) -> None:
        (root / "self").symlink_to(target)
        with pytest.raises(ToolError):
            read_file("self")

    def test_a_refused_link_is_called_a_link(self, root: Path) -> None:
        (root / "alias.txt").symlink_to("plain.txt")
        with pytest.raises(ToolError) as caught:
            read_file("alias.txt")
        assert str(caught.value) == (
            "'alias.txt' is refused: it is a link or leads through one, and links are not followed."
        )

    @pytest.mark.parametrize("target", ["..", "notes", "/", "../root-of-another"])
    def test_a_folder_behind_a_link_is_not_entered(self, root: Path, target: str) -> None:
        (root / "door").symlink_to(target, target_is_directory=True)
        (root / "notes" / "door").symlink_to(target, target_is_directory=True)
        for path in (
            "door/secret.txt",
            "door/today.txt",
            "notes/door/secret.txt",
            "door/etc/passwd",
            f"{root}/door/secret.txt",
        ):
            with pytest.raises(ToolError):
                read_file(path)

    def test_a_path_through_a_link_is_said_to_lead_through_one(self, root: Path) -> None:
        (root / "door").symlink_to("notes", target_is_directory=True)
        with pytest.raises(ToolError, match=r"'door/today\.txt' is refused: .* leads through"):
            read_file("door/today.txt")

    def test_a_hard_link_is_refused(self, root: Path, tmp_path: Path) -> None:
        os.link(tmp_path / "secret.txt", root / "copy.txt")
        with pytest.raises(ToolError, match="hard link"):
            read_file("copy.txt")


def refuse(path: str, match: str) -> None:
    """Read in a thread, so that a hang shows soon."""
    outcome: list[str | ToolError] = []

    def run() -> None:
        try:
            outcome.append(read_file(path))
        except ToolError as error:
            outcome.append(error)

    reader = threading.Thread(target=run, daemon=True)
    reader.start()
    reader.join(timeout=2)
    assert not reader.is_alive(), "read_file hangs"
    assert isinstance(outcome[0], ToolError)
    assert match in str(outcome[0])


@pytest.mark.row("X12")
@posix
@pytest.mark.usefixtures("way")
class TestSpecialFiles:
    def test_a_pipe_is_refused_without_waiting_for_a_writer(self, root: Path) -> None:
        os.mkfifo(root / "pipe")
        refuse("pipe", "'pipe' is refused: it is no regular file")

    def test_a_socket_is_refused(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(root)  # a socket's path must be short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
            refuse("socket", "no regular file")

    def test_a_folder_is_refused(self, root: Path) -> None:
        refuse("notes", "'notes' is a folder. Give the path of a file.")
        refuse(".", "'.' is a folder. Give the path of a file.")

    @pytest.mark.parametrize("device", ["zero", "null", "random", "full"])
    def test_a_device_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, root: Path, device: str
    ) -> None:
        monkeypatch.setenv("AETHER_FILE_TOOL_ROOT", "/dev")
        refuse(device, "no regular file")

    @pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
    @pytest.mark.parametrize("name", ["environ", "cmdline", "maps"])
    @pytest.mark.parametrize("folder", ["/", "/proc"])
    def test_the_state_of_processes_is_refused_even_where_the_root_holds_it(
        self, monkeypatch: pytest.MonkeyPatch, folder: str, name: str
    ) -> None:
        monkeypatch.setenv("AETHER_FILE_TOOL_ROOT", folder)
        path = Path("/proc", str(os.getpid()), name)
        refuse(str(path), "system's own state")
        refuse(str(path.relative_to(folder)), "system's own state")


@pytest.mark.row("X11", "X12")
@posix
def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap_before_opening(monkeypatch, root / "plain.txt", os.mkfifo)
    refuse("plain.txt", "no regular file")


@pytest.mark.row("X11", "X12")
@posix
@pytest.mark.parametrize("folder", [".", "notes"])
def test_a_pipe_that_takes_the_place_of_a_folder_is_not_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    swap_before_opening(monkeypatch, root / folder, os.mkfifo)
    refuse("notes/today.txt", "Not a directory")


@pytest.mark.row("X12")
class TestWhatIsMounted:
    """What Linux says is mounted stands in a file of its own here; the device is the root's."""

    @pytest.fixture(autouse=True)
    def nothing_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(file_tool, "_KERNEL_FOLDERS", ())

    @pytest.fixture
    def device(self, root: Path) -> bytes:
        number = (root / "plain.txt").stat().st_dev
        return f"{os.major(number)}:{os.minor(number)}".encode()

    @pytest.fixture
    def mounts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(file_tool, "_MOUNTS", tmp_path / "mountinfo")
        return tmp_path / "mountinfo"

    @pytest.mark.parametrize(
        "line",
        [
            b"24 27 %b / /work rw,relatime - proc proc rw",
            b"24 27 %b / /work rw shared:2 master:1 - sysfs sysfs rw",
            b"24 27 %b / /work rw - cgroup2 a - b rw",
            b"24 27 %b / /caf\xe9 rw - proc proc rw",
            b"24 27 %b / /a\x0bb\xc2\x85c\xe2\x80\xa8d\x1ce rw - proc proc rw",
        ],
    )
    def test_files_of_the_kernel_are_refused_wherever_they_are_mounted(
        self, mounts: Path, device: bytes, line: bytes
    ) -> None:
        other = b"23 27 0:999 / /other rw - ext4 /dev/a rw\n"
        mounts.write_bytes(other + line % device + b"\n" + other)
        refuse("plain.txt", "'plain.txt' is refused: it is part of the system's own state")

    @pytest.mark.parametrize(
        "line",
        [
            b"24 27 %b / /work rw - ext4 proc rw",
            b"24 27 %b / /proc rw - fuse.\xff proc rw",
            b"24 27 0:999 / /proc rw - proc proc rw",
        ],
    )
    def test_files_of_any_other_system_are_read(
        self, mounts: Path, device: bytes, line: bytes
    ) -> None:
        mounts.write_bytes(line.replace(b"%b", device) + b"\n")
        assert read_file("plain.txt") == "plain"

    def test_where_nothing_says_what_is_mounted_files_are_read(
        self, root: Path, mounts: Path
    ) -> None:
        assert not mounts.exists()
        assert read_file("plain.txt") == "plain"


@pytest.mark.row("X11")
@posix
@pytest.mark.parametrize("target", ["../secret.txt", ".env"])
def test_a_link_that_takes_the_place_of_a_file_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    swap_before_opening(monkeypatch, root / "plain.txt", lambda path: path.symlink_to(target))
    with pytest.raises(ToolError):
        read_file("plain.txt")


@pytest.mark.row("X11")
@posix
def test_a_hard_link_that_takes_the_place_of_a_file_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap_before_opening(
        monkeypatch, root / "plain.txt", lambda path: os.link(tmp_path / "secret.txt", path)
    )
    with pytest.raises(ToolError, match="hard link"):
        read_file("plain.txt")


@posix
def test_a_folder_that_takes_the_place_of_a_file_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap_before_opening(monkeypatch, root / "plain.txt", Path.mkdir)
    with pytest.raises(ToolError, match="folder"):
        read_file("plain.txt")


@pytest.mark.row("X11")
@posix
def test_a_link_that_takes_the_place_of_a_folder_is_not_entered(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root-of-another" / "today.txt").write_text(SECRET, encoding="utf-8")

    def swap(path: Path) -> None:
        path.symlink_to("../root-of-another", target_is_directory=True)

    swap_before_opening(monkeypatch, root / "notes", swap)
    with pytest.raises(ToolError):
        read_file("notes/today.txt")


def swap_before_opening(
    monkeypatch: pytest.MonkeyPatch, path: Path, replace: Callable[[Path], object]
) -> None:
    """Puts something else at `path` between the look at it and its opening."""
    opening = os.open

    def swapping(name: str | Path, *args: int, **options: int) -> int:
        if name in (path, path.name):
            path.rename(path.with_name("moved"))
            replace(path)
        return opening(name, *args, **options)

    monkeypatch.setattr(os, "open", swapping)


@posix
def test_where_nothing_can_be_walked_a_file_that_was_swapped_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_tool, "_CAN_WALK", False)
    swap_before_opening(
        monkeypatch, root / "plain.txt", lambda path: path.symlink_to("../secret.txt")
    )
    with pytest.raises(ToolError, match="replaced"):
        read_file("plain.txt")


@pytest.mark.row("X11")
@posix
def test_where_nothing_can_be_walked_a_folder_that_cannot_be_looked_at_is_not_passed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_for_real = os.lstat

    def look(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("notes"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return look_for_real(path, **options)

    monkeypatch.setattr(file_tool, "_CAN_WALK", False)
    monkeypatch.setattr(os, "lstat", look)
    with pytest.raises(ToolError, match="Permission denied"):
        read_file("notes/today.txt")


def test_where_nothing_can_be_walked_bytes_are_not_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = os.open
    flags: list[int] = []

    def watched(path: Any, how: int, *args: Any, **options: Any) -> int:
        flags.append(how)
        return opening(path, how & ~binary, *args, **options)

    binary = 1 << 30  # as only Windows has it
    monkeypatch.setattr(file_tool, "_CAN_WALK", False)
    monkeypatch.setattr(os, "O_BINARY", binary, raising=False)
    monkeypatch.setattr(os, "open", watched)
    assert read_file("plain.txt") == "plain"
    assert flags == [os.O_RDONLY | binary]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("limit", [100, 10])
def test_a_file_that_comes_in_pieces_is_read_whole_and_no_further_than_the_limit(
    root: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    reading = os.read
    asked = 0

    def by_threes(descriptor: int, length: int) -> bytes:
        nonlocal asked
        piece = reading(descriptor, min(length, 3))
        assert len(piece) <= length <= limit + 1 - asked
        asked += len(piece)
        return piece

    monkeypatch.setenv("AETHER_FILE_TOOL_MAX_BYTES", str(limit))
    (root / "long.txt").write_bytes(b"0123456789abcdefgh")
    monkeypatch.setattr(os, "read", by_threes)
    text = read_file("long.txt")
    assert text.startswith("0123456789abcdefgh"[:limit])
    assert ("Truncated" in text) == (limit == 10)


@pytest.mark.row("X12")
@pytest.mark.usefixtures("way")
class TestLimits:
    @pytest.fixture(autouse=True)
    def ten_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AETHER_FILE_TOOL_MAX_BYTES", "10")

    def test_a_file_of_just_the_limit_is_whole(self, root: Path) -> None:
        (root / "ten.txt").write_bytes(b"0123456789")
        assert read_file("ten.txt") == "0123456789"

    def test_a_longer_file_is_cut_and_says_so(self, root: Path) -> None:
        (root / "long.txt").write_bytes(b"0123456789abc")
        text = read_file("long.txt")
        assert text.startswith("0123456789\n[Truncated")
        assert "10 of 13 bytes" in text
        assert "abc" not in text

    @pytest.mark.parametrize(
        ("content", "kept", "length"),
        [
            ("01234567é9", "01234567é", 10),
            ("012345678é", "012345678", 9),
            ("0123456😀..", "0123456", 7),
            ("01234567€", "01234567", 8),
        ],
    )
    def test_a_character_is_not_cut_in_two(
        self, root: Path, content: str, kept: str, length: int
    ) -> None:
        (root / "long.txt").write_text(content, encoding="utf-8")
        text = read_file("long.txt")
        assert text.partition("\n")[0] == kept
        assert f"first {length} of" in text

    def test_a_huge_sparse_file_is_not_read_whole(self, root: Path) -> None:
        with (root / "huge.txt").open("wb") as file:
            file.write(b"0123456789")
            file.truncate(2**40)
        assert f"10 of {2**40} bytes" in read_file("huge.txt")

    def test_binary_content_is_described(self, root: Path) -> None:
        (root / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
        assert read_file("image.png") == (
            "['image.png' is not text in UTF-8 (108 bytes): it is not shown.]"
        )
        (root / "zeros").write_bytes(bytes(20))
        assert read_file("zeros") == "['zeros' is binary (20 bytes): it is not shown.]"

    @pytest.mark.parametrize("content", [b"caf\xe9", b"\xff\xfea\0", b"\xed\xa0\x80", b"\xc3"])
    def test_text_that_is_not_utf_8_is_described(self, root: Path, content: bytes) -> None:
        (root / "odd.txt").write_bytes(content)
        assert "not text in UTF-8" in read_file("odd.txt")

    def test_an_empty_file_is_empty(self, root: Path) -> None:
        (root / "empty.txt").touch()
        assert read_file("empty.txt") == ""

    def test_line_ends_stay_and_a_byte_order_mark_goes(self, root: Path) -> None:
        (root / "windows.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
        assert read_file("windows.txt") == "a\r\nb\r\n"


@given(content=st.text(max_size=30), limit=st.integers(1, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_shown_is_the_longest_whole_beginning_that_fits(
    root: Path, content: str, limit: int
) -> None:
    content = content.replace("\0", "").removeprefix("\ufeff")
    (root / "any.txt").write_bytes(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AETHER_FILE_TOOL_MAX_BYTES", str(limit))
        text = read_file("any.txt")
    if len(content.encode()) <= limit:
        assert text == content
    else:
        shown, _, marker = text.rpartition("\n[Truncated")
        assert marker
        assert shown == content.encode()[:limit].decode(errors="ignore")


@pytest.mark.row("X11")
@given(st.text(st.sampled_from("./~\\\0ab é\n:*?%-"), max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_spelling_leads_outside(root: Path, path: str) -> None:
    try:
        text = read_file(path)
    except ToolError:
        return
    assert text in {"plain", "today", "well"}


def test_a_file_that_may_not_be_read_says_why(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_for_real = os.open

    def refuse(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if str(path).endswith("plain.txt"):  # for root, whom no file's mode stops
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_for_real(path, flags, *args, **options)

    (root / "plain.txt").chmod(0)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ToolError, match="Permission denied"):
        read_file("plain.txt")


@pytest.mark.parametrize("place", ["missing", "plain.txt"])
def test_a_root_that_is_no_folder_says_what_to_set(
    root: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("AETHER_FILE_TOOL_ROOT", place)
    with pytest.raises(ToolError, match="no folder to read in"):
        read_file("plain.txt")


def test_a_working_directory_that_is_gone_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(ToolError, match="no folder to read in"):
        read_file("plain.txt")
