"""A telemetry document is a Report or a ValueError, whatever is in it."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymgr.telemetry.probing.reports import MAX_BIG, MAX_COUNT, CheckedEvent, CheckedLeg, CheckedPath, parse_report
from tests.relaymgr.telemetry.documents import telemetry


def test_document_of_node_api_md_is_read() -> None:
    report = parse_report(telemetry())
    assert (report.boot_id, report.time, report.cpu, report.draining) == ("6f1c", 1795257600.0, 0.07, False)
    assert (report.sessions, report.seats, report.connected) == (12, 48, 40)
    assert report.counters == {"forwarded_packets": 120311, "forwarded_bytes": 9, "drop_bad_tag": 0}
    assert report.legs == [CheckedLeg("3960c873aafd-S", 1, "198.51.100.0/24", 21.3, 0.8, 0.0, "9f2c4a10", "native")]
    assert report.events == [CheckedEvent(8, 1795257590.2, "3960c873aafd-S", 1, "seat_joined", "native", "")]
    assert report.last_event == 8
    assert report.paths == [CheckedPath("3960c873aafd-S", 1, 0, "ipv4", "better", 18.2, 41.0, 0.0, 600, 90_000)]


def test_workers_add_up() -> None:
    document = telemetry()
    document["workers"] = document["workers"] * 3
    report = parse_report(document)
    assert (report.sessions, report.counters["forwarded_packets"]) == (36, 360933)


def test_sums_stay_within_their_columns() -> None:
    document = telemetry()
    document["workers"][0] |= {"seats": MAX_COUNT, "counters": {"forwarded_bytes": MAX_BIG}}
    document["workers"] = document["workers"] * 2
    report = parse_report(document)
    assert (report.seats, report.counters["forwarded_bytes"]) == (MAX_COUNT, MAX_BIG)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["boot_id"], None),
        (["boot_id"], ""),
        (["boot_id"], 5),
        (["time"], "now"),
        (["time"], float("nan")),
        (["time"], -1),
        (["cpu"], float("inf")),
        (["cpu"], True),
        (["version"], 5),
        (["workers"], {}),
        (["workers"], [5]),
        (["workers"], [{}] * 257),
        (["workers", 0, "seats"], -1),
        (["workers", 0, "seats"], 2**31),
        (["workers", 0, "seats"], 1.5),
        (["workers", 0, "sessions"], True),
        (["workers", 0, "counters"], None),
        (["workers", 0, "counters"], {str(n): 1 for n in range(201)}),
        (["workers", 0, "counters", "drop_bad_tag"], -1),
        (["workers", 0, "counters", "drop_bad_tag"], 2**63),
        (["legs"], None),
        (["legs"], [{}] * 2001),
        (["events"], "x"),
        (["events"], [{}] * 10001),
        (["last_event"], None),
        (["last_event"], 2**63),
    ],
)
def test_wrong_frame_is_refused_whole(path: list[Any], value: Any) -> None:
    document = telemetry()
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(ValueError):
        parse_report(document)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("session", "x"),
        ("session", None),
        ("session", "3960c873aafd-S\n"),
        ("seat", 255),
        ("seat", -1),
        ("seat", "1"),
        ("rtt_ms", -1),
        ("rtt_ms", 1e7),
        ("loss", 1.1),
        ("loss", float("nan")),
        ("jitter_ms", None),
    ],
)
def test_wrong_leg_is_left_out(name: str, value: Any) -> None:
    document = telemetry()
    document["legs"].append(document["legs"][0] | {name: value})
    document["legs"].append("rubbish")
    assert len(parse_report(document).legs) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("session", "../../etc"),
        ("seat", 255),
        ("peer", -1),
        ("peer", 1),  # the seat itself
        ("path", "tunnel"),
        ("path", None),
        ("reason", 5),
        ("rtt_ms", -1),
        ("relay_rtt_ms", float("inf")),
        ("loss", 2),
        ("packets", 2**31),
        ("bytes", -1),
    ],
)
def test_wrong_path_is_left_out(name: str, value: Any) -> None:
    document = telemetry()
    document["paths"].append(document["paths"][0] | {name: value})
    document["paths"].append(None)
    assert len(parse_report(document).paths) == 1


def test_reason_of_a_later_version_is_none() -> None:
    document = telemetry()
    document["paths"][0]["reason"] = "cosmic_rays"
    assert parse_report(document).paths[0].reason == "none"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("number", -1),
        ("number", 2**63),
        ("number", "8"),
        ("at", 1e20),
        ("at", float("nan")),
        ("session", "../../etc"),
        ("seat", 255),
        ("kind", ""),
        ("kind", "Seat Joined"),
        ("kind", "x" * 41),
        ("dialect", 5),
        ("reason", {}),
    ],
)
def test_wrong_event_is_left_out(name: str, value: Any) -> None:
    document = telemetry()
    document["events"].append(document["events"][0] | {name: value})
    document["events"].append(None)
    assert len(parse_report(document).events) == 1


def test_event_of_a_whole_session_has_no_seat() -> None:
    document = telemetry()
    document["events"][0] |= {"seat": None, "kind": "session_ended", "reason": "idle"}
    assert parse_report(document).events[0].seat is None


def test_texts_are_cut_and_cleaned() -> None:
    report = parse_report(telemetry() | {"packet_path_reason": "a\0b\ud800\n" + "x" * 1000, "version": None})
    assert report.packet_path_reason == "ab" + "x" * 198
    assert report.version == ""


def test_unknown_fields_are_ignored() -> None:
    assert parse_report(telemetry() | {"new": {"a": 1}}) == parse_report(telemetry())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
PLACES = [(), ("workers", 0), ("workers", 0, "counters"), ("legs", 0), ("paths", 0), ("events", 0)]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), st.data(), JSON)
def test_whatever_comes_is_a_report_or_a_value_error(place: tuple[Any, ...], data: Any, value: Any) -> None:
    document = copy.deepcopy(telemetry())
    inner: Any = document
    for step in place:
        inner = inner[step]
    inner[data.draw(st.sampled_from(sorted(inner)) | st.text(max_size=5))] = value
    try:
        report = parse_report(document)
    except ValueError:
        return
    assert 0 <= report.sessions <= MAX_COUNT and 0 <= report.last_event <= MAX_BIG
