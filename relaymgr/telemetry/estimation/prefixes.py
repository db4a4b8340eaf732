"""Whose legs are alike: addresses of one prefix. And what is remembered of a prefix and a node. Pure.

A prefix is remembered by player, and believed once several measured it: its figures are the medians of theirs, so that
one player who makes its leg seem longer, or hides what it loses, decides for itself alone.
"""

import ipaddress
import statistics
from collections.abc import Mapping

from .estimates import MAX_AGE_S, Sample

V4_BITS, V6_BITS = 24, 48

FALL = 0.5  # of the way down to a sample that is faster: delays are added to a path now and then, never taken away
RISE = 0.1  # and up to one that is slower,
MOST_RISE_MS = 1.0  # but by no more than this: a sample of some seconds says hardly more than one of some hundred ms
MAX_PLAYERS = 9  # of a prefix and node, the last seen: an odd number, so that a median is one of theirs
FORGET_S = 86_400.0  # after which a sample replaces what is remembered


def prefix_of(address: str) -> str:
    """The /24 of an IPv4 address, the /48 of an IPv6 one. Empty when it is none, or one that tells of no network."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if ip.is_unspecified or ip.is_multicast or ip.is_link_local:
        return ""
    return str(ipaddress.ip_network(f"{ip}/{V4_BITS if ip.version == 4 else V6_BITS}", strict=False))


def remember(known: Sample | None, new: Sample) -> Sample:
    """What a prefix remembers of a node after one more sample; `known.age_s` is at the time of `new`."""
    if known is None or known.age_s > FORGET_S:
        return new
    slower = new.ms - known.ms
    return Sample(
        ms=known.ms + (FALL * slower if slower < 0 else min(RISE * slower, MOST_RISE_MS)),
        jitter_ms=known.jitter_ms + RISE * (new.jitter_ms - known.jitter_ms),
        loss=known.loss + RISE * (new.loss - known.loss),
        age_s=0.0,
    )


# {a player's hash: [ms, jitter ms, loss, seconds since 1970]}
Players = Mapping[str, list[float]]


def players_remember(known: Players, player: str, sample: Sample, at: float) -> dict[str, list[float]]:
    """The memories of a prefix's players after a sample of one of them, those of the last MAX_PLAYERS."""
    memory = None
    if player in known:
        ms, jitter_ms, loss, seen_at = known[player]
        memory = Sample(ms, jitter_ms, loss, age_s=max(0.0, at - seen_at))
    new = remember(memory, sample)
    players = {name: figures for name, figures in known.items() if name != player and at - figures[3] <= MAX_AGE_S}
    if len(players) >= MAX_PLAYERS:
        del players[min(players, key=lambda name: players[name][3])]
    return {**players, player: [round(new.ms, 3), round(new.jitter_ms, 3), round(new.loss, 4), at]}


def of_players(players: Players) -> Sample:
    """The median of each figure. There must be one player at least."""
    ms, jitter_ms, loss, _ = (statistics.median_low(figures) for figures in zip(*players.values(), strict=True))
    return Sample(ms, jitter_ms, loss)


def first_address(prefix: str) -> str:
    """One address to look the prefix up by."""
    return prefix.partition("/")[0]


def wide_network(prefix: str) -> str:
    """A name for the /16 of an IPv4 prefix, the /32 of an IPv6 one."""
    separator = ":" if ":" in prefix else "."
    return separator.join(prefix.split(separator)[:2])
