"""Measurements of players' legs: which of them are accepted, and how often they are stored."""

import time
from typing import Any

import pytest
from django.core.cache import cache

from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.states import IncidentKind
from relaymgr.telemetry.models import LegSample, PrefixLeg
from relaymgr.telemetry.services import probe_round
from relaymgr.tenants.models import Tenant
from tests.relaymgr.telemetry.probing.test_round import announced, heard
from tests.relaymgr.telemetry.test_rogue_node import incidents, leg, report, rogue, session_on

__all__ = ["announced", "heard", "rogue"]

pytestmark = pytest.mark.django_db


def test_of_a_players_network_that_is_known_it_cannot_claim_another(
    rogue: RelayNode, stand_in: Any, tenant: Tenant
) -> None:
    own = session_on(rogue, tenant, ip="198.51.100.7")
    report(stand_in, legs=[leg(own.pk, 0, prefix="198.51.100.0/24"), leg(own.pk, 1, prefix="203.0.113.0/24")])
    probe_round()
    assert LegSample.objects.count() == 2
    assert list(PrefixLeg.objects.values_list("prefix", flat=True)) == ["198.51.100.0/24"]


def test_legs_much_shorter_than_the_players_measured_are_not_believed(
    rogue: RelayNode, stand_in: Any, tenant: Tenant
) -> None:
    own = session_on(rogue, tenant, seats=4, measurements={"rogue": [80.0, 0.0, 0.0, time.time()]})
    report(stand_in, legs=[leg(own.pk, seat, rtt_ms=0.1) for seat in range(4)])
    probe_round()
    assert not PrefixLeg.objects.exists()
    assert not LegSample.objects.exists()
    assert incidents(rogue) == {IncidentKind.OUTLIER: 1}


def test_one_tenant_of_several_cannot_have_a_node_distrusted(rogue: RelayNode, stand_in: Any, tenant: Tenant) -> None:
    other = session_on(rogue, Tenant.objects.create(slug="other"))
    framed = session_on(rogue, tenant, seats=4, measurements={"rogue": [80.0, 0.0, 0.0, time.time()]})
    report(stand_in, legs=[leg(framed.pk, seat, rtt_ms=0.1) for seat in range(4)] + [leg(other.pk)])
    probe_round()
    assert LegSample.objects.count() == 5
    assert not incidents(rogue)


def test_legs_are_kept_at_a_spacing(heard: RelayNode, announced: list[str]) -> None:
    probe_round()
    probe_round()
    leg = LegSample.objects.get()
    assert (leg.node, leg.session_id, leg.seat) == (heard, "3960c873aafd-S", 1)
    assert (leg.rtt_ms, leg.jitter_ms, leg.loss) == (21.3, 0.8, 0.0)

    cache.clear()  # as after the spacing
    probe_round()
    assert LegSample.objects.count() == 2


def test_legs_are_kept_at_the_same_spacing_without_the_cache(
    heard: RelayNode, announced: list[str], settings: Any
) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "web.cache.PersistentRedisCache", "LOCATION": "redis://127.0.0.1:9/0"}  # nobody listens
    }
    for _ in range(3):
        probe_round()
    assert LegSample.objects.count() == 1
