"""Tools: what a model may call."""

from __future__ import annotations

from aether.tools.contracts import (
    NextHandler,
    Provenance,
    Tool,
    ToolInvocation,
    ToolMiddleware,
    ToolResult,
)
from aether.tools.dispatch import dispatch_tool
from aether.tools.registry import get_tool, list_tools, register_tool, resolve_tools
from aether.tools.schema import build_tool

__all__ = [
    "NextHandler",
    "Provenance",
    "Tool",
    "ToolInvocation",
    "ToolMiddleware",
    "ToolResult",
    "build_tool",
    "dispatch_tool",
    "get_tool",
    "list_tools",
    "register_tool",
    "resolve_tools",
]
