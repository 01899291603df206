"""The public API is what its file says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_public_api_is_the_one_that_is_written_down() -> None:
    """In an interpreter of its own: other tests register tools and providers in this one."""
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("public_api.py"))],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
