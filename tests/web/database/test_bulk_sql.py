"""Rows written by our own SQL are those that the models would have written."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.db import DataError, connection, transaction

from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.states import NodeState
from relaymgr.telemetry.models import LegSample, NodeSample, PeerLegs, PrefixLeg
from relaymgr.tenants.models import ApiKey, Tenant
from web.database.bulk_sql import COPIED_FROM, objects_insert, row_change, rows_insert, rows_update, rows_upsert

pytestmark = pytest.mark.django_db

Make = Callable[..., RelayNode]

AT = datetime(2026, 11, 28, 12, 30, 15, 250_000, UTC)
LEG = ("node", "at", "session_id", "seat", "rtt_ms", "jitter_ms", "loss")


def test_every_type_of_column_comes_back_as_it_was(node: RelayNode) -> None:
    counters = {"drop_bad_tag": 2**63 - 1, 'a "quoted" name\\': 0, "": 1}
    names = ("node", "at", "probe_ms", "cpu", "sessions", "seats", "connected", "counters", "legs", "leg_rtt_ms")
    rows_insert(NodeSample, names, [(node.pk, AT, 1.25, 0.07, 1, 2, 3, counters, 4, None)])
    sample = NodeSample.objects.get()
    assert [getattr(sample, name) for name in names] == [node, AT, 1.25, 0.07, 1, 2, 3, counters, 4, None]


def test_many_rows_are_all_there_and_none_is_no_error(node: RelayNode) -> None:
    rows_insert(LegSample, LEG, [])
    rows_insert(LegSample, LEG, ((node.pk, AT, "3960c873aafd-S", n % 250, None, n / 7, 0.0) for n in range(3_000)))
    assert LegSample.objects.count() == 3_000
    assert sorted(LegSample.objects.values_list("jitter_ms", flat=True)) == [n / 7 for n in range(3_000)]


def test_text_is_never_read_as_sql(node: RelayNode) -> None:
    hostile = ["%s', NULL); --", "a\tb\\N", "\\.", "{}"]
    rows_insert(LegSample, LEG, [(node.pk, AT, text, 0, 1.0, 0.0, 0.0) for text in hostile])
    assert sorted(LegSample.objects.values_list("session_id", flat=True)) == sorted(hostile)


def test_a_row_takes_the_place_of_the_one_that_is_there(make_node: Make) -> None:
    one, other = make_node("one"), make_node("other")
    names, unique = ("prefix", "node", "at", "ms", "jitter_ms", "loss"), ("prefix", "node")
    rows_upsert(PrefixLeg, names, [("198.51.100.0/24", one.pk, AT, 20.0, 1.0, 0.5)], unique=unique)
    news = [("198.51.100.0/24", node.pk, AT, 30.0, 0.0, 0.0) for node in (one, other)]
    rows_upsert(PrefixLeg, names, news, unique=unique)
    assert list(PrefixLeg.objects.order_by("node").values_list("ms", "loss")) == [(30.0, 0.0)] * 2
    rows_upsert(PeerLegs, ("node", "at", "legs"), [(one.pk, AT, {"other": (1.0, 0.0, 0.0, 1.0)})], unique=("node",))
    assert PeerLegs.objects.get().legs == {"other": [1.0, 0.0, 0.0, 1.0]}


def test_many_rows_take_the_place_of_others_and_no_text_is_cut_or_read_as_sql(node: RelayNode) -> None:
    names, unique = ("prefix", "node", "at", "ms", "jitter_ms", "loss", "by_player"), ("prefix", "node")
    hostile = ["%s', NULL); --", "{a,b}", 'c"\\', "", "NULL"]
    texts = [*hostile, *(f"198.51.{n}.0/24" for n in range(1_000))]
    for ms in (20.0, 30.0):
        rows_upsert(
            PrefixLeg, names, ((text, node.pk, AT, ms, 0.0, 0.0, {text: [ms]}) for text in texts), unique=unique
        )
    assert {(leg.prefix, leg.ms, leg.by_player[leg.prefix][0]) for leg in PrefixLeg.objects.all()} == {
        (text, 30.0, 30.0) for text in texts
    }
    rows_upsert(PrefixLeg, names, [], unique=unique)
    if connection.vendor == "postgresql":
        with pytest.raises(DataError), transaction.atomic():
            rows_upsert(PrefixLeg, names, [("x" * 44, node.pk, AT, 1.0, 0.0, 0.0, {})], unique=unique)


def test_only_the_rows_and_columns_named_change(make_node: Make) -> None:
    one, other = make_node("one"), make_node("other")
    rows_update(type(one), ("state", "is_stopping", "last_seen_at"), [(NodeState.LOST, True, AT, one.pk)])
    one.refresh_from_db(), other.refresh_from_db()
    assert (one.state, one.is_stopping, one.last_seen_at, one.name) == (NodeState.LOST, True, AT, "one")
    assert (other.state, other.is_stopping) == (NodeState.READY, False)


@pytest.mark.parametrize("count", [2, COPIED_FROM])
def test_new_objects_are_whole_and_know_their_keys(tenant: Tenant, count: int) -> None:
    keys = [
        ApiKey(tenant=tenant, name=f"{n} b'%s\t\\N", prefix=f"{n:012x}", secret_hash="h", scopes=["relay", f"{n}"])
        for n in range(count)
    ]
    objects_insert(keys)
    assert not any(key._state.adding for key in keys)
    for key in keys:
        stored = ApiKey.objects.get(pk=key.pk)
        assert (stored.name, stored.prefix, stored.scopes) == (key.name, key.prefix, key.scopes)
        assert stored.created_at == key.created_at


def test_a_row_changes_only_when_it_is_as_was_said(make_node: Make) -> None:
    one, other = make_node("one"), make_node("other")
    assert not row_change(RelayNode, {"id": one.pk, "state": NodeState.LOST}, state=NodeState.SUSPECT)
    assert row_change(RelayNode, {"id": one.pk, "state": NodeState.READY}, state=NodeState.LOST, last_seen_at=AT)
    one.refresh_from_db(), other.refresh_from_db()
    assert (one.state, one.last_seen_at, other.state) == (NodeState.LOST, AT, NodeState.READY)
