"""The paths of players to each other in words. Pure."""

from collections.abc import Sequence

# A path as the object of "sends ...".
PATHS = {
    "relay": "over the relay",
    "local_network": "directly in the local network",
    "ipv4": "directly over IPv4",
    "ipv6": "directly over IPv6",
    "port_mapped": "directly to a port that the peer's router maps",
}
REASONS = {
    "none": "no other path has been chosen yet",
    "first_path": "it is the first direct path that works",
    "better": "it measures better than the path before",
    "path_failed": "the path before stopped answering",
    "peer_left": "the peer left or was removed",
    "not_permitted": "the direct modes of the two players do not permit another path",
    "no_direct_path": "no direct path was found: their NATs or firewalls let no packet through",
    "only_small_packets": "the direct path lost packets of full size",
    "recovered": "the direct path works again",
}
MAX_PEERS = 6  # named in one sentence


def explain(path: str, reason: str, rtt_ms: float | None, relay_rtt_ms: float | None) -> str:
    """Why the player sends on this path, with the round trips that it compared."""
    sentence = f"The player sends {PATHS.get(path, path)}, because {REASONS.get(reason, reason)}"
    if rtt_ms is None:
        return f"{sentence}."
    if path == "relay" or relay_rtt_ms is None:
        return f"{sentence}; the round trip to the peer is {rtt_ms:.1f} ms."
    return f"{sentence}; the round trip is {rtt_ms:.1f} ms, and {relay_rtt_ms:.1f} ms over the relay."


def summarise(peers: Sequence[int], path: str, reason: str, changes: int) -> str:
    """An entry of the timeline: the player of a seat sends to these peers on another path."""
    named = ", ".join(map(str, peers[:MAX_PEERS]))
    if len(peers) > MAX_PEERS:
        named += f" and {len(peers) - MAX_PEERS} more"
    text = f"to seat{'s' * (len(peers) > 1)} {named} {PATHS.get(path, path)}: {REASONS.get(reason, reason)}"
    return f"{text} (last of {changes} changes)" if changes > len(peers) else text
