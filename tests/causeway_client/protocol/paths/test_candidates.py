"""Which addresses a player offers, and to which of a peer's it may send probes (PROTOCOL.md 12.2 and 12.4)."""

import ipaddress
import random

import pytest

from causeway_client.protocol.paths.candidates import Target, is_local, offered, reachable_first, targets
from causeway_client.protocol.paths.rendezvous import MAX_CANDIDATES, Candidate, CandidateKind
from causeway_client.protocol.paths.reports import PathKind

HOST, REFLEXIVE, MAPPED = CandidateKind.HOST, CandidateKind.SERVER_REFLEXIVE, CandidateKind.PORT_MAPPED
THEIRS, THEIRS_6 = ("203.0.113.9", 40_001), ("2001:db8:1:2::7", 40_002)
OWN, OWN_6 = ("198.51.100.7", 50_001), ("2001:db8:9:9::5", 50_002)
THIRD_PARTY, THIRD_PARTY_6 = "192.0.2.66", "2001:db8:66:66::6"


def probed(
    *candidates: Candidate, observed: list[tuple[str, int]], own: list[tuple[str, int]]
) -> list[tuple[str, int]]:
    return [(target.ip, target.port) for target in targets(candidates, observed, own)]


# -- what is offered


def test_hosts_and_mapped_addresses_are_offered_once() -> None:
    hosts = [("192.168.1.5", 5000), ("2001:db8::5", 5000), ("192.168.1.5", 5000)]
    mapped = [("203.0.113.9", 6000), ("2001:db8::5", 5000)]
    assert offered(hosts, mapped) == (
        Candidate(HOST, "192.168.1.5", 5000),
        Candidate(HOST, "2001:db8::5", 5000),
        Candidate(MAPPED, "203.0.113.9", 6000),
    )


@pytest.mark.parametrize(
    "place",
    [("127.0.0.1", 5), ("::1", 5), ("0.0.0.0", 5), ("::", 5), ("224.0.0.1", 5), ("ff02::1", 5), ("192.0.2.1", 0)],
)
def test_what_no_other_player_could_use_is_not_offered(place: tuple[str, int]) -> None:
    assert offered([place], []) == ()


def test_at_most_twelve_are_offered() -> None:
    hosts = [(f"10.0.0.{number}", 5000) for number in range(1, 40)]
    assert len(offered(hosts, [])) == MAX_CANDIDATES


# -- what is probed: the four rules of 12.4


def test_an_observed_address_is_probed_at_its_port() -> None:
    found = targets([], [THEIRS, THEIRS_6], [OWN])
    assert found == (Target(*THEIRS_6, PathKind.IPV6), Target(*THEIRS, PathKind.IPV4))


def test_a_mapped_port_is_probed_at_an_observed_address_only() -> None:
    candidates = Candidate(MAPPED, THEIRS[0], 6000), Candidate(MAPPED, THIRD_PARTY, 6000)
    assert targets(candidates, [THEIRS], [OWN]) == (
        Target(*THEIRS, PathKind.IPV4),
        Target(THEIRS[0], 6000, PathKind.PORT_MAPPED),
    )


@pytest.mark.parametrize("ip", ["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.20", "169.254.7.7", "fd00::7"])
@pytest.mark.parametrize(
    ("theirs", "own", "is_probed"),
    [
        (THEIRS, (THEIRS[0], 9), True),
        (THEIRS, OWN, False),
        (THEIRS_6, ("2001:db8:1:2::99", 9), True),
        (THEIRS_6, ("2001:db8:1:3::99", 9), False),
        (THEIRS_6, OWN, False),
    ],
    ids=["same IPv4", "another IPv4", "same /64", "another /64", "another family"],
)
def test_a_private_address_is_probed_if_both_are_observed_in_one_network(
    ip: str, theirs: tuple[str, int], own: tuple[str, int], is_probed: bool
) -> None:
    found = probed(Candidate(HOST, ip, 5000), observed=[theirs], own=[own])
    assert ((ip, 5000) in found) is is_probed
    assert theirs in found


def test_an_ipv6_address_is_probed_in_the_64_of_an_observed_one() -> None:
    same, other = "2001:db8:1:2:ffff::1", "2001:db8:1:3::1"
    found = probed(Candidate(HOST, same, 5), Candidate(HOST, other, 5), observed=[THEIRS_6], own=[OWN_6])
    assert found == [(same, 5), THEIRS_6]


@pytest.mark.parametrize("kind", list(CandidateKind))
@pytest.mark.parametrize(
    "ip",
    [
        *(
            THIRD_PARTY,
            THIRD_PARTY_6,
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.251",
            "ff02::fb",
        ),
        *("100.64.0.1", "198.18.0.1", "240.0.0.1", "::ffff:192.0.2.66", "64:ff9b::c000:242", "2002:c000:242::1"),
        *("172.15.0.1", "172.32.0.1", "192.167.1.1", "11.0.0.1", "fec0::1"),
    ],
)
def test_a_third_partys_address_is_never_probed(kind: CandidateKind, ip: str) -> None:
    """Whatever a hostile peer calls it, and also if it is in the same network."""
    for own in ([OWN], [(THEIRS[0], 9)], [OWN_6], []):
        found = probed(Candidate(kind, ip, 5000), observed=[THEIRS, THEIRS_6], own=own)
        assert found == [THEIRS_6, THEIRS]


