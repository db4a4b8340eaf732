"""Whose legs are alike: addresses of one prefix. And how a prefix's memory of a node changes with each sample. Pure."""

import ipaddress

from .estimation import Sample

V4_BITS, V6_BITS = 24, 48

FALL = 0.5  # of the way down to a sample that is faster: delays are added to a path now and then, never taken away
RISE = 0.1  # and up to one that is slower,
MOST_RISE_MS = 1.0  # but by no more than this: a sample of some seconds says hardly more than one of some hundred ms
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


def first_address(prefix: str) -> str:
    """One address to look the prefix up by."""
    return prefix.partition("/")[0]
