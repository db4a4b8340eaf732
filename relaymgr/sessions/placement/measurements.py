"""Checks the measurements of players against the proofs that nodes signed (PROTOCOL.md 11.1)."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.utils import timezone

from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.packets import pack_ip
from causeway_client.protocol.proofs import RoundTripProof, decode_proof
from relaymgr.nodes.selectors import proof_keys

ProofKeys = Mapping[tuple[str, int], bytes]

# Proofs are accepted for as long as a ticket may wait. An old one only widens the estimate, and a player who has moved
# since then has another address.
MAX_AGE_S = 86_400.0
MAX_CLOCK_LEAD_S = 10.0  # by which a node's clock may be ahead of the manager's


def accepted_measurements(users: Iterable[Mapping[str, Any]]) -> list[dict[str, list[float]]]:
    """For each user the accepted samples: {node or location: [ms, jitter ms, loss, seconds since 1970]}.

    A round trip is at least what its node signed for the user's address. Unsigned ones, which include all `latencies`,
    are accepted as reported, or ignored where SIGNED_MEASUREMENTS_ONLY is set.
    """
    users = list(users)
    keys = proof_keys(nodes={item["node"] for user in users for item in user.get("measurements", ())})
    now = timezone.now().timestamp()
    return [_samples(user, keys, now) for user in users]


def _samples(user: Mapping[str, Any], keys: ProofKeys, now: float) -> dict[str, list[float]]:
    reported_at = min(now, user["measured_at"].timestamp()) if "measured_at" in user else now
    reported = {name: [ms, 0.0, 0.0, reported_at] for name, ms in user.get("latencies", {}).items()}
    signed: dict[str, list[float]] = {}
    for item in user.get("measurements", ()):
        if proof := _good_proof(item, user.get("ip"), keys, now):
            ms = max(item["rtt_ms"], proof.round_trip / 1000)
            signed[item["node"]] = [ms, item["jitter_ms"], item["loss"], proof.time / 1e6]
        else:
            reported[item["node"]] = [item["rtt_ms"], item["jitter_ms"], item["loss"], reported_at]
    return signed if settings.SIGNED_MEASUREMENTS_ONLY else {**reported, **signed}


def _good_proof(item: Mapping[str, Any], ip: str | None, keys: ProofKeys, now: float) -> RoundTripProof | None:
    try:
        proof = decode_proof(base64.b64decode(item["proof"], altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, DecodeError):
        return None
    key = keys.get((item["node"], proof.key_id))
    is_fresh = -MAX_AGE_S <= proof.time / 1e6 - now <= MAX_CLOCK_LEAD_S
    if key is None or not proof.round_trip or not is_fresh or not proof.is_signed_by(key):
        return None
    return proof if _is_for_address(proof, ip) else None


def _is_for_address(proof: RoundTripProof, ip: str | None) -> bool:
    """Whether it was measured from the address that the backend reports. For another address, or for a player without
    one, the proof could be any other player's."""
    return ip is not None and pack_ip(ip) == proof.address
