"""A package of another author is found by being installed, with no change to the framework.

Each test runs an interpreter of its own, which sees the package as pip installed it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = Path(__file__).with_name("plugin_package")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the package was built and installed, without a network."""
    scratch = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PACKAGE, scratch / "source")
    target = scratch / "installed"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "-q",
        "install",
        "--no-index",
    ]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", target, source],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return target


def run(installed: Path, code: str, **environment: str) -> str:
    """What `code` prints in a new interpreter; its failure is the test's."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_provider_answers_through_the_whole_default_stack(installed: Path) -> None:
    code = """
import asyncio
from aether import Aether

async def main():
    async with Aether() as client:
        print(await client.ask("Polly"), client.usage.total_requests, client)

asyncio.run(main())
"""
    printed = run(installed, code, LLM_PROVIDER="parrot")
    assert printed.startswith("Polly 1 ")
    for layer in ("CostTracking", "CircuitBreaker", "Retrying", "Parrot"):
        assert layer in printed


def test_provider_gets_its_key_and_model_from_the_variables_that_it_named(installed: Path) -> None:
    code = """
from aether import Aether

provider = Aether(with_retry=False, with_circuit_breaker=False, with_cost_tracking=False).provider
print(provider.api_key, provider.default_model)
"""
    environment = {"AETHER_MODEL": "parrot:macaw", "PARROT_API_KEY": "seed"}
    assert run(installed, code, **environment) == "seed macaw"
    environment = {"LLM_PROVIDER": "parrot", "PARROT_MODEL": "ara"}
    assert run(installed, code, **environment) == "None ara"


def test_tool_runs_when_it_is_named(installed: Path) -> None:
    code = """
import asyncio
from aether import Aether
from aether.extensions.llm.fake import FakeProvider
from aether.llm.contracts import LLMResponse, ToolCall

call = ToolCall(id="1", name="shout", arguments={"text": "quiet"})
fake = FakeProvider(responses=[LLMResponse(text="", model="m", tool_calls=[call]), "done"])

async def main():
    async with Aether(fake) as client:
        await client.ask("Shout.", tools=["shout"])
        print(fake.requests[1].messages[-1].text)

asyncio.run(main())
"""
    assert run(installed, code) == "QUIET"


def test_store_is_found_by_name_and_keeps_a_session(installed: Path) -> None:
    code = """
import asyncio
from aether import Aether
from aether.registry import default_registry

async def main():
    store = default_registry.get("session_store", "counting")()
    async with Aether(memory_store=store) as client:
        session = client.session("one")
        await session.ask("Polly")
        print([message.text for message in await session.history()], store.saved)

asyncio.run(main())
"""
    assert run(installed, code, LLM_PROVIDER="parrot") == "['Polly', 'Polly'] 1"


def test_kind_that_nobody_knew_is_found_too(installed: Path) -> None:
    code = """
from aether.registry import default_registry

print(default_registry.get("poet", "haiku")())
"""
    assert run(installed, code) == "an old silent pond"


def test_names_are_listed_without_an_import(installed: Path) -> None:
    code = """
import sys
from aether.registry import default_registry

names = default_registry.names("llm_provider")
assert {"parrot", "broken"} <= set(names), names
assert ("tool", "shout") in default_registry
assert not [name for name in sys.modules if name.startswith("aether_plugin")]
"""
    run(installed, code)


def test_only_the_name_that_was_asked_for_is_imported(installed: Path) -> None:
    code = """
import sys
from aether import Aether

Aether()
print(*sorted(name for name in sys.modules if name.startswith("aether_plugin")))
"""
    printed = run(installed, code, LLM_PROVIDER="parrot")
    assert printed == "aether_plugin aether_plugin.parrot"
