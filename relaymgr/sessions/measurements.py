"""What players say that they measured, and what nodes signed of it (PROTOCOL.md 11.1)."""

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

# Of a proof: as long as a ticket may wait. An old one is true of its time, and makes for a wider estimate; who has gone
# elsewhere since has another address.
MAX_AGE_S = 86_400.0
MAX_AHEAD_S = 10.0  # of a node's clock before ours


def measurements_check(users: Iterable[Mapping[str, Any]]) -> list[dict[str, list[float]]]:
    """For each user the samples that count: {node or location: [ms, jitter ms, loss, seconds since 1970]}.

    A round trip is never less than its node signed for the address that the user has. What is not signed so,
    `latencies` among it, counts for what players say, or for nothing where SIGNED_MEASUREMENTS_ONLY is set."""
    users = list(users)
    keys = proof_keys(nodes={item["node"] for user in users for item in user.get("measurements", ())})
    now = timezone.now().timestamp()
    return [_samples(user, keys, now) for user in users]


def _samples(user: Mapping[str, Any], keys: ProofKeys, now: float) -> dict[str, list[float]]:
    said_at = min(now, user["measured_at"].timestamp()) if "measured_at" in user else now
    said = {name: [ms, 0.0, 0.0, said_at] for name, ms in user.get("latencies", {}).items()}
    signed: dict[str, list[float]] = {}
    for item in user.get("measurements", ()):
        if proof := _good_proof(item, user.get("ip"), keys, now):
            ms = max(item["rtt_ms"], proof.round_trip / 1000)
            signed[item["node"]] = [ms, item["jitter_ms"], item["loss"], proof.time / 1e6]
        else:
            said[item["node"]] = [item["rtt_ms"], item["jitter_ms"], item["loss"], said_at]
    return signed if settings.SIGNED_MEASUREMENTS_ONLY else {**said, **signed}


def _good_proof(item: Mapping[str, Any], ip: str | None, keys: ProofKeys, now: float) -> RoundTripProof | None:
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
    """Whether it was measured from the address that the backend reports. It proves nothing for any other address: of
    another family or of a player without one it could be anybody's."""
    return ip is not None and pack_ip(ip) == proof.address
