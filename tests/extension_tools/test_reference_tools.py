from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import aether.extensions.tools
from aether.llm.messages import ToolCall
from aether.registry import Registry
from aether.tools import ToolResult, dispatch_tool, get_tool, register_tool

NAMES = ["get_current_time", "http_get", "read_file"]


@pytest.fixture(autouse=True)
def registered(aether_registry: Registry) -> None:
    """The tools as the import registers them, whatever other tests did to the registry."""
    for name in NAMES:
        aether_registry.remove("tool", name)
        importlib.reload(sys.modules[getattr(aether.extensions.tools, name).__module__])


async def run(name: str, **arguments: Any) -> ToolResult:
    return await dispatch_tool(ToolCall(id="1", name=name, arguments=arguments))


def test_importing_registers_the_tools_and_no_http_library() -> None:
    code = (
        "import sys, aether.extensions.tools\n"
        "from aether.registry import default_registry\n"
        "print(*default_registry.names('tool'))\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'aiohttp', 'httpx', 'httpx2'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.splitlines() == [" ".join(NAMES), ""]


def test_importing_twice_is_fine() -> None:
    importlib.reload(aether.extensions.tools)
    for name in NAMES:
        module = sys.modules[getattr(aether.extensions.tools, name).__module__]
        importlib.reload(module)
        assert get_tool(name).handler is getattr(module, name)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_told_what_each_argument_is(name: str) -> None:
    tool = get_tool(name)
    assert tool.description
    assert tool.parameters["additionalProperties"] is False
    for parameter in tool.parameters["properties"].values():
        assert parameter["type"] == "string"
        assert len(parameter["description"]) > 20


def test_only_the_time_is_free_of_what_others_wrote() -> None:
    assert [name for name in NAMES if get_tool(name).trusted] == ["get_current_time"]


def test_the_time_limit_of_http_get_is_its_own() -> None:
    assert get_tool("http_get").timeout is None


async def test_a_call_is_answered_through_the_dispatcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("hello", encoding="utf-8")
    monkeypatch.setenv("AETHER_FILE_TOOL_ROOT", str(tmp_path))
    result = await run("read_file", path="a.txt")
    assert (result.content, result.is_error, result.untrusted) == ("hello", False, True)
    result = await run("get_current_time")
    assert (result.content[-6:], result.is_error, result.untrusted) == ("+00:00", False, False)


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("get_current_time", {"timezone": "Mars"}, "Unknown time zone"),
        ("http_get", {"url": "file:///etc/passwd"}, "begin with http"),
        ("http_get", {"url": "http://169.254.169.254/"}, "not public"),
        ("read_file", {"path": "../secret"}, "'..'"),
        ("read_file", {"path": ".env"}, "hidden"),
    ],
)
async def test_what_is_refused_is_told_to_the_model(
    name: str, arguments: dict[str, str], reason: str
) -> None:
    result = await run(name, **arguments)
    assert result.is_error
    assert result.error_type == "ToolError"
    assert reason in result.content
    assert "Traceback" not in result.content


async def test_an_own_tool_may_take_the_place_of_a_reference_tool() -> None:
    @register_tool(name="http_get", replace=True)
    def fetch(url: str) -> str:
        """Fetch from the archive."""
        return f"archived {url}"

    assert (await run("http_get", url="x")).content == "archived x"
