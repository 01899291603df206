"""Every Python block of the README runs, as it stands, on the fake provider."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
TITLES = [
    re.findall(r"^## (.*)$", README.read_text(encoding="utf-8").split(block)[0], re.MULTILINE)[-1]
    for block in BLOCKS
]


def test_no_block_is_overlooked() -> None:
    assert len(BLOCKS) == 13
    fences = README.read_text(encoding="utf-8").count("```")
    shell = README.read_text(encoding="utf-8").count("```sh")
    assert fences == 2 * (len(BLOCKS) + shell)


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
