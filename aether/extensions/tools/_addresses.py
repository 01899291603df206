"""The guard on addresses: which IP addresses are part of the public internet.

It must not know URLs, names or HTTP: it judges what a name was resolved to.

The tables are Aether's own, because `ipaddress.is_global` answers differently from one patch
release of Python to the next. They follow the IANA registries of special-purpose addresses:
iana.org/assignments/iana-ipv4-special-registry and .../iana-ipv6-special-registry.

What no table can tell: a translator (NAT64, RFC 6052) whose operator chose a prefix out of the
public space leads wherever that operator lets it. Only the addresses where clouds keep their
credentials are looked for wherever a translator may read one.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aether.errors import ToolError

__all__ = ["WEB_PORTS", "check_public_address"]

WEB_PORTS = frozenset({80, 443})

_IPV4 = {
    IPv4Network(network): what
    for network, what in {
        "0.0.0.0/8": "'this network' (RFC 791)",
        "10.0.0.0/8": "private (RFC 1918)",
        "100.64.0.0/10": "shared by a carrier's customers (RFC 6598)",
        "127.0.0.0/8": "loopback (RFC 1122)",
        "169.254.0.0/16": "link-local, where clouds keep their metadata (RFC 3927)",
        "172.16.0.0/12": "private (RFC 1918)",
        "192.0.0.0/24": "for protocol assignments (RFC 6890)",
        "192.0.2.0/24": "for documentation (RFC 5737)",
        "192.88.99.0/24": "a relay to 6to4 (RFC 7526)",
        "192.168.0.0/16": "private (RFC 1918)",
        "198.18.0.0/15": "for benchmarks (RFC 2544)",
        "198.51.100.0/24": "for documentation (RFC 5737)",
        "203.0.113.0/24": "for documentation (RFC 5737)",
        "224.0.0.0/4": "multicast (RFC 5771)",
        "240.0.0.0/4": "reserved or broadcast (RFC 1112, RFC 919)",
        # Looks public, but inside Azure it is the host itself: learn.microsoft.com, "What is IP
        # address 168.63.129.16?".
        "168.63.129.16/32": "a cloud's platform endpoint",
    }.items()
}

# Everything else in IPv6 is loopback, private, link-local, multicast, reserved, or carries an
# IPv4 address (mapped, compatible, SIIT, NAT64): iana.org/assignments/ipv6-address-space.
_IPV6_UNICAST = IPv6Network("2000::/3")

_IPV6 = {
    IPv6Network(network): what
    for network, what in {
        "2001::/23": "for protocol assignments, Teredo among them (RFC 2928, RFC 4380)",
        "2001:db8::/32": "for documentation (RFC 3849)",
        "2002::/16": "6to4, an IPv4 address inside (RFC 3056)",
        "3fff::/20": "for documentation (RFC 9637)",
    }.items()
}

_METADATA = frozenset(
    IPv4Address(address)
    for address in (
        "169.254.169.254",  # most clouds
        "169.254.170.2",  # containers at Amazon
        "169.254.170.23",  # Kubernetes at Amazon
        "169.254.0.23",  # Tencent
        "169.254.42.42",  # Scaleway
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
    )
)

_EMBEDDED_AFTER = (2, 4, 5, 6, 7, 8, 11)
"""After how many bytes an IPv4 address may stand inside an IPv6 one, the byte at 8 left out, as it
is never a part of it: RFC 3056, section 2, and RFC 6052, section 2.2."""

_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""The first half of an interface identifier that carries an IPv4 address (RFC 5214)."""


def check_public_address(address: str, port: int) -> None:
    """Raise `ToolError` unless `address` is a public unicast address and `port` a web port.

    `address` is an IPv4 or IPv6 address as the resolver gives it, not a name. The message tells
    the kind of address but not the address itself, which may come from an internal resolver.
    """
    if port not in WEB_PORTS:
        raise ToolError(f"Port {port} is refused: only 80 and 443 are open to http_get.")
    try:
        ip = ip_address(address)
    except ValueError:
        raise ToolError("What should be an IP address is none, so it is refused.") from None
    reason = _not_public_v4(ip) if isinstance(ip, IPv4Address) else _not_public_v6(ip)
    if reason is not None:
        raise ToolError(f"The address is refused, as it is not public: it is {reason}.")


def _not_public_v4(ip: IPv4Address) -> str | None:
    return next((what for network, what in _IPV4.items() if ip in network), None)


def _not_public_v6(ip: IPv6Address) -> str | None:
    if ip.scope_id is not None:
        return "tied to one network interface"
    if ip not in _IPV6_UNICAST:
        return "outside IPv6's public space, 2000::/3 (RFC 4291)"
    if int(ip) >> 32 & 0xFFFF_FFFF in _ISATAP:
        return "ISATAP, an IPv4 address inside (RFC 5214)"
    if not _METADATA.isdisjoint(_embedded(ip)):
        return "a cloud's metadata address, translated (RFC 6052)"
    return next((what for network, what in _IPV6.items() if ip in network), None)


def _embedded(ip: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that a translator may take it for."""
    packed = ip.packed[:8] + ip.packed[9:]
    for start in _EMBEDDED_AFTER:
        yield IPv4Address(packed[start : start + 4])
