"""The conformance suites, as the author of an extension uses them: in a project of their own.

That they find what is wrong is shown with `broken_adapters`, each of which has one fault.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testing import acme_adapter, broken_adapters

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "testing-a-provider.md"
HEAD = """
from aether.llm.contracts import LLMResponse
from aether.testing.providers import AdapterConformance, ProviderConformance
from aether.testing.stores import SessionStoreConformance
from aether.testing.transports import TransportConformance
"""


def run(
    folder: Path, source: str, *tests: str, mode: str = "auto"
) -> subprocess.CompletedProcess[str]:
    """Run pytest on `source` in a folder of its own, or only `tests` of it."""
    (folder / "test_mine.py").write_text(HEAD + source, encoding="utf-8")
    options = [f"asyncio_mode={mode}", "asyncio_default_fixture_loop_scope=function"]
    chosen = [word for option in options for word in ("-o", option)]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-W",
            "error",
            "-ra",
            "--tb=line",
            "--rootdir",
            ".",
            *chosen,
            *(f"test_mine.py::{test}" for test in tests),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def example(title: str) -> str:
    """The class in the README's example of this title."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.partition(f"## {title}\n")[2].partition("```python\n")[2].partition("```")[0]
    return re.split(r"^(?:store|async with)\b", block, maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_examples_of_the_readme_conform(tmp_path: Path, mode: str) -> None:
    source = f"""
{example("A provider of your own")}

class TestParrot(ProviderConformance):
    def make_provider(self):
        return ParrotProvider()

{example("A store of your own")}

class TestDict(SessionStoreConformance):
    def make_store(self):
        return DictStore()
"""
    ran = run(tmp_path, source, mode=mode)
    assert ran.returncode == 0, ran.stdout
    assert "this provider cannot call tools" in ran.stdout, "what was not tested is said"
    assert "this store has no append" in ran.stdout


def test_what_lacks_a_method_is_told_which(tmp_path: Path) -> None:
    source = """
class Empty:
    pass

class TestProvider(ProviderConformance):
    def make_provider(self):
        return Empty()

class TestAdapter(AdapterConformance):
    def make_provider(self, base_url):
        return Empty()

class TestStore(SessionStoreConformance):
    def make_store(self):
        return Empty()

class TestTransport(TransportConformance):
    def make_transport(self):
        return Empty()
"""
    ran = run(tmp_path, source)
    assert ran.returncode == 1
    assert "Empty has no complete()" in ran.stdout
    assert "say how its server writes: wire = OpenAIChatWire()" in ran.stdout
    assert "Empty lacks one of load(), save(), delete() and exists()" in ran.stdout
    assert "Empty lacks one of request(), stream() and aclose()" in ran.stdout


def test_what_breaks_a_promise_fails_the_test_that_names_it(tmp_path: Path) -> None:
    source = """
from aether.extensions.llm.fake import FakeProvider
from aether.llm.contracts import StreamChunk
from aether.memory import InMemorySessionStore

class CutStream(FakeProvider):
    async def stream(self, request):
        yield StreamChunk(text="hel")

class TestProvider(ProviderConformance):
    def make_provider(self):
        return CutStream()

class NoComparison(InMemorySessionStore):
    async def append(self, session_id, messages, *, expected_length):
        await self.save(session_id, [*await self.load(session_id), *messages])

class TestStore(SessionStoreConformance):
    def make_store(self):
        return NoComparison()
"""
    ran = run(tmp_path, source)
    failed = set(re.findall(r"^FAILED .*::(test_\w+)", ran.stdout, re.MULTILINE))
    assert failed == {
        "test_the_stream_ends_with_its_one_final_chunk",
        "test_only_the_final_chunk_has_counts_calls_and_the_response",
        "test_the_deltas_join_to_the_text",
        "test_several_calls_at_once_do_not_mix",
        "test_cache_points_are_no_error",
        "test_an_answer_to_a_schema_is_text",
        "test_appending_to_another_length_changes_nothing",
        "test_a_refused_append_makes_no_session",
        "test_of_many_appends_to_one_length_one_succeeds",
    }


def test_the_adapters_of_the_guide_conform(tmp_path: Path) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    adapter = Path(acme_adapter.__file__).read_text(encoding="utf-8")
    source = f"""
{adapter.partition("from __future__ import annotations")[2]}

{"".join(blocks)}

class TestAcme(AdapterConformance):
    wire = AcmeWire()
    lacks = frozenset({{"parallel_tool_calls"}})

    def make_provider(self, base_url):
        return AcmeProvider(self.api_key, base_url=base_url)
"""
    ran = run(tmp_path, source, mode="strict")
    assert ran.returncode == 0, ran.stdout
    assert "AcmeWire cannot say: cut_arguments" in ran.stdout, "what was not tested is said"


def test_each_fault_of_an_adapter_fails_the_test_that_names_it(tmp_path: Path) -> None:
    expected = {f"{suite.__name__}::{test}" for suite, test in broken_adapters.FAULTS}
    source = "from tests.testing.broken_adapters import *"
    ran = run(tmp_path, source, *sorted(expected))
    found = set(re.findall(r"^FAILED \S+?::(Test\w+::test_\w+)", ran.stdout, re.MULTILINE))
    assert expected - found == set(), ran.stdout
    slips = re.findall(r"^E .*\b(?:Type|Name|Attribute|Index)Error\b.*", ran.stdout, re.MULTILINE)
    assert slips == [], "a broken adapter fails for another reason"


def test_the_fixtures_are_there_without_being_asked_for(tmp_path: Path) -> None:
    source = """
from aether import Aether, register_tool
from aether.tools import list_tools

async def test_a_fake(fake_provider):
    async with Aether(fake_provider) as client:
        assert await client.ask("hi") == "hello"
    assert len(fake_provider.requests) == 1

def test_a_registration(aether_registry):
    @register_tool
    def passing() -> None:
        "Passes."
    assert aether_registry.get("tool", "passing")

def test_it_is_forgotten():
    assert "passing" not in [tool.name for tool in list_tools()]
"""
    ran = run(tmp_path, source)
    assert ran.returncode == 0, ran.stdout


def test_one_failure_leaves_nothing_running(tmp_path: Path) -> None:
    source = """
class Broken:
    async def complete(self, request):
        raise ValueError("broken")

class TestProvider(ProviderConformance):
    def make_provider(self):
        return Broken()
"""
    ran = run(tmp_path, source)
    assert ran.returncode == 1
    assert "never retrieved" not in ran.stdout + ran.stderr
