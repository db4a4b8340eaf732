"""Round trips that players sent with a request, against what nodes signed."""

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from causeway_client.protocol.packets import pack_ip
from causeway_client.protocol.proofs import RoundTripProof, proof_key
from relaymgr.nodes.models import RelayNode, TokenKey
from relaymgr.sessions.models import RelaySession
from tests.relaymgr.sessions.conftest import SESSIONS

pytestmark = pytest.mark.django_db

KEY = bytes(32)  # of every stand-in
HOME = "203.0.113.9"


@pytest.fixture
def node(make_stand_in_node: Callable[..., tuple[RelayNode, Any]]) -> RelayNode:
    return make_stand_in_node("fra-1")[0]


def proof(ms: float, *, age_s: float = 1.0, ip: str = HOME, key: bytes = KEY, key_id: int = 1) -> str:
    """As the node signs it."""
    time = int((timezone.now().timestamp() - age_s) * 1e6)
    unsigned = RoundTripProof(bytes(16), time, int(ms * 1000), key_id, pack_ip(ip))
    signed = RoundTripProof(bytes(16), time, int(ms * 1000), key_id, pack_ip(ip), unsigned.sign(proof_key(key)))
    return base64.urlsafe_b64encode(signed.encode()).decode()


def sample(api: APIClient, rtt_ms: float, signed: str, ip: str = HOME) -> dict[str, Any]:
    """What the placement took the player's leg to be."""
    measurement = {"node": "fra-1", "rtt_ms": rtt_ms, "jitter_ms": 2.0, "loss": 0.02, "proof": signed}
    response = api.post(SESSIONS, {"users": [{"ip": ip, "measurements": [measurement]}]}, format="json")
    assert response.status_code == 200, response.content
    estimate: dict[str, Any] = RelaySession.objects.get().placement["considered_nodes"][0]["estimates"][0]
    return estimate


def test_nobody_is_nearer_than_the_node_measured(api: APIClient, node: RelayNode) -> None:
    leg = sample(api, 1.0, proof(40.0))
    assert (leg["source"], leg["ms"], leg["jitter_ms"], leg["loss"]) == ("measured", 40.0, 2.0, 0.02)
    assert 0.5 < leg["age_s"] < 60  # made a second old; the machine may be busy


def test_who_says_that_it_is_farther_is_believed(api: APIClient, node: RelayNode) -> None:
    assert sample(api, 90.0, proof(40.0))["ms"] == 90.0


@pytest.mark.parametrize(
    "signed",
    [
        "",
        "AAAA",
        "not base64!",
        proof(1.0, key=b"1" * 32),
        proof(1.0, ip="198.51.100.1"),
        proof(1.0, ip="2001:db8::7"),
        proof(0.0),
    ],
    ids=["none", "too short", "no base64", "wrong key", "another address", "another family", "no round trip"],
)
@pytest.mark.parametrize("signed_only", [False, True])
def test_bad_proofs_prove_nothing(
    api: APIClient, node: RelayNode, settings: Any, signed: str, signed_only: bool
) -> None:
    settings.SIGNED_MEASUREMENTS_ONLY = signed_only
    leg = sample(api, 25.0, signed)
    assert (leg["source"], leg["ms"]) == (("unknown", 150.0) if signed_only else ("measured", 25.0))


def test_a_proof_proves_nothing_for_a_player_without_an_address(api: APIClient, node: RelayNode, settings: Any) -> None:
    settings.SIGNED_MEASUREMENTS_ONLY = True
    measurement = {"node": "fra-1", "rtt_ms": 25.0, "proof": proof(20.0)}
    user = {"player_id": "anybody", "measurements": [measurement]}
    assert api.post(SESSIONS, {"users": [user]}, format="json").status_code == 200
    (leg,) = RelaySession.objects.get().placement["considered_nodes"][0]["estimates"]
    assert leg["source"] == "unknown"


