"""Which label of the metric a placement is counted under. Outcomes of attempts: test_services.py."""

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.placement.ranking import FallbackTier, Rule
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS


def placements(rule: Rule, tier: FallbackTier) -> float:
    labels = {"decided_by": rule.value, "fallback_tier": tier.code}
    return REGISTRY.get_sample_value("causeway_placements_total", labels) or 0.0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "tier"),
    [
        ({}, FallbackTier.NONE),
        ({"last_seen_at": None}, FallbackTier.STALE_TELEMETRY),
        ({"state": "suspect"}, FallbackTier.SUSPECT),
    ],
)
def test_a_placement_is_counted_by_its_rule_and_its_fallback_tier(
    fields: dict[str, Any],
    tier: FallbackTier,
    make_stand_in_node: Callable[..., tuple[RelayNode, object]],
    api: APIClient,
) -> None:
    make_stand_in_node("fra-1", **fields)
    before = placements(Rule.ONLY_NODE, tier)
    assert api.post(SESSIONS, TWO_USERS, format="json").status_code == 200
    assert placements(Rule.ONLY_NODE, tier) == before + 1
