"""Imports of optional dependencies. It must not know which feature asks."""

from __future__ import annotations

import importlib
from types import ModuleType

from aether.errors import MissingExtraError

__all__ = ["require"]

DISTRIBUTION = "aether-framework"


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtraError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # What is there, and misses a library of the system or a package of its own, says so.
        absent = isinstance(error, ModuleNotFoundError) and error.name == module
        problem = "is not installed" if absent else f"cannot be imported ({error})"
        raise MissingExtraError(
            f"{module} {problem}. Install it with: pip install '{DISTRIBUTION}[{extra}]'",
            name=module,
        ) from error
