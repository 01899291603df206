"""What is not used is not imported. Each test runs an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = (
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
)


def loaded_after(code: str) -> set[str]:
    """The heavy packages in `sys.modules` once `code` ran."""
    report = f"import sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\n{report}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_import_loads_no_http_library_sdk_or_prices() -> None:
    assert loaded_after("import aether") == set()


def test_an_answer_of_the_fake_provider_loads_none_of_them_either() -> None:
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
    assert loaded_after(code) == set()
