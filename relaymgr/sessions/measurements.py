"""What players say that they measured, and what nodes signed of it (PROTOCOL.md 11.1)."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.utils import timezone

from relaymgr.nodes.selectors import proof_keys
from transports.protocol.errors import DecodeError
from transports.protocol.packets import pack_ip
from transports.protocol.proofs import RoundTripProof, decode_proof

MAX_AGE_S = 600.0  # of a proof; and so far may a node's clock be ahead of ours
MAX_AHEAD_S = 10.0


def measurements_check(users: Iterable[Mapping[str, Any]]) -> list[dict[str, list[float]]]:
    """For each user the samples that count: {node: [ms, jitter ms, loss, seconds since 1970]}.

    A round trip is never less than its node signed. Without a good proof it counts for as much as `latencies` do: for
    what players say, or nothing where SIGNED_MEASUREMENTS_ONLY is set."""
    users = list(users)
    keys = proof_keys(nodes={item["node"] for user in users for item in user.get("measurements", ())})
    now = timezone.now().timestamp()
    return [
        {
            item["node"]: sample
            for item in user.get("measurements", ())
            if (sample := _sample(item, _good_proof(item, user.get("ip"), keys, now), now))
        }
        for user in users
    ]


def _sample(item: Mapping[str, Any], proof: RoundTripProof | None, now: float) -> list[float] | None:
    if proof:
        return [max(item["rtt_ms"], proof.round_trip / 1000), item["jitter_ms"], item["loss"], proof.time / 1e6]
    return None if settings.SIGNED_MEASUREMENTS_ONLY else [item["rtt_ms"], item["jitter_ms"], item["loss"], now]


def _good_proof(
    item: Mapping[str, Any], ip: str | None, keys: Mapping[tuple[str, int], bytes], now: float
) -> RoundTripProof | None:
    try:
        proof = decode_proof(base64.b64decode(item["proof"], altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, DecodeError):
        return None
    key = keys.get((item["node"], proof.key_id))
    is_fresh = -MAX_AGE_S <= proof.time / 1e6 - now <= MAX_AHEAD_S
    if key is None or not proof.round_trip or not is_fresh or not proof.is_signed_by(key):
        return None
    return proof if _is_of(proof, ip) else None


def _is_of(proof: RoundTripProof, ip: str | None) -> bool:
    """Not somebody else's. A player has one address of each family; of the other family nothing can be said."""
    if ip is None:
        return True
    packed, mapped = pack_ip(ip), bytes(10) + b"\xff\xff"
    is_same_family = packed.startswith(mapped) == proof.address.startswith(mapped)
    return packed == proof.address or not is_same_family
