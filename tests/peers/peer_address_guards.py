"""What the guards of others refuse, the guard of `http_get` refuses too.

They are ssrfguard's policy and pydantic-ai's check of downloads. Each judges the corpus of the
project's own tests, and addresses made for it. Nothing is sent: it is told where names lead.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether.errors import ToolError
from aether.extensions.tools._addresses import check_public_address
from aether.extensions.tools._urls import parse_web_url
from tests.extension_tools.address_corpus import ATTACKS, PUBLIC, Attack, url_of

# Without their types: only this environment has them.
ssrfguard: Any = importlib.import_module("ssrfguard")
pydantic_ai: Any = importlib.import_module("pydantic_ai._ssrf")

POLICY = ssrfguard.Policy()
Guard = Callable[[str, str], bool]


def aether_refuses(url: str, reaches: str) -> bool:
    try:
        parsed = parse_web_url(url)
        check_public_address(parsed.host if parsed.is_address else reaches, parsed.port)
    except ToolError:
        return True
    return False


def ssrfguard_refuses(url: str, reaches: str) -> bool:
    try:
        target = POLICY.check_url(url)
        POLICY.check_address(target.address or reaches)
    except ssrfguard.SSRFGuardError:
        return True
    return False


def pydantic_ai_refuses(url: str, reaches: str) -> bool:
    async def judge() -> None:
        await pydantic_ai.validate_and_resolve_url(url, allow_local=False)

    async def resolve(name: str) -> list[str]:
        return [reaches]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydantic_ai, "resolve_hostname", resolve)
        try:
            asyncio.run(judge())
        except ValueError:  # its word for what is refused
            return True
    return False


@pytest.mark.parametrize("guard", [ssrfguard_refuses, pydantic_ai_refuses])
@pytest.mark.parametrize("way", ["url", "by_name"])
def test_of_the_corpus_others_refuse_nothing_that_aether_lets_through(
    guard: Guard, way: str
) -> None:
    def passes(attack: Attack) -> bool:
        url = getattr(attack, way)
        return guard(url, attack.reaches) and not aether_refuses(url, attack.reaches)

    assert [attack for attack in ATTACKS if passes(attack)] == []


@pytest.mark.parametrize("address", PUBLIC)
def test_none_of_the_three_refuses_a_public_address(address: str) -> None:
    url = url_of(address)
    for guard in (aether_refuses, ssrfguard_refuses, pydantic_ai_refuses):
        assert not guard(url, address)


NETWORKS = [block.network for block in ssrfguard.DEFAULT_DENIED.blocks]
NETWORKS += pydantic_ai._PRIVATE_NETWORKS
METADATA = [*pydantic_ai._CLOUD_METADATA_IPV4, *pydantic_ai._CLOUD_METADATA_IPV6]
PREFIXES = [ipaddress.ip_network(n) for n in ("2000::/3", "2600::/12", "2a00:1450::/32", "::/0")]


def inside(network: Any) -> st.SearchStrategy[Any]:
    return st.integers(0, network.num_addresses - 1).map(lambda offset: network[offset])


@st.composite
def translated(draw: st.DrawFn) -> ipaddress.IPv6Address:
    """An address with a special IPv4 address at one of the places where a translator looks."""
    special = st.one_of(
        st.sampled_from([each for each in METADATA if each.version == 4]),
        st.sampled_from([each for each in NETWORKS if each.version == 4]).flatmap(inside),
    )
    packed = bytearray(draw(inside(draw(st.sampled_from(PREFIXES)))).packed)
    places = draw(st.sampled_from(pydantic_ai._ALL_EMBEDDED_OFFSETS))
    for place, value in zip(places, draw(special).packed, strict=True):
        packed[place] = value
    return ipaddress.IPv6Address(bytes(packed))


@given(
    st.one_of(
        st.ip_addresses(),
        st.sampled_from(METADATA),
        st.sampled_from(NETWORKS).flatmap(inside),
        translated(),
    )
)
@settings(max_examples=3000, deadline=None)
def test_of_any_addresses_others_refuse_none_that_aether_lets_through(address: Any) -> None:
    refused = not POLICY.permits_address(address)
    refused |= pydantic_ai.is_private_ip(str(address))
    refused |= pydantic_ai.is_cloud_metadata_ip(str(address))
    assert aether_refuses(url_of(str(address)), str(address)) or not refused


def test_their_tables_are_what_these_tests_take_them_for() -> None:
    assert len(NETWORKS) > 60
    assert len(METADATA) >= 12
    assert ssrfguard_refuses("http://127.0.0.1/", "")
    assert pydantic_ai_refuses("http://x.example/", "10.0.0.1")
