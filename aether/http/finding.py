"""Which transport a name or the environment stands for.

It must not import a transport before one is made.
"""

from __future__ import annotations

from collections.abc import Callable

import aether.config as environment
from aether.http.contracts import KIND, Transport
from aether.registry import Registry, default_registry

__all__ = ["transport_maker"]


def transport_maker(
    name: str | None = None, *, registry: Registry | None = None
) -> Callable[[], Transport]:
    """What makes the transport of that name; without a name, of `AETHER_HTTP`.

    A name that nobody registered raises `UnknownNameError`; in the environment it gives way to the
    default.
    """
    registry = default_registry if registry is None else registry
    if name is None:
        name = environment.http_transport(lambda known: (KIND, known) in registry)
    elif (KIND, name) not in registry:
        registry.entry(KIND, name)  # raises, and lists the known ones

    def make() -> Transport:
        transport: Transport = registry.get(KIND, name)()
        return transport

    return make
