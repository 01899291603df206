"""One registry for everything that can be plugged in, by kind and name.

It must not know any kind: the ports declare their built-ins here, as strings, so that nothing is
imported before somebody asks for it by name.

A name is looked for among the registrations, then the built-ins, then the entry points of the
group `aether.<kind>`. A registration takes the place of a built-in. An installed package alone
does not: putting a package on the disk must not change who gets the key of a known provider.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, TypeVar

from aether.errors import AetherError, ConfigurationError, UnknownNameError

__all__ = ["Entry", "Registry", "declare_builtins", "default_registry", "register"]

T = TypeVar("T")

_log = logging.getLogger("aether.registry")


@dataclass(frozen=True, slots=True)
class Entry:
    """One registration. `origin` says where it was made, such as `my_package.tools:add`."""

    kind: str
    name: str
    value: Any
    origin: str
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class _Builtin:
    target: str
    metadata: Mapping[str, Any]


_builtins: dict[str, dict[str, _Builtin]] = {}


def declare_builtins(kind: str, targets: Mapping[str, str], **metadata: Mapping[str, Any]) -> None:
    """Name the implementations that ship with Aether: name to `module:attribute`.

    `metadata` is given by name. Nothing is imported. A module of Aether's own calls this beside
    its port; others use `register` or an entry point.
    """
    table = _builtins.setdefault(kind, {})
    for name, target in targets.items():
        table[name] = _Builtin(target, MappingProxyType(dict(metadata.get(name, {}))))


class Registry:
    """Registrations by kind and name. The process has one; a client can be given another."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {}
        self._lock = threading.RLock()

    def register(
        self, kind: str, name: str, *, replace: bool = False, **metadata: Any
    ) -> Callable[[T], T]:
        """A decorator that registers what it decorates and returns it unchanged."""

        def decorate(value: T) -> T:
            self.add(kind, name, value, replace=replace, **metadata)
            return value

        return decorate

    def add(
        self,
        kind: str,
        name: str,
        value: object,
        *,
        replace: bool = False,
        origin: str | None = None,
        **metadata: Any,
    ) -> Entry:
        """Register `value`.

        The same origin (module and qualified name) may register again, as it does when a module
        is reloaded or a notebook cell is run twice. Another origin raises `ConfigurationError`
        unless `replace` is true.
        """
        if not (isinstance(kind, str) and kind and isinstance(name, str) and name):
            raise ConfigurationError(
                "A registration needs a kind and a name: strings that are not empty."
            )
        origin = origin or _origin_of(value)
        entry = Entry(kind, name, value, origin, MappingProxyType(metadata))
        with self._lock:
            present = self._entries.get(kind, {}).get(name)
            if present is not None and present.origin != origin and not replace:
                raise ConfigurationError(
                    f"Two registrations for {kind} {name!r}: {present.origin} and {origin}. "
                    "Choose another name, or pass replace=True."
                )
            if present is None and name in _builtins.get(kind, {}):
                _log.info("%s %r of %s takes the place of the built-in", kind, name, origin)
            self._entries.setdefault(kind, {})[name] = entry
        return entry

    def remove(self, kind: str, name: str) -> None:
        """Forget a registration. A built-in of that name is found again."""
        with self._lock:
            self._entries.get(kind, {}).pop(name, None)

    def get(self, kind: str, name: str) -> Any:
        """The registered object. `UnknownNameError`, which lists the known names, if none."""
        return self.entry(kind, name).value

    def entry(self, kind: str, name: str) -> Entry:
        """The registration with its metadata; imports what it names, if that was not done yet."""
        present = self.registered(kind, name)
        if present is not None:
            return present
        builtin = _builtins.get(kind, {}).get(name)
        if builtin is not None:
            module, _, attribute = builtin.target.partition(":")
            value = getattr(importlib.import_module(module), attribute)
            return Entry(kind, name, value, builtin.target, builtin.metadata)
        found = self._from_entry_point(kind, name)
        if found is not None:
            return found
        raise UnknownNameError(_unknown(kind, name, self.names(kind)))

    def registered(self, kind: str, name: str) -> Entry | None:
        """What was registered by that name; built-ins and entry points left out."""
        return self._entries.get(kind, {}).get(name)

    def __contains__(self, key: object) -> bool:
        """Whether `(kind, name)` is known. Imports nothing."""
        if not (isinstance(key, tuple) and len(key) == 2):
            return False
        kind, name = key
        return (
            name in self._entries.get(kind, {})
            or name in _builtins.get(kind, {})
            or name in _entry_points(kind)
        )

    def metadata(self, kind: str, name: str) -> Mapping[str, Any]:
        """The registration's metadata; for a built-in without importing it."""
        if name not in self._entries.get(kind, {}):
            builtin = _builtins.get(kind, {}).get(name)
            if builtin is not None:
                return builtin.metadata
        return self.entry(kind, name).metadata

    def names(self, kind: str) -> list[str]:
        """All known names of a kind, sorted. Imports nothing."""
        known = set(self._entries.get(kind, {}))
        known.update(_builtins.get(kind, {}))
        known.update(_entry_points(kind))
        return sorted(known)

    def kinds(self) -> list[str]:
        """The kinds that have a registration or a built-in, sorted."""
        return sorted({kind for kind, names in self._entries.items() if names} | set(_builtins))

    def entries(self, kind: str) -> Iterator[Entry]:
        """The registrations of a kind, sorted by name; built-ins not used yet are left out."""
        with self._lock:
            present = dict(self._entries.get(kind, {}))
        for name in sorted(present):
            yield present[name]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Put the registrations back at the end, as a test wants it."""
        with self._lock:
            before = {kind: dict(entries) for kind, entries in self._entries.items()}
        try:
            yield
        finally:
            with self._lock:
                self._entries = before

    def _from_entry_point(self, kind: str, name: str) -> Entry | None:
        points = _entry_points(kind).get(name, [])
        if not points:
            return None
        origins = sorted({point.value for point in points})
        if len(origins) > 1:
            raise ConfigurationError(
                f"Two installed packages provide {kind} {name!r}: {' and '.join(origins)}. "
                "Uninstall one, or register the one you want."
            )
        try:
            value = points[0].load()
        except AetherError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"{kind} {name!r} of an installed package ({origins[0]}) cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        # The module may have registered the object itself, with metadata, while it was imported.
        for registry in (self, default_registry):
            own = registry.registered(kind, name)
            if own is not None and own.value is value:
                return self.add(kind, name, value, replace=True, origin=own.origin, **own.metadata)
        return self.add(kind, name, value, origin=origins[0])


default_registry = Registry()
"""The registry of the process."""


def register(kind: str, name: str, *, replace: bool = False, **metadata: Any) -> Callable[[T], T]:
    """Register a class or function in the registry of the process; returns it unchanged."""
    return default_registry.register(kind, name, replace=replace, **metadata)


def _entry_points(kind: str) -> Mapping[str, list[Any]]:
    # Reading them takes milliseconds: they are kept until a folder that is searched has changed.
    return _read_entry_points(kind, tuple((folder, _changed_at(folder)) for folder in sys.path))


@functools.lru_cache(maxsize=64)
def _read_entry_points(
    kind: str, _folders: tuple[tuple[str, int | None], ...]
) -> dict[str, list[Any]]:
    from importlib.metadata import entry_points

    found: dict[str, list[Any]] = {}
    for point in entry_points(group=f"aether.{kind}"):
        found.setdefault(point.name, []).append(point)
    return found


def _changed_at(folder: str) -> int | None:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return None


def _origin_of(value: object) -> str:
    while isinstance(value, functools.partial):
        value = value.func
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return f"{getattr(value, '__module__', '?')}:{name}"
    return f"{_registering_module()}:{type(value).__qualname__}"  # an object has no home of its own


def _registering_module() -> str:
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - documented, and without a substitute
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return "?" if frame is None else str(frame.f_globals.get("__name__"))


def _unknown(kind: str, name: str, known: list[str]) -> str:
    import difflib

    label = kind.replace("_", " ")
    message = f"Unknown {label} {name[:80]!r}."
    close = difflib.get_close_matches(name[:64], known, n=3)
    if close:
        message += f" Did you mean {' or '.join(repr(match) for match in close)}?"
    return f"{message} Known: {', '.join(known) if known else 'none'}."
