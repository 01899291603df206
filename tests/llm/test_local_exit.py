"""Scripts on the embedded model end as they should, whatever they left open."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
from aether import Aether, ProviderConfig
client = Aether(config=ProviderConfig(provider="local"))
stream = iter(client.sync.stream_text("Tell a long story.", max_tokens=300))
next(stream)
{}
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [("pass", 0), ("del stream", 0), ("stream.close()", 0), ("raise SystemExit(3)", 3)],
)
def test_a_stream_left_early_does_not_stop_the_exit(ending: str, code: int) -> None:
    script = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(ending)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (script.returncode, script.stderr) == (code, b"")
