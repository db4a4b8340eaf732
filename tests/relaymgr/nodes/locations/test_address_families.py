from relaymgr.nodes.locations.address_families import addresses_for, common_address, family_of, needed_family
from tests.relaymgr.sessions.test_address_families import V4, V6


def test_families() -> None:
    assert [family_of(text) for text in ("", "1.2.3.4", "::1", "::ffff:1.2.3.4")] == ["", "ipv4", "ipv6", "ipv4"]
    assert [needed_family(asked, V4) for asked in ("", "ipv6", "any")] == ["ipv4", "ipv6", ""]
    both = {"ipv4": V4, "ipv6": V6}
    assert common_address(both, V4, ["ipv6", "", "ipv6"]) == V6
    assert common_address(both, V4, ["ipv6", "ipv4"]) == V4
    assert common_address({"ipv4": V4}, V4, ["ipv6"]) == V4
    assert addresses_for(both, V6, "") == [V6, V4]
