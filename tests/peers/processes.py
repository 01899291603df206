"""Servers that others wrote, each as a process of its own on a port that it chooses itself."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["RUNNING", "Process", "serving"]

STARTS_WITHIN_SECONDS = 60.0
ENDS_WITHIN_SECONDS = 10.0

# "Port 0" is what a server was asked for, not where it listens.
_ADDRESS = re.compile(r"http://127\.0\.0\.1:[1-9]\d*")


class Process:
    """A running server: where it listens, and all that it has written so far."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.url = ""
        self.lines: list[str] = []
        self._address: queue.Queue[str | None] = queue.Queue()
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_it_listens(self) -> None:
        """Until its log has an address. A server that ends, or says none, is an error with it."""
        try:
            address = self._address.get(timeout=STARTS_WITHIN_SECONDS)
        except queue.Empty:
            address = None
        if address is None:
            raise RuntimeError(f"{self.name} does not listen. It says:\n{self.log}")
        self.url = address

    def stop(self) -> None:
        """End it, gently at first."""
        self._child.terminate()
        try:
            self._child.wait(ENDS_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._reader.join()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self.lines.append(line)
            if found := _ADDRESS.search(line):
                self._address.put(found.group())
        self._address.put(None)


RUNNING: list[Process] = []


@contextlib.contextmanager
def serving(name: str, *command: str, **environment: str) -> Iterator[Process]:
    """Start the command, wait until it listens, and end it afterwards."""
    process = Process(name, command, environment)
    RUNNING.append(process)
    try:
        process.wait_until_it_listens()
        yield process
    finally:
        RUNNING.remove(process)
        process.stop()
