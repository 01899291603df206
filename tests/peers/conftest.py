"""The peers, each started once for all the tests of this folder.

This folder has a lane of its own, `make peers`: it needs what the project itself does not.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.peers.processes import RUNNING, Process, serving

HERE = Path(__file__).parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what the servers have to say."""
    report = yield
    if report.failed:
        for process in RUNNING:
            report.sections.append((f"log of {process.name}", "".join(process.lines[-60:])))
    return report


@pytest.fixture(scope="session")
def llama_cpp() -> Iterator[Process]:
    """llama.cpp's server, with a small model as it is."""
    with serving("llama.cpp", sys.executable, str(HERE / "llama_cpp_server.py")) as process:
        yield process


@pytest.fixture(scope="session")
def llama_cpp_with_tools() -> Iterator[Process]:
    """llama.cpp's server, with a template that makes it hold tool calls to their schema."""
    script = str(HERE / "llama_cpp_server.py")
    with serving("llama.cpp with tools", sys.executable, script, "tools") as process:
        yield process


@pytest.fixture(scope="session")
def llmock() -> Iterator[Process]:
    """llmock: mocks of providers that break on demand, and judge what the client makes of it."""
    # With a pause between two pieces it sees that a client left in the middle of a stream.
    options = ("--port", "0", "--stream-chunk-delay-ms", "5")
    command = str(Path(sys.executable).with_name("llmock"))
    with serving("llmock", command, "serve", *options, PYTHONUNBUFFERED="1") as process:
        yield process


@pytest.fixture(scope="session")
def aimock() -> Iterator[Process]:
    """aimock: mocks of providers that answer by the script in `aimock.json`, and nothing else."""
    program = Path(sys.prefix) / "node/node_modules/@copilotkit/aimock/dist/cli.js"
    options = ("--port", "0", "--fixtures", str(HERE / "aimock.json"), "--strict")
    with serving("aimock", "node", str(program), *options, "--validate-on-load") as process:
        yield process
