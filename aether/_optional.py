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
        missing = error.name or module
        if missing.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"{module} is not installed. Install it with: pip install '{DISTRIBUTION}[{extra}]'",
            name=module,
        ) from error
