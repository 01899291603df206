"""Every Python block of the README runs, as it stands, on the fake provider."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest

from aether import config

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
TITLES = [
    re.findall(r"^## (.*)$", README.read_text(encoding="utf-8").split(block)[0], re.MULTILINE)[-1]
    for block in BLOCKS
]


def test_no_block_is_overlooked() -> None:
    assert len(BLOCKS) == 16
    fences = README.read_text(encoding="utf-8").count("```")
    shell = README.read_text(encoding="utf-8").count("```sh")
    assert fences == 2 * (len(BLOCKS) + shell)


def test_every_setting_is_listed_with_its_default() -> None:
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| (.*?) \|", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    settings: dict[str, object] = {
        "LLM_PROVIDER": config.provider_name(),
        "OPENAI_API": config.openai_api(),
        "AETHER_HTTP": config.http_transport(lambda _: True),
        "AETHER_DEFAULT_TEMPERATURE": config.default_temperature(),
        "AETHER_MAX_TOOL_ITERATIONS": config.max_tool_iterations(),
        "AETHER_PARALLEL_TOOLS": int(config.parallel_tools()),
        "AETHER_MAX_DELEGATION_DEPTH": config.max_delegation_depth(),
        "AETHER_HTTP_TOOL_TIMEOUT": config.http_tool_timeout(),
        "AETHER_HTTP_TOOL_MAX_BYTES": config.http_tool_max_bytes(),
        "AETHER_FILE_TOOL_MAX_BYTES": config.file_tool_max_bytes(),
    }
    assert {name: f"`{value}`" for name, value in settings.items()}.items() <= dict(rows).items()
    read = set(re.findall(r'"((?:AETHER|LLM)_[A-Z_]+)"', inspect.getsource(config)))
    assert read <= dict(rows).keys()


@pytest.mark.parametrize("block", BLOCKS, ids=TITLES)
def test_block_runs(
    block: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    aether_registry: object,
) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "fake")
    monkeypatch.chdir(tmp_path)
    code = compile(block, str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run() -> None:
        outcome = eval(code, {"__name__": "readme"})
        if inspect.isawaitable(outcome):
            await outcome

    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(run())
    else:
        exec(code, {"__name__": "readme"})
    assert "print(" not in block or capsys.readouterr().out.strip()
