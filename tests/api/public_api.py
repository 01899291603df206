"""The public names and signatures, written down in public_api.txt.

Run it to compare the file with the code; `--write` writes the file. The comparison is part of
`make check` and of the tests, so that no change of the public API goes unseen.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Any

from pydantic import BaseModel

FILE = Path(__file__).with_name("public_api.txt")

MODULES = (
    "aether",
    "aether.agent",
    "aether.client",
    "aether.config",
    "aether.errors",
    "aether.events",
    "aether.extensions.http.aiohttp",
    "aether.extensions.http.httpx",
    "aether.extensions.llm",
    "aether.extensions.llm.anthropic",
    "aether.extensions.llm.builder",
    "aether.extensions.llm.circuit_breaker",
    "aether.extensions.llm.cost_tracking",
    "aether.extensions.llm.factory",
    "aether.extensions.llm.fake",
    "aether.extensions.llm.gemini",
    "aether.extensions.llm.local",
    "aether.extensions.llm.openai",
    "aether.extensions.llm.openai_compatible",
    "aether.extensions.llm.registry",
    "aether.extensions.llm.retrying",
    "aether.extensions.memory",
    "aether.extensions.prices.genai",
    "aether.extensions.tools",
    "aether.http.contracts",
    "aether.llm",
    "aether.llm.contracts",
    "aether.llm.pricing",
    "aether.llm.streaming",
    "aether.llm.wrapper",
    "aether.memory",
    "aether.memory.contracts",
    "aether.memory.session",
    "aether.registry",
    "aether.sync",
    "aether.testing",
    "aether.testing.chaos",
    "aether.testing.faults",
    "aether.testing.providers",
    "aether.testing.transports",
    "aether.testing.wires",
    "aether.tools",
    "aether.tools.contracts",
)


class Shown:
    """A text in a signature as it is, without the quotes that the text of an annotation gets."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def default(value: Any) -> Shown:
    """A default as it is to be read: without an address, and the same on every Python."""
    if callable(value):
        return Shown(".".join(filter(None, (value.__module__, value.__qualname__))))
    text = repr(value)
    return Shown("..." if " at 0x" in text else text)


def shown(parameter: inspect.Parameter) -> inspect.Parameter:
    if parameter.default is not parameter.empty:
        parameter = parameter.replace(default=default(parameter.default))
    if isinstance(parameter.annotation, str):
        parameter = parameter.replace(annotation=Shown(parameter.annotation))
    return parameter


def signature(function: Any) -> str:
    found = inspect.signature(function)
    found = found.replace(parameters=[shown(each) for each in found.parameters.values()])
    if isinstance(found.return_annotation, str):
        found = found.replace(return_annotation=Shown(found.return_annotation))
    return str(found)


def describe_class(cls: type, name: str) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    yield f"class {name}({bases})" if bases else f"class {name}"
    if issubclass(cls, BaseModel):
        for field, info in cls.model_fields.items():
            annotation = next(
                base.__annotations__[field]
                for base in cls.__mro__
                if field in vars(base).get("__annotations__", {})
            )
            if info.is_required():
                yield f"    {field}: {annotation}"
            elif info.default_factory is not None:
                yield f"    {field}: {annotation} = <factory>"
            else:
                yield f"    {field}: {annotation} = {default(info.default)!r}"
    for member in sorted(members(cls)):
        value = inspect.getattr_static(cls, member)
        match value:
            case property():
                yield f"    {member}: property{returned(value.fget)}"
            case functools.cached_property():
                yield f"    {member}: property{returned(value.func)}"
            case staticmethod() | classmethod():
                yield f"    {kind(value)}def {member}{signature(value.__func__)}"
            case _ if inspect.isfunction(value):
                yield f"    {kind(value)}def {member}{signature(value)}"


SPECIAL = {
    "__init__",
    "__call__",
    "__enter__",
    "__iter__",
    "__next__",
    "__aenter__",
    "__aiter__",
    "__anext__",
    "__add__",
}


def members(cls: type) -> set[str]:
    """Public methods and properties, of the class and of the bases that Aether keeps private."""
    names: set[str] = set()
    for base in cls.__mro__:
        if base is cls or (base.__module__.startswith("aether") and base.__name__.startswith("_")):
            names.update(vars(base))
    # What a conformance suite tests is not called by its user.
    names = {name for name in names if not name.startswith("test_")}
    names.discard("model_post_init")  # pydantic's hook, not the user's
    if getattr(cls, "_is_protocol", False):
        names.discard("__init__")  # typing puts one into every Protocol
    return {name for name in names if not name.startswith("_") or name in SPECIAL}


def returned(function: Any) -> str:
    annotation = function.__annotations__.get("return")
    return f" -> {annotation}" if annotation else ""


def kind(value: Any) -> str:
    prefix = ""
    if isinstance(value, staticmethod | classmethod):
        prefix = f"@{type(value).__name__} "
        value = value.__func__
    return f"{prefix}async " if inspect.iscoroutinefunction(value) else prefix


def describe(value: Any, name: str) -> Iterator[str]:
    if inspect.isclass(value):
        yield from describe_class(value, name)
    elif inspect.isfunction(value):
        yield f"{kind(value)}def {name}{signature(value)}"
    elif isinstance(value, str | int | float | None):
        yield f"{name} = {value!r}"
    elif type(value).__module__ == "typing" or isinstance(value, GenericAlias):
        yield f"{name}: alias of a type"
    else:
        yield f"{name}: {type(value).__name__}"


def public_names(module: ModuleType) -> list[str]:
    """`__all__`; where a package has none, what it brings in under a public name."""
    brought_in = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    ]
    return sorted(getattr(module, "__all__", brought_in))


def lines() -> Iterator[str]:
    """A block a module. A name that another public module owns is shown by where it is from."""
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        yield f"# {module_name}"
        for name in public_names(module):
            value = getattr(module, name)
            home = getattr(value, "__module__", module_name)
            if home != module_name and home in MODULES:
                yield f"{name}: {home}.{value.__qualname__}"
            else:
                yield from describe(value, name)
        yield ""


def difference() -> str:
    """What the code has and the file has not, and the other way round; empty if they agree."""
    written = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    return "\n".join(
        difflib.unified_diff(written, list(lines()), "public_api.txt", "code", lineterm="")
    )


def main() -> int:
    if "--write" in sys.argv[1:]:
        FILE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
        return 0
    found = difference()
    if found:
        print(found)
        print("\nThe public API is not what its file says. If this is meant: make api")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