def test_a_proof_counts_with_its_age(api: APIClient, node: RelayNode, settings: Any) -> None:
    """A ticket may have waited that long."""
    settings.SIGNED_MEASUREMENTS_ONLY = True
    fresh = sample(api, 25.0, proof(20.0))
    RelaySession.objects.all().delete()
    old = sample(api, 25.0, proof(20.0, age_s=4 * 3600.0))
    assert (old["source"], old["ms"]) == ("measured", 25.0)
    assert old["age_s"] == pytest.approx(4 * 3600, abs=5)
    assert old["uncertainty_ms"] > 4 * fresh["uncertainty_ms"]


def test_what_is_only_said_is_as_old_as_the_caller_says(api: APIClient, node: RelayNode) -> None:
    said = {"node": "fra-1", "rtt_ms": 25.0}
    hour_ago = (timezone.now() - timedelta(hours=1)).isoformat()
    users = [
        {"ip": HOME, "measurements": [said], "measured_at": hour_ago},
        {"ip": HOME, "latencies": {"fra-1": 25.0}, "measured_at": hour_ago},
        {"ip": HOME, "latencies": {"fra-1": 25.0}, "measured_at": "2999-01-01T00:00:00Z"},
        {"ip": HOME, "latencies": {"fra-1": 25.0}, "measured_at": None},
    ]
    assert api.post(SESSIONS, {"users": users}, format="json").status_code == 200
    legs = RelaySession.objects.get().placement["considered_nodes"][0]["estimates"]
    assert [leg["age_s"] for leg in legs] == pytest.approx([3600, 3600, 0, 0], abs=5)
    assert [leg["uncertainty_ms"] for leg in legs] == pytest.approx([8.2, 8.2, 2, 2], abs=0.1)


def test_time_that_is_none_names_the_field(api: APIClient, node: RelayNode) -> None:
    response = api.post(SESSIONS, {"users": [{"ip": HOME, "measured_at": "yesterday"}]}, format="json")
    assert (response.status_code, list(response.json()["details"])) == (400, ["users[0].measured_at"])


@pytest.mark.parametrize("age_s", [90_000.0, -60.0])
def test_old_proofs_and_those_of_a_clock_ahead_prove_nothing(
    api: APIClient, node: RelayNode, settings: Any, age_s: float
) -> None:
    settings.SIGNED_MEASUREMENTS_ONLY = True
    assert sample(api, 25.0, proof(20.0, age_s=age_s))["source"] == "unknown"


def test_proof_of_another_nodes_key_proves_nothing(api: APIClient, node: RelayNode, settings: Any) -> None:
    settings.SIGNED_MEASUREMENTS_ONLY = True
    TokenKey.objects.filter(node=node).update(key_id=2)
    assert sample(api, 25.0, proof(20.0))["source"] == "unknown"


def test_what_is_only_said_counts_for_nothing_when_signatures_are_asked_for(
    api: APIClient, node: RelayNode, settings: Any
) -> None:
    settings.SIGNED_MEASUREMENTS_ONLY = True
    api.post(SESSIONS, {"users": [{"ip": HOME, "latencies": {"fra-1": 5}}]}, format="json")
    assert RelaySession.objects.get().placement["considered_nodes"][0]["estimates"][0]["source"] == "unknown"


@pytest.mark.parametrize(
    "measurement",
    [
        {"node": "fra-1"},
        {"node": "fra-1", "rtt_ms": "nan"},
        {"node": "fra-1", "rtt_ms": 5, "loss": 2},
        {"node": "fra-1", "rtt_ms": 5, "proof": "x" * 200},
        "fra-1",
    ],
)
def test_bad_measurements_name_the_field(api: APIClient, node: RelayNode, measurement: Any) -> None:
    response = api.post(SESSIONS, {"users": [{"ip": HOME, "measurements": [measurement]}]}, format="json")
    assert response.status_code == 400
    assert all("measurements" in field for field in response.json()["details"])
