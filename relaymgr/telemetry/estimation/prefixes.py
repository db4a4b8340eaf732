"""Address prefixes, whose addresses have similar legs, and the averages of a prefix and a node. Pure.

Averages are kept by player, and used once several players measured the prefix. The figures of a prefix are the medians
of its players, so that a player who falsifies its own leg affects only itself.

An average is exponentially weighted: alpha = 1/2 towards faster samples, because delays are added to a path now and
then and never removed, and 1/10 towards slower ones, with rises capped at 1 ms, because a sample of some seconds says
hardly more than one of some hundred milliseconds.
"""

import ipaddress
import statistics
from collections.abc import Mapping

from .estimates import MAX_AGE_S, Sample

V4_BITS, V6_BITS = 24, 48

ALPHA_FASTER = 0.5
ALPHA_SLOWER = 0.1
MAX_RISE_MS = 1.0
MAX_PLAYERS = 9  # most recent players of a prefix and node; odd, so that a median is one of their values
FORGET_S = 86_400.0  # after which a sample replaces the average


def prefix_of(address: str) -> str:
    """The /24 of an IPv4 address, the /48 of an IPv6 one. Empty if it is no address, or one that identifies no
    network."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if ip.is_unspecified or ip.is_multicast or ip.is_link_local:
        return ""
    return str(ipaddress.ip_network(f"{ip}/{V4_BITS if ip.version == 4 else V6_BITS}", strict=False))


def average_after(known: Sample | None, new: Sample) -> Sample:
    """The average after one more sample; `known.age_s` is its age when `new` was measured."""
    if known is None or known.age_s > FORGET_S:
        return new
    slower = new.ms - known.ms
    return Sample(
        ms=known.ms + (ALPHA_FASTER * slower if slower < 0 else min(ALPHA_SLOWER * slower, MAX_RISE_MS)),
        jitter_ms=known.jitter_ms + ALPHA_SLOWER * (new.jitter_ms - known.jitter_ms),
        loss=known.loss + ALPHA_SLOWER * (new.loss - known.loss),
        age_s=0.0,
    )


# {a player's hash: [ms, jitter ms, loss, seconds since 1970]}
Players = Mapping[str, list[float]]


def players_after(known: Players, player: str, sample: Sample, at: float) -> dict[str, list[float]]:
    """The averages of the last MAX_PLAYERS players of a prefix after a sample of one of them."""
    memory = None
    if player in known:
        ms, jitter_ms, loss, seen_at = known[player]
        memory = Sample(ms, jitter_ms, loss, age_s=max(0.0, at - seen_at))
    new = average_after(memory, sample)
    players = {name: figures for name, figures in known.items() if name != player and at - figures[3] <= MAX_AGE_S}
    if len(players) >= MAX_PLAYERS:
        del players[min(players, key=lambda name: players[name][3])]
    return {**players, player: [round(new.ms, 3), round(new.jitter_ms, 3), round(new.loss, 4), at]}


def median_of_players(players: Players) -> Sample:
    """The median of each figure, of at least one player."""
    ms, jitter_ms, loss, _ = (statistics.median_low(figures) for figures in zip(*players.values(), strict=True))
    return Sample(ms, jitter_ms, loss)


def first_address(prefix: str) -> str:
    """One address to look the prefix up by."""
    return prefix.partition("/")[0]


def wide_network(prefix: str) -> str:
    """A name for the /16 of an IPv4 prefix, the /32 of an IPv6 one."""
    separator = ":" if ":" in prefix else "."
    return separator.join(prefix.split(separator)[:2])
