"""The script that a newcomer runs first, as a newcomer runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def try_it(**settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "try_it.py"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_settings_it_runs_a_real_model() -> None:
    ended = try_it()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "tool:  add({'a': " in ended.stdout
    assert "Local" in ended.stdout
    assert "output tokens" in ended.stdout
    assert "OPENAI_API_KEY" in ended.stdout.splitlines()[-1]


def test_it_runs_without_any_model() -> None:
    ended = try_it(LLM_PROVIDER="fake")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "The model did not call the tool." in ended.stdout


def test_missing_key_is_one_clear_line() -> None:
    ended = try_it(LLM_PROVIDER="openai")
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert "OPENAI_API_KEY" in line
    assert "LLM_PROVIDER=local" in line
