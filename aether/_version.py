"""The version of this package, its one place. It must not know anything else."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