def test_an_unattested_peer_is_probed_nowhere() -> None:
    everything = [
        Candidate(kind, ip, 5000)
        for kind in CandidateKind
        for ip in ("192.168.1.5", THEIRS[0], THIRD_PARTY, THIRD_PARTY_6, "fd00::1")
    ]
    assert targets(everything[:MAX_CANDIDATES], [], [OWN, OWN_6]) == ()


@pytest.mark.parametrize("port", [0])
def test_port_zero_is_never_probed(port: int) -> None:
    assert targets([Candidate(MAPPED, THEIRS[0], port)], [(THEIRS[0], port)], [OWN]) == ()


def test_a_server_reflexive_candidate_of_the_peer_adds_nothing() -> None:
    """The node attests addresses; another server of the peer does not."""
    candidates = Candidate(REFLEXIVE, THEIRS[0], 41_000), Candidate(REFLEXIVE, "192.168.1.9", 5)
    assert probed(*candidates, observed=[THEIRS], own=[(THEIRS[0], 1)]) == [THEIRS]


def test_the_nearest_comes_first_and_each_address_once() -> None:
    same_site = (THEIRS[0], 50_001)
    found = targets(
        [
            Candidate(MAPPED, THEIRS[0], 6000),
            Candidate(HOST, "2001:db8:1:2::8", 5000),
            Candidate(HOST, "192.168.1.9", 5000),
            Candidate(HOST, "192.168.1.9", 5000),
            Candidate(MAPPED, *THEIRS),
        ],
        [THEIRS, THEIRS_6],
        [same_site],
    )
    assert [target.kind for target in found] == [
        PathKind.LOCAL_NETWORK,
        PathKind.IPV6,
        PathKind.IPV6,
        PathKind.IPV4,
        PathKind.PORT_MAPPED,
    ]


def test_a_peer_that_the_node_sees_in_the_local_network_is_on_a_local_path() -> None:
    (target,) = targets([], [("192.168.1.9", 5000)], [("192.168.1.5", 5000)])
    assert target.kind is PathKind.LOCAL_NETWORK


def rules(ip: str, port: int, candidates: list[Candidate], observed: list[tuple[str, int]], own: list[str]) -> bool:
    """12.4, written again from the standard."""
    address = ipaddress.ip_address(ip)
    same = [
        (theirs == mine) if ":" not in theirs + mine else ":" in theirs and ":" in mine and site(theirs) == site(mine)
        for theirs, _ in observed
        for mine in own
    ]
    private = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")
    is_private = any(address in ipaddress.ip_network(network) for network in private)
    return (
        (ip, port) in observed
        or (any(ip == it for it, _ in observed) and Candidate(MAPPED, ip, port) in candidates)
        or (is_private and any(same))
        or (address.version == 6 and not is_private and any(":" in it and site(it) == site(ip) for it, _ in observed))
    )


def site(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed[:8]


def test_no_candidate_of_a_hostile_peer_breaks_the_rules() -> None:
    draw = random.Random(7)
    pool = ["10.0.0.9", "192.168.1.1", "169.254.1.1", "fe80::9", "fd00::9", THIRD_PARTY, THIRD_PARTY_6, "127.0.0.1"]
    pool += [THEIRS[0], THEIRS_6[0], "2001:db8:1:2::9", OWN[0], "2001:db8:9:9::6", "::1", "224.0.0.1", "100.64.0.9"]
    for _ in range(2000):
        candidates = [
            Candidate(draw.choice(list(CandidateKind)), draw.choice(pool), draw.choice((1, 53, 5000, 40_001)))
            for _ in range(draw.randrange(MAX_CANDIDATES + 1))
        ]
        observed = draw.choice(([], [THEIRS], [THEIRS_6], [THEIRS, THEIRS_6], [(OWN[0], 5)], [("2001:db8:9:9::6", 5)]))
        own = draw.choice(([], [OWN], [OWN_6], [OWN, OWN_6]))
        found = targets(candidates, observed, own)
        assert len(found) <= MAX_CANDIDATES + 2
        for target in found:
            assert rules(target.ip, target.port, candidates, observed, [ip for ip, _ in own]), target


@pytest.mark.parametrize(
    ("ip", "expected"),
    [("10.255.0.1", True), ("fe80::1", True), ("fdff::1", True), ("169.254.1.1", True)]
    + [("192.169.0.1", False), ("2001:db8::1", False), ("100.64.0.1", False), ("127.0.0.1", False)],
)
def test_local_addresses(ip: str, expected: bool) -> None:
    assert is_local(ip) is expected


NODE_4, NODE_6 = ("198.51.100.1", 31001), ("2001:db8::1", 31001)


@pytest.mark.parametrize(
    ("hosts", "node", "expected"),
    [
        (["10.0.0.2"], NODE_4, NODE_4),
        (["10.0.0.2", "2001:db8:1::2"], NODE_4, NODE_4),
        (["2001:db8:1::2"], NODE_4, NODE_6),
        (["10.0.0.2"], NODE_6, NODE_4),
        ([], NODE_4, NODE_4),
    ],
)
def test_a_node_is_reached_at_the_address_whose_family_the_player_has(
    hosts: list[str], node: tuple[str, int], expected: tuple[str, int]
) -> None:
    other = NODE_6 if node == NODE_4 else NODE_4
    first, second = reachable_first([(ip, 5000) for ip in hosts], node, other)
    assert first == expected
    assert {first, second} == {NODE_4, NODE_6}
    assert reachable_first([(ip, 5000) for ip in hosts], node, None) == (node, None)
