# ruff: noqa: RUF001, SIM905 - tables of words, some with look-alike characters on purpose
from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import ToolError
from aether.extensions.tools._addresses import check_public_address

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

NOT_PUBLIC = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1
    127.0.0.53 127.1.2.3 127.255.255.254 169.254.0.1 169.254.169.253 169.254.169.254
    169.254.170.2 169.254.42.42 169.254.0.23 172.16.0.1 172.17.0.1 172.31.255.255 192.0.0.1
    192.0.0.8 192.0.0.9 192.0.0.10 192.0.0.170 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1
    192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 224.0.0.251
    239.255.255.250 240.0.0.1 255.255.255.254 255.255.255.255 168.63.129.16 :: ::1 ::2 100::1
    100:0:0:1::1 fc00::1 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:42::42 fe80::1
    fe80::a9fe:a9fe febf::1 fec0::1 feff::1 ff02::1 ff0e::1 5f00::1 4000::1 8000::1 2001::1
    2001:1::1 2001:2::1 2001:3::1 2001:10::1 2001:20::1 2001:30::1 2001:1ff::1 2001:db8::1
    3fff::1 3fff:fff::1
""".split()

V4_IN_V6 = """
    ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:8.8.8.8
    ::127.0.0.1 ::7f00:1 ::169.254.169.254 ::8.8.8.8 ::ffff:0:127.0.0.1 ::ffff:0:a9fe:a9fe
    ::ffff:0:8.8.8.8 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::8.8.8.8 64:ff9b:1::7f00:1
    64:ff9b:1::a9fe:a9fe 64:ff9b:1:ffff::1 2002:7f00:1:: 2002:a9fe:a9fe:: 2002:a00:1::1
    2002:808:808::1 2001:0:a9fe:a9fe::1 2001:0:4136:e378:8000:63bf:3fff:fdd2
    2001:0:808:808:0:0:80ff:fffe 2606:4700::5efe:7f00:1 2606:4700::200:5efe:a9fe:a9fe
    2a00:1450::5efe:808:808 2a00:1450:0:1:200:5efe:10.0.0.1
""".split()

PUBLIC = """
    1.0.0.1 1.1.1.1 4.4.4.4 8.8.4.4 8.8.8.8 9.9.9.9 11.0.0.1 13.107.21.200 17.253.144.10
    20.112.52.29 23.185.0.2 31.13.72.36 34.107.221.82 35.190.247.13 40.89.244.232 45.60.0.1
    50.19.0.1 52.84.0.1 54.239.28.85 63.35.0.1 64.233.160.5 66.102.0.1 69.147.92.11 72.163.4.185
    74.6.231.20 77.88.55.88 80.67.169.12 81.2.69.142 84.200.69.80 87.238.33.1 91.198.174.192
    93.184.216.34 94.140.14.14 95.101.0.1 96.7.128.175 98.137.11.163 99.84.0.1 100.0.0.1
    100.63.0.1 100.128.0.1 101.101.101.101 103.102.166.224 104.16.132.229 106.10.248.150
    108.138.0.1 110.242.68.66 111.63.0.1 114.114.114.114 119.29.29.29 123.125.114.144
    125.209.222.141 126.255.255.255 128.0.0.1 129.132.19.216 130.89.148.77 131.107.255.255
    133.11.0.1 137.138.0.1 139.130.4.5 140.82.121.4 141.101.120.10 142.250.185.78 143.204.0.1
    144.76.0.1 145.97.20.20 146.75.0.1 147.75.0.1 149.112.112.112 150.171.28.10 151.101.1.140
    152.199.0.1 154.53.224.1 156.154.70.1 157.240.0.35 159.69.0.1 161.97.0.1 162.159.0.1
    163.172.0.1 164.92.0.1 165.22.0.1 167.172.0.1 168.63.129.17 169.253.255.255 170.114.0.1
    172.15.0.1 172.32.0.1 172.217.16.142 173.194.0.1 176.103.130.130 178.128.0.1 180.76.76.76
    185.15.59.224 185.199.108.153 188.114.96.1 190.93.240.1 192.0.1.1 192.31.196.1 192.52.193.1
    192.175.48.1 193.0.6.139 194.150.168.168 195.46.39.39 198.41.0.4 199.7.83.42 203.0.112.1
    208.67.222.222 216.58.214.14 223.255.255.254 2001:200::1 2001:500:88:200::8
    2001:4860:4860::8888 2003::1 2400:cb00:2048:1::c629:d7a2 2404:6800:4003::200e
    2600:1901:0:38d7:: 2606:2800:220:1:248:1893:25c8:1946 2606:4700:4700::1111
    2607:f8b0:4004::200e 2620:0:2d0:200::7 2620:4f:8000::1 2620:fe::fe 2800:3f0:4001::200e
    2a00:1450:4001:82a::200e 2a01:4f8::1 2a02:2e0:3fe:1001:7777:772e:2:85 2a04:4e42::223 2a09::1
    2c0f:fb50::1
""".split()

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


@pytest.mark.parametrize("network", EDGES)
def test_a_special_range_ends_where_the_registry_says(network: str) -> None:
    block = ipaddress.ip_network(network)
    for address in (block[0], block[-1]):
        with pytest.raises(ToolError):
            check_public_address(str(address), 443)
    for neighbour in EDGES[network]:
        if neighbour is not None:
            check_public_address(neighbour, 443)


@pytest.mark.parametrize("address", NOT_PUBLIC + V4_IN_V6)
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
    with pytest.raises(ToolError):
        check_public_address(text, 443)


@pytest.mark.parametrize("port", [-1, 0, 22, 25, 79, 81, 442, 444, 2375, 6379, 8080, 65535])
def test_other_ports_are_refused(port: int) -> None:
    with pytest.raises(ToolError, match=f"Port {port}"):
        check_public_address("8.8.8.8", port)


def test_the_message_does_not_give_an_internal_address_away() -> None:
    with pytest.raises(ToolError) as caught:
        check_public_address("10.20.30.40", 443)
    assert "10.20.30.40" not in str(caught.value)
    assert "private" in str(caught.value)


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
