"""What the interpreter is made to do while all of Aether is imported.

    python tests/faults/watched_import.py          # the modules of the package
    python tests/faults/watched_import.py deeds    # deeds that must be seen

It prints as JSON what was sent, started, written, or read of the environment by Aether's modules.
What third parties do when they are imported is theirs: they are imported before.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

THIRD_PARTIES = ["aiohttp", "httpx2", "genai_prices", "hypothesis", "pydantic", "pytest"]
FORBIDDEN = {
    *("ctypes", "http", "shutil", "smtplib", "socket", "sqlite3", "subprocess", "tempfile"),
    *("urllib", "webbrowser"),
}
FORBIDDEN_OF_OS = {"chmod", "exec", "fork", "mkdir", "putenv", "remove", "rename", "system"}
READING = (None, "r", "rb")
_IN_BETWEEN = {"collections.abc", "io", "os", "pathlib"}

done: list[str] = []
watching = False


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not watching:
        return
    kind, _, name = event.partition(".")
    if kind in FORBIDDEN or (kind == "os" and name in FORBIDDEN_OF_OS):
        done.append(f"{event} {arguments[:1]}")
    elif event == "open" and (arguments[1] not in READING or _asked_by_aether()):
        done.append(f"open {arguments[:2]}")


def _asked_by_aether() -> bool:
    """Whether the code that did it is Aether's, and no import."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__") in _IN_BETWEEN:
        frame = frame.f_back
    name = str(frame.f_globals.get("__name__")) if frame is not None else ""
    return name.partition(".")[0] == "aether"


class Watched(type(os.environ)):  # type: ignore[misc]  # the class of the one environment
    """The environment, which tells who reads it."""

    def __getitem__(self, key: str) -> str:
        if watching and _asked_by_aether():
            done.append(f"environment {key}")
        value: str = super().__getitem__(key)
        return value


def import_all() -> int:
    package = importlib.import_module("aether")
    names = [module.name for module in pkgutil.walk_packages(package.__path__, "aether.")]
    for name in names:
        importlib.import_module(name)
    return len(names)


def deeds() -> int:
    with open(os.devnull, "w"):  # noqa: PTH123 - a deed
        pass
    socket.socket().close()
    code = "import os; os.environ.get('HOME'); open(os.devnull).close()"
    exec(code, {"__name__": "aether.deeds"})
    return 3


def main(what: str) -> None:
    global watching  # noqa: PLW0603 - the hook cannot be taken away
    for name in () if what == "deeds" else THIRD_PARTIES:
        importlib.import_module(name)
    os.environ.__class__ = Watched
    sys.addaudithook(hook)
    watching = True
    count = deeds() if what == "deeds" else import_all()
    watching = False
    sys.stdout.write(json.dumps({"count": count, "done": done}))


if __name__ == "__main__":
    main(sys.argv[-1])
