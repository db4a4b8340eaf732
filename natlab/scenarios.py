"""The networks in which pairs play: each pair of kinds of NAT, and what else lies between players."""

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from natlab import kinds
from natlab.kinds import NatKind
from natlab.lab import CARRIER, Host, Lab
from natlab.port_mapping import PROGRAM, Protocols

Hosts = tuple[Host, Host]

SHORT_LIFETIME, HOLD = 20, 30.0  # seconds


@dataclass(frozen=True)
class Scenario:
    """`plain`: whether plain hole punching finds a direct path. `best`: whether a client can that also predicts ports,
    guesses them and asks routers for them. `hold`: seconds for which the players then say nothing; their path has to
    carry packets after that."""

    name: str
    title: str
    build: Callable[[Lab], Hosts]
    plain: bool
    best: bool
    hold: float = 0.0
    needs: str = ""  # a program that has to be installed
    pair: tuple[NatKind, NatKind] | None = None

    def missing(self) -> str:
        """Why it cannot be played here; "" if it can."""
        return f"{self.name} needs {self.needs}" if self.needs and shutil.which(self.needs) is None else ""


def pair(one: NatKind, other: NatKind) -> Scenario:
    """Each player at a home of its own."""
    return Scenario(
        name=f"{one.name}/{other.name}",
        title=f"{one.title} - {other.title}",
        build=lambda lab: (lab.router("a", one).host("alice"), lab.router("b", other).host("bob")),
        plain=kinds.can_punch(one, other),
        best=not (one.is_symmetric and other.is_symmetric),
        pair=(one, other),
    )


def _same_lan(lab: Lab) -> Hosts:
    home = lab.router("a", kinds.PORT_RESTRICTED)
    return home.host("alice"), home.host("bob")


def _one_carrier(lab: Lab, *, hairpin: bool) -> Hosts:
    carrier = lab.router("carrier", kinds.FULL_CONE, inside=CARRIER, hairpin=hairpin)
    homes = [lab.router(name, kinds.PLAIN_LINUX, behind=carrier) for name in ("a", "b")]
    return homes[0].host("alice"), homes[1].host("bob")


def _carrier(lab: Lab, kind: NatKind) -> Hosts:
    carrier = lab.router("carrier", kind, inside=CARRIER)
    home = lab.router("a", kinds.PORT_RESTRICTED, behind=carrier)
    return home.host("alice"), lab.router("b", kinds.PORT_RESTRICTED).host("bob")


def _short_mappings(lab: Lab) -> Hosts:
    homes = [lab.router(name, kinds.PORT_RESTRICTED, lifetime=SHORT_LIFETIME) for name in ("a", "b")]
    return homes[0].host("alice"), homes[1].host("bob")


def _udp_blocked(lab: Lab) -> Hosts:
    return lab.router("a", kinds.PLAIN_LINUX, blocks_udp=True).host("alice"), lab.server("bob")


def _ipv6(lab: Lab, kind: NatKind | None) -> Hosts:
    homes = [lab.router(name, kind, ipv6=True) for name in ("a", "b")]
    return homes[0].host("alice"), homes[1].host("bob")


def _port_mapping(lab: Lab, protocols: Protocols) -> Hosts:
    """Only one router maps ports. With two, it would depend on the moment whether a player sends to the mapped port of
    the other, or to the port from which the other sends to its own mapped one."""
    home = lab.router("a", kinds.RANDOM, port_mapping=protocols)
    return home.host("alice"), lab.router("b", kinds.RANDOM).host("bob")


PAIRS = tuple(pair(one, other) for one, other in itertools.combinations_with_replacement(kinds.KINDS, 2))
OTHERS = (
    Scenario("same-lan", "two hosts of one home", _same_lan, plain=True, best=True),
    Scenario(
        "hairpin",
        "two homes of one full-cone carrier with hairpinning",
        lambda lab: _one_carrier(lab, hairpin=True),
        plain=True,
        best=True,
    ),
    Scenario(
        "no-hairpin",
        "two homes of one full-cone carrier without hairpinning",
        lambda lab: _one_carrier(lab, hairpin=False),
        plain=False,
        best=False,
    ),
    Scenario(
        "carrier-full-cone",
        "a port-restricted home of a full-cone carrier - a port-restricted home",
        lambda lab: _carrier(lab, kinds.FULL_CONE),
        plain=True,
        best=True,
    ),
    Scenario(
        "carrier-symmetric",
        "a port-restricted home of a symmetric, random carrier - a port-restricted home",
        lambda lab: _carrier(lab, kinds.RANDOM),
        plain=False,
        best=True,
    ),
    Scenario(
        "short-mappings",
        f"port-restricted homes whose mappings end after {SHORT_LIFETIME} s, {HOLD:.0f} s of silence",
        _short_mappings,
        plain=True,
        best=True,
        hold=HOLD,
    ),
    Scenario("udp-blocked", "a network without UDP - a public address", _udp_blocked, plain=False, best=False),
    Scenario(
        "ipv6-only",
        "two networks with IPv6 only, behind firewalls",
        lambda lab: _ipv6(lab, None),
        plain=True,
        best=True,
    ),
    Scenario(
        "dual-stack",
        "symmetric, random homes with IPv6 as well",
        lambda lab: _ipv6(lab, kinds.RANDOM),
        plain=True,
        best=True,
    ),
    Scenario(
        "pcp",
        "a symmetric, random home with PCP and NAT-PMP - a symmetric, random home",
        lambda lab: _port_mapping(lab, Protocols.PCP),
        plain=False,
        best=True,
        needs=PROGRAM,
    ),
    Scenario(
        "upnp",
        "a symmetric, random home with UPnP - a symmetric, random home",
        lambda lab: _port_mapping(lab, Protocols.UPNP),
        plain=False,
        best=True,
        needs=PROGRAM,
    ),
)
ALL = {scenario.name: scenario for scenario in (*PAIRS, *OTHERS)}
GROUPS = {"pairs": PAIRS, "others": OTHERS, "all": (*PAIRS, *OTHERS)}


def by_names(names: list[str]) -> list[Scenario]:
    """Scenarios and groups of them, in order and without duplicates. Raises KeyError for an unknown name."""
    found: dict[str, Scenario] = {}
    for name in names:
        for scenario in GROUPS.get(name) or (ALL[name],):
            found[scenario.name] = scenario
    return list(found.values())
