"""What is not used is not imported, counted. Each test runs an interpreter of its own.

Aether's own modules are bounded by what they are, and whoever adds one says here that a start needs
it. The others have a little room, for other versions of Python and of what is installed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import VERSION

import aether
from aether.testing import FaultServer

ROOT = Path(__file__).parents[2]
HEAVY = {
    "aiohttp",
    "httpx2",
    "httpx",
    "genai_prices",
    "docstring_parser",
    "xllamacpp",
    "opentelemetry",
    "openai",
    "anthropic",
    "google",
    "pytest",
}
PYDANTIC = {
    "annotated_types",
    "pydantic",
    "pydantic_core",
    "typing_extensions",
    "typing_inspection",
}
AIOHTTP = {
    "aiohappyeyeballs",
    "aiohttp",
    "aiosignal",
    "attr",
    "attrs",
    "frozenlist",
    "idna",
    "multidict",
    "propcache",
    "yarl",
}
NOT_ASKED_FOR = {
    "aether.agent",
    "aether.llm.estimate",
    "aether.llm.policies",
    "aether.memory.session",
    "aether.sync",
    "aether.tools.docstrings",
    "aether.tools.schema",
    "aether.tools.signature",
    *(
        f"aether.extensions.llm.{name}"
        for name in (
            "anthropic",
            "budget",
            "caching",
            "estimating",
            "explaining",
            "fake",
            "fallback",
            "gemini",
            "hedging",
            "local",
            "openai_compatible",
            "rate_limiting",
            "timeout",
            "_wire.anthropic",
            "_wire.gemini",
            "_wire.openai_responses",
        )
    ),
    "aether.extensions.caches",
    "aether.extensions.http.httpx",
    "aether.extensions.memory",
    "aether.extensions.prices",
    "aether.extensions.tools",
    "aether.testing",
}
"""What only some clients, calls or runs need."""

STANDARD_NOT_ASKED_FOR = {
    "argparse",
    "concurrent.futures.process",
    "ctypes",
    "html",
    "http.client",
    "multiprocessing",
    "sqlite3",
    "unittest",
    "urllib.request",
    "xml",
}
"""Of the standard library: few modules, which a number would hide, and some ms each."""

BROUGHT_ALONG = "import asyncio, pydantic\nclass Model(pydantic.BaseModel): a: int\nModel(a=1)"
STANDARD_ASKED_FOR = {"_json", "difflib", "json", "urllib"}
"""Of the standard library, what Aether loads, and neither asyncio nor pydantic, in any Python."""


@dataclass
class Loaded:
    """The modules that an interpreter has imported for some code."""

    names: set[str]

    @property
    def packages(self) -> set[str]:
        """Of others, top-level names alone; the standard library left out."""
        top = {name.partition(".")[0] for name in self.names} - {"aether", "__mp_main__"}
        return {
            name
            for name in top - sys.stdlib_module_names
            if not name.startswith(("_", "cython_runtime"))  # made by extension modules
        }

    def count(self, *packages: str) -> int:
        return sum(name.partition(".")[0] in packages for name in self.names)

    @property
    def standard(self) -> int:
        return self.count(*sys.stdlib_module_names)


async def loaded_by(code: str, *arguments: str) -> Loaded:
    program = f"import sys; before = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-c", program, *arguments),
        cwd=ROOT,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return Loaded(set(out.decode().split()))


async def loaded_by_a_first_call(more: str = "") -> Loaded:
    code = f"""
import asyncio
from aether import Aether, ProviderConfig

def add(a: int, b: int) -> int:
    return a + b

async def main():
    config = ProviderConfig("openai", "gpt-4o-mini", "a-key", sys.argv[1])
    async with Aether(config=config) as client:
        assert await client.ask("Hi") == "Hello."
        {more}

asyncio.run(main())
"""
    async with FaultServer("Hello.", "Hello.") as server:
        return await loaded_by(code, server.base_url("openai"))


async def test_import_loads_few_modules_and_none_that_only_some_calls_need() -> None:
    loaded = await loaded_by("import aether")

    assert loaded.count("aether") <= 62
    assert loaded.packages == PYDANTIC
    assert loaded.count(*PYDANTIC) <= 52
    # Before pydantic 2.14 the models are built then, for which it looks for its plug-ins in all
    # installed packages.
    built_later = tuple(map(int, VERSION.split(".")[:2])) >= (2, 14)
    assert loaded.standard <= (147 if built_later else 185)
    assert not loaded.names & NOT_ASKED_FOR
    assert not loaded.names & STANDARD_NOT_ASKED_FOR


async def test_import_loads_little_of_the_standard_library_that_is_not_loaded_anyway() -> None:
    added = (await loaded_by("import aether")).names - (await loaded_by(BROUGHT_ALONG)).names
    packages = {name.partition(".")[0] for name in added}
    assert packages & sys.stdlib_module_names <= STANDARD_ASKED_FOR


async def test_a_first_call_loads_few_modules_and_no_layer_that_nobody_asked_for() -> None:
    loaded = await loaded_by_a_first_call()

    assert loaded.count("aether") <= 111
    assert loaded.packages <= PYDANTIC | AIOHTTP
    assert "aiohttp" in loaded.packages
    assert loaded.count(*AIOHTTP) <= 86
    assert loaded.standard <= 207
    assert not loaded.names & NOT_ASKED_FOR


async def test_what_is_asked_for_is_loaded() -> None:
    """So that the names above are those of what a call can need."""
    loaded = await loaded_by_a_first_call(
        "client.session('one'); client.explain(); await client.ask('Hi', tools=[add])"
    )

    assert {
        "aether.extensions.llm.explaining",
        "aether.extensions.memory",
        "aether.memory.session",
        "aether.tools.schema",
    } <= loaded.names & NOT_ASKED_FOR


async def test_an_answer_of_the_fake_provider_loads_no_heavy_package() -> None:
    code = """
import asyncio, os
os.environ["LLM_PROVIDER"] = "fake"
from aether import Aether

async def main():
    async with Aether() as client:
        assert await client.ask("hi")
        assert [text async for text in client.stream_text("hi")]
        assert client.usage.total_requests == 2

asyncio.run(main())
"""
    assert not (await loaded_by(code)).packages & HEAVY


def test_the_names_that_are_looked_for_exist() -> None:
    package = Path(aether.__file__).parent
    for name in NOT_ASKED_FOR:
        path = package.joinpath(*name.split(".")[1:])
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists() or path.is_dir()


async def test_all_public_names_are_there_however_they_are_asked_for() -> None:
    await loaded_by("""
import aether, aether.memory, aether.tools
for module in (aether, aether.memory, aether.tools):
    assert set(module.__all__) <= set(dir(module))
from aether import Hedge, Tool
assert Hedge.__module__ == "aether.llm.policies" and Tool.__module__ == "aether.tools.contracts"
for module in (aether, aether.memory, aether.tools):
    names = {}
    exec(f"from {module.__name__} import *", names)
    assert set(module.__all__) <= names.keys()
""")


async def test_after_the_import_alone_agents_and_tools_are_there_as_modules() -> None:
    code = """
import aether

assert "aether.tools" not in sys.modules
assert aether.tools.register_tool is aether.register_tool
assert aether.agent.Agent is aether.Agent
"""
    assert (await loaded_by("import sys" + code)).packages <= PYDANTIC | {"docstring_parser"}
