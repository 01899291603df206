"""Tools: what a model may call. Each name is imported when it is first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "NextHandler": "contracts",
    "Provenance": "contracts",
    "Tool": "contracts",
    "ToolInvocation": "contracts",
    "ToolMiddleware": "contracts",
    "ToolResult": "contracts",
    "build_tool": "schema",
    "dispatch_tool": "dispatch",
    "get_tool": "registry",
    "list_tools": "registry",
    "register_tool": "registry",
    "resolve_tools": "registry",
}


if not TYPE_CHECKING:  # for checkers, any name would be one of the module's

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
