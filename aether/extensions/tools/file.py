"""The tool that reads files in one folder, and nothing outside of it.

It must not know who asks. The folder is `AETHER_FILE_TOOL_ROOT`, looked up at every call.

What a path says is judged first: no way out, no hidden part. Then the system walks it one part at
a time, each opened relative to the folder opened before it and never through a link, so that
nobody who swaps a part meanwhile can lead the walk outside. What was opened is looked at again.
A link is refused even if it leads inside. So is a file that has a second name (a hard link),
because that name may be hidden or outside.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath

from aether import config
from aether.errors import ToolError
from aether.tools.registry import register_tool

__all__ = ["read_file"]

_KERNEL_FOLDERS = (Path("/proc"), Path("/sys"))
"""Their "files" are the state of processes: /proc/self/environ holds every key."""
_KERNEL_SYSTEMS = {
    *("proc", "sysfs", "debugfs", "tracefs", "securityfs", "configfs", "cgroup", "cgroup2"),
    *("bpf", "binfmt_misc", "efivarfs", "fusectl", "mqueue", "nfsd", "pstore", "resctrl"),
    *("rpc_pipefs", "selinuxfs", "smackfs"),
}
_MOUNTS = Path("/proc/self/mountinfo")
"""Where Linux says what is mounted where: proc(5). Nobody says that /proc is at /proc alone."""


@register_tool
def read_file(path: str) -> str:
    """Read a text file and return its text.

    Hidden files, links and files outside of the one allowed folder are refused. Long files are
    cut, and say so.

    Args:
        path: Path of the file, relative to the allowed folder, with / between its parts.
    """
    shown = repr(path if len(path) <= 200 else f"{path[:200]}...")
    root = _root()
    parts = _judge(path, shown, root)
    try:
        descriptor = _walk(root, parts, shown) if _CAN_WALK else _look(root, parts, shown)
        try:
            status = os.fstat(descriptor)
            _require_own_file(status, shown)
            _require_outside_kernel(status, shown)
            limit = config.file_tool_max_bytes()
            data = _read(descriptor, limit + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ToolError(f"There is no file {shown} in the folder that read_file reads.") from None
    except OSError as error:
        raise ToolError(f"{shown} cannot be read: {error.strerror}.") from error
    return _render(data, limit, status.st_size, shown)


def _root() -> Path:
    try:
        root = config.file_tool_root()
    except (OSError, RuntimeError) as error:  # no working directory any more; ~ and nobody's home
        raise ToolError(f"read_file has no folder to read in: {error}.") from error
    if not root.is_dir():
        raise ToolError("read_file has no folder to read in: set AETHER_FILE_TOOL_ROOT to one.")
    return root


def _judge(path: str, shown: str, root: Path) -> tuple[str, ...]:
    if not path or "\0" in path or "\\" in path or path.startswith("~"):
        raise ToolError(
            f"{shown} is refused: a path may not be empty, start with ~, or have a backslash "
            "or a NUL in it. Give a path relative to the folder, such as 'notes/today.txt'."
        )
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ToolError(f"{shown} is refused: it is not valid Unicode.") from None
    pure = PurePath(path)
    if ".." in pure.parts:
        raise ToolError(f"{shown} is refused: a path may not have '..' in it.")
    if pure.anchor:
        pure = _relative(pure, shown, root)
    if any(part.startswith(".") for part in pure.parts):
        raise ToolError(f"{shown} is refused: hidden files and folders are not read.")
    if os.name == "nt" and ":" in str(pure):
        raise ToolError(f"{shown} is refused: a name may not have a colon in it.")
    if not pure.parts:
        raise ToolError(f"{shown} is a folder. Give the path of a file.")
    return pure.parts


def _relative(pure: PurePath, shown: str, root: Path) -> PurePath:
    for base in (root.absolute(), root.resolve()):
        if pure.is_relative_to(base):
            return pure.relative_to(base)
    raise ToolError(
        f"{shown} is refused: it is outside of the folder that read_file reads "
        "(AETHER_FILE_TOOL_ROOT, by default the working directory)."
    )


_CAN_WALK = {os.open, os.stat} <= os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")


def _walk(root: Path, parts: tuple[str, ...], shown: str) -> int:
    """Open the file part by part, following no link. Returns its descriptor."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            _require_no_link(os.stat(part, dir_fd=folder, follow_symlinks=False), shown)
            outer = folder
            folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=outer)
            os.close(outer)
        # Looked at before it is opened, for opening a device or a pipe already does something.
        # O_NONBLOCK is for one that was put there since: no waiting for a writer.
        _require_own_file(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False), shown)
        return os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)


def _look(root: Path, parts: tuple[str, ...], shown: str) -> int:
    """Open the file where the system cannot walk (Windows). Returns its descriptor.

    Weaker than `_walk`: the path is judged as a whole and then opened as a whole. Somebody who may
    write to the folder, and swaps one of its folders for a link right in between, leads it outside.
    """
    path = root.resolve().joinpath(*parts)
    # Another spelling differs too: a short name (ENV~1), a final dot.
    if Path(os.path.realpath(path, strict=True)) != path:
        raise ToolError(_LINK.format(shown))
    before = path.lstat()
    _require_own_file(before, shown)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    if not os.path.samestat(before, os.fstat(descriptor)):
        os.close(descriptor)
        raise ToolError(f"{shown} was replaced while it was being opened. Try again.")
    return descriptor


_LINK = "{} is refused: it is a link or leads through one, and links are not followed."


def _require_no_link(status: os.stat_result, shown: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise ToolError(_LINK.format(shown))


def _require_own_file(status: os.stat_result, shown: str) -> None:
    _require_no_link(status, shown)
    if stat.S_ISDIR(status.st_mode):
        raise ToolError(f"{shown} is a folder. Give the path of a file.")
    if not stat.S_ISREG(status.st_mode):
        raise ToolError(f"{shown} is refused: it is no regular file but a device, pipe or socket.")
    if status.st_nlink > 1:
        raise ToolError(
            f"{shown} is refused: it has more than one name (a hard link), and the other may be "
            "outside of the folder. A copy of it can be read."
        )


def _require_outside_kernel(status: os.stat_result, shown: str) -> None:
    if status.st_dev in _kernel_devices():
        raise ToolError(f"{shown} is refused: it is part of the system's own state.")


def _kernel_devices() -> Iterator[int]:
    for folder in _KERNEL_FOLDERS:
        if folder.is_mount():
            yield folder.stat().st_dev
    try:
        mounts = os.fsdecode(_MOUNTS.read_bytes())
    except OSError:
        return
    for line in mounts.split("\n"):  # and at nothing else: what a place is called may hold the rest
        place, _, kind = line.partition(" - ")
        if kind.partition(" ")[0] in _KERNEL_SYSTEMS:
            major, minor = place.split(" ")[2].split(":")
            yield os.makedev(int(major), int(minor))


def _read(descriptor: int, length: int) -> bytes:
    data = bytearray()
    while len(data) < length and (piece := os.read(descriptor, length - len(data))):
        data += piece
    return bytes(data)


def _render(data: bytes, limit: int, size: int, shown: str) -> str:
    truncated = len(data) > limit
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(data[:limit], not truncated)
    except UnicodeDecodeError:
        return f"[{shown} is not text in UTF-8 ({size} bytes): it is not shown.]"
    if "\0" in text:
        return f"[{shown} is binary ({size} bytes): it is not shown.]"
    if truncated:
        kept = limit - len(decoder.getstate()[0])
        text += f"\n[Truncated: these are the first {kept} of {size} bytes.]"
    return text.removeprefix("\ufeff")
