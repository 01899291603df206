"""Every Python block of the guides runs, as it stands; an indented one goes on with the last."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

GUIDES = sorted((Path(__file__).parents[2] / "docs" / "guides").glob("*.md"))
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(guide: Path) -> Iterator[str]:
    whole = ""
    for block in FENCE.findall(guide.read_text(encoding="utf-8")):
        if not block.startswith(" "):
            if whole:
                yield whole
            whole = ""
        whole += block
    yield whole


@pytest.mark.parametrize("guide", GUIDES, ids=[guide.stem for guide in GUIDES])
def test_the_blocks_of_a_guide_run_one_after_another(
    guide: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    aether_registry: object,
) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "fake")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "guide"}
    found = list(blocks(guide))
    assert found
    for block in found:
        code = compile(block, str(guide), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(eval(code, names))
        else:
            exec(code, names)
