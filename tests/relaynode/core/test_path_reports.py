"""Reports of players about their paths, until the manager reads them."""

import os

import pytest

from causeway_client.protocol.paths.reports import PathKind, PathReason, PathReport
from nodeapi.telemetry import MAX_COUNT, PATH_REASONS, PATHS
from relaynode.core import path_reports
from relaynode.core.counters import Counters
from relaynode.core.path_reports import PathReports
from relaynode.core.seat_table import SeatTable
from relaynode.core.seats import Session
from tests.relaynode.players import NOW, grant_of


@pytest.fixture
def session() -> Session:
    return SeatTable(os.urandom).put_session(grant_of(4), NOW)


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def waiting(counters: Counters) -> PathReports:
    return PathReports(counters)


def report(peer: int, kind: PathKind = PathKind.IPV4, packets: int = 1, bytes_: int = 100) -> PathReport:
    return PathReport(peer, kind, PathReason.BETTER, 0.0, 0, 0, packets, bytes_)


def test_every_path_and_reason_of_the_protocol_has_its_name() -> None:
    assert tuple(kind.name.lower() for kind in PathKind) == PATHS
    assert tuple(reason.name.lower() for reason in PathReason) == PATH_REASONS


def test_the_last_report_about_a_pair_holds_and_its_packets_add_up(session: Session, waiting: PathReports) -> None:
    waiting.add(session.seats[1], [report(0, PathKind.RELAY), report(2)])
    waiting.add(session.seats[1], [report(0, PathKind.IPV6, packets=5)])
    found = {(it.seat, it.peer): (it.path, it.packets, it.bytes) for it in waiting.take(10)}
    assert found == {(1, 0): ("ipv6", 6, 200), (1, 2): ("ipv4", 1, 100)}
    waiting.add(session.seats[1], [report(0)])
    assert [it.packets for it in waiting.take(10)] == [1]


def test_packets_on_direct_paths_are_counted(session: Session, waiting: PathReports, counters: Counters) -> None:
    waiting.add(session.seats[1], [report(0, packets=5), report(77, packets=9)])
    waiting.add(session.seats[2], [report(0, packets=2)])
    assert (counters.as_dict()["direct_packets"], counters.as_dict()["direct_bytes"]) == (7, 200)


def test_sums_stay_within_what_the_manager_reads(session: Session, waiting: PathReports) -> None:
    for _ in range(3):
        waiting.add(session.seats[1], [report(0, packets=2**32 - 1, bytes_=2**32 - 1)])
    (quality,) = waiting.take(1)
    assert (quality.packets, quality.bytes) == (MAX_COUNT, MAX_COUNT)


def test_a_round_trip_of_zero_was_not_measured(session: Session, waiting: PathReports) -> None:
    waiting.add(session.seats[1], [report(0)])
    (quality,) = waiting.take(1)
    assert quality.rtt_ms is quality.relay_rtt_ms is None


def test_the_pair_whose_report_has_waited_longest_is_given_first(session: Session, waiting: PathReports) -> None:
    for peer in (0, 2, 3, 0):
        waiting.add(session.seats[1], [report(peer)])
    assert [it.peer for it in waiting.take(2)] == [2, 3]
    assert [it.peer for it in waiting.take(2)] == [0]


def test_the_oldest_reports_make_room(session: Session, waiting: PathReports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_reports, "MAX_WAITING", 3)
    for seat in range(4):
        waiting.add(session.seats[seat], [report(peer) for peer in range(4)])
    assert [(it.seat, it.peer) for it in waiting.take(100)] == [(3, 0), (3, 1), (3, 2)]
