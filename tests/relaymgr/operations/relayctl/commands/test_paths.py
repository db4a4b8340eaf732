"""relayctl paths."""

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import RelayNode
from relaymgr.telemetry.models import PathSample, PeerPath

from ..conftest import Relayctl

pytestmark = pytest.mark.django_db


@pytest.fixture
def reported(session: dict[str, Any]) -> str:
    """The id of a session in which seat 0 has reported its path to seat 1."""
    now = timezone.now()
    row = {"node": RelayNode.objects.get(), "session_id": session["session_id"], "seat": 0, "peer": 1, "at": now}
    row |= {"rtt_ms": 18.2, "relay_rtt_ms": 41.0, "loss": 0.0, "packets": 600, "bytes": 90_000}
    PeerPath.objects.create(**row, path="ipv4", reason="better", since=now, changes=2, unannounced=0, sampled="")
    PathSample.objects.create(**row, path="ipv6", reason="first_path")
    return str(session["session_id"])


def test_document_has_the_path_of_each_pair_with_its_history(reported: str, document: Callable[..., Any]) -> None:
    found = document("paths", reported)
    assert (found["session"], found["direct_bytes"], found["has_more"]) == (reported, 90_000, False)
    [path] = found["paths"]
    assert (path["seat"], path["peer"], path["path"], path["reason"], path["rtt_ms"]) == (0, 1, "ipv4", "better", 18.2)
    assert [sample["path"] for sample in path["history"]] == ["ipv6"]
    assert document("paths", reported, "--seat", "2")["paths"] == []


def test_table_explains_the_paths_of_one_seat(reported: str, relayctl: Relayctl) -> None:
    listed = relayctl("paths", reported).stdout
    assert "direct mode relay_only, 600 packets, 90000 bytes sent on direct paths" in listed
    assert "ipv4" in listed and "better" in listed and "measures better" not in listed
    assert "it measures better than the path before" in relayctl("paths", reported, "--seat", "0").stdout


def test_without_reports_it_says_so(session: dict[str, Any], relayctl: Relayctl) -> None:
    assert "No player has reported a path." in relayctl("paths", session["session_id"]).stdout
