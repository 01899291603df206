"""Which transport a name or the environment stands for.

It must not import a transport before one is made.
"""

from __future__ import annotations

import aether.config as environment
from aether.http.contracts import KIND, Transport
from aether.registry import Registry, default_registry

__all__ = ["TransportMaker", "transport_maker"]


class TransportMaker:
    """Makes the transport of a name, in the event loop that it is to serve."""

    def __init__(self, name: str, registry: Registry) -> None:
        self.name = name
        self._registry = registry

    def load(self) -> None:
        """Import what the transport is made of: some tenths of a second. In any thread."""
        kind = self._registry.get(KIND, self.name)
        prepare = getattr(kind, "_prepare", None)  # ours, for what its library puts off
        if prepare is not None:
            prepare()

    def __call__(self) -> Transport:
        transport: Transport = self._registry.get(KIND, self.name)()
        return transport


def transport_maker(name: str | None = None, *, registry: Registry | None = None) -> TransportMaker:
    """What makes the transport of that name; without a name, of `AETHER_HTTP`.

    A name that nobody registered raises `UnknownNameError`; in the environment it gives way to the
    default.
    """
    registry = default_registry if registry is None else registry
    if name is None:
        name = environment.http_transport(lambda known: (KIND, known) in registry)
    elif (KIND, name) not in registry:
        registry.entry(KIND, name)  # raises, and lists the known ones
    return TransportMaker(name, registry)
