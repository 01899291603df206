# ruff: noqa: RUF001 - tables of words, some with look-alike characters on purpose
from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import ToolError
from aether.extensions.tools._addresses import check_public_address
from tests.extension_tools.address_corpus import (
    NOT_PUBLIC,
    PUBLIC,
    TRANSLATED_METADATA,
    V4_IN_V6,
)

PRIVATE = ipaddress.IPv4Network("10.0.0.0/8")

# First and last address of every special range, and the neighbours that are public.
EDGES = {
    "0.0.0.0/8": (None, "1.0.0.0"),
    "10.0.0.0/8": ("9.255.255.255", "11.0.0.0"),
    "100.64.0.0/10": ("100.63.255.255", "100.128.0.0"),
    "127.0.0.0/8": ("126.255.255.255", "128.0.0.0"),
    "169.254.0.0/16": ("169.253.255.255", "169.255.0.0"),
    "172.16.0.0/12": ("172.15.255.255", "172.32.0.0"),
    "192.0.0.0/24": ("191.255.255.255", "192.0.1.0"),
    "192.0.2.0/24": ("192.0.1.255", "192.0.3.0"),
    "192.88.99.0/24": ("192.88.98.255", "192.88.100.0"),
    "192.168.0.0/16": ("192.167.255.255", "192.169.0.0"),
    "198.18.0.0/15": ("198.17.255.255", "198.20.0.0"),
    "198.51.100.0/24": ("198.51.99.255", "198.51.101.0"),
    "203.0.113.0/24": ("203.0.112.255", "203.0.114.0"),
    "224.0.0.0/4": ("223.255.255.255", None),
    "240.0.0.0/4": (None, None),
    "168.63.129.16/32": ("168.63.129.15", "168.63.129.17"),
    "2001::/23": (None, "2001:200::"),
    "2001:db8::/32": ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"),
    "2002::/16": ("2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"),
    "3fff::/20": ("3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"),
    "::/3": (None, "2000::"),
    "4000::/2": ("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "8000::/1": (None, None),
}

NO_ADDRESS = [
    "",
    " ",
    "localhost",
    "example.com",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "127.0.0.01",
    "127.0.0.1.",
    "127.0.0.1\0",
    " 8.8.8.8",
    "8.8.8.8\n",
    "8.8.8.8/32",
    "٨.٨.٨.٨",
    "８.８.８.８",
    "①.①.①.①",
    "8。8。8。8",
    "[::1]",
    ":::",
    "fe80::1%",
    "/tmp/socket",
]


@pytest.mark.row("X1")
@pytest.mark.parametrize("network", EDGES)
def test_a_special_range_ends_where_the_registry_says(network: str) -> None:
    block = ipaddress.ip_network(network)
    for address in (block[0], block[-1]):
        with pytest.raises(ToolError):
            check_public_address(str(address), 443)
    for neighbour in EDGES[network]:
        if neighbour is not None:
            check_public_address(neighbour, 443)


@pytest.mark.row("X1", "X2")
@pytest.mark.parametrize("address", NOT_PUBLIC + V4_IN_V6 + TRANSLATED_METADATA)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(ToolError, match="not public"):
        check_public_address(address, 443)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_let_through(address: str) -> None:
    check_public_address(address, 80)
    check_public_address(address, 443)


def test_there_are_a_hundred_public_addresses_to_let_through() -> None:
    assert len(set(PUBLIC)) >= 100


@pytest.mark.parametrize("address", ["fe80::1%eth0", "2606:4700::1111%1", "2606:4700::1111%eth0"])
def test_an_address_with_a_zone_is_refused(address: str) -> None:
    with pytest.raises(ToolError):
        check_public_address(address, 443)


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ToolError, match="should be an IP address is none"):
        check_public_address(text, 443)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("169.254.169.254", "link-local, where clouds keep their metadata (RFC 3927)"),
        ("2606:4700::1111%eth0", "tied to one network interface"),
        ("fd00::1", "outside IPv6's public space, 2000::/3 (RFC 4291)"),
        ("2a00:1450::5efe:808:808", "ISATAP, an IPv4 address inside (RFC 5214)"),
        ("2a00:1450::a9fe:a9fe", "a cloud's metadata address, translated (RFC 6052)"),
        ("2002:808:808::", "6to4, an IPv4 address inside (RFC 3056)"),
    ],
)
def test_the_reason_is_told(address: str, reason: str) -> None:
    with pytest.raises(ToolError) as caught:
        check_public_address(address, 443)
    assert str(caught.value) == f"The address is refused, as it is not public: it is {reason}."


@pytest.mark.row("X7")
@pytest.mark.parametrize("port", [-1, 0, 22, 25, 79, 81, 442, 444, 2375, 6379, 8080, 65535])
def test_other_ports_are_refused(port: int) -> None:
    with pytest.raises(ToolError, match=f"Port {port}"):
        check_public_address("8.8.8.8", port)


def test_the_message_does_not_give_an_internal_address_away() -> None:
    with pytest.raises(ToolError) as caught:
        check_public_address("10.20.30.40", 443)
    assert "10.20.30.40" not in str(caught.value)
    assert "private" in str(caught.value)


@pytest.mark.row("X2")
@given(st.ip_addresses(v=4), st.integers(0, 2**32 - 1))
def test_an_ipv4_address_in_a_known_wrapping_is_refused(
    inner: ipaddress.IPv4Address, rest: int
) -> None:
    value = int(inner)
    for wrapped in (
        value,  # compatible
        0xFFFF << 32 | value,  # mapped
        0xFFFF << 48 | value,  # SIIT
        0x0064_FF9B << 96 | value,  # NAT64
        0x0064_FF9B_0001 << 80 | rest << 32 | value,  # NAT64, local
        0x2002 << 112 | value << 80 | rest,  # 6to4
        0x2001_0000 << 96 | rest << 64 | value ^ 0xFFFF_FFFF,  # Teredo
        0x2A00_1450 << 96 | rest << 64 | 0x0000_5EFE << 32 | value,  # ISATAP
        0x2A00_1450 << 96 | rest << 64 | 0x0200_5EFE << 32 | value,
    ):
        with pytest.raises(ToolError):
            check_public_address(str(ipaddress.IPv6Address(wrapped)), 443)


@given(st.integers(0, 2**24 - 1))
def test_no_address_of_a_private_network_is_let_through(offset: int) -> None:
    with pytest.raises(ToolError):
        check_public_address(str(PRIVATE[offset]), 443)


@given(st.ip_addresses())
def test_nothing_is_let_through_that_the_standard_library_knows_as_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    try:
        check_public_address(str(address), 443)
    except ToolError:
        return
    assert address.is_global
    assert not address.is_multicast


@given(st.text(max_size=60))
def test_any_text_is_judged_without_another_error(text: str) -> None:
    try:
        check_public_address(text, 443)
    except ToolError:
        return
    ipaddress.ip_address(text)
