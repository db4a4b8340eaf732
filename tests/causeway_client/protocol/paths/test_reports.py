"""PATH_REPORT (PROTOCOL.md 12.9)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol import packets
from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.paths.reports import (
    MAX_ENTRIES,
    PathKind,
    PathReason,
    PathReport,
    decode_reports,
    encode_reports,
)
from tests.causeway_client.protocol import standard

numbers = st.integers(0, 2**32 - 1)
entries = st.builds(
    PathReport,
    seat=st.integers(0, 254),
    path=st.sampled_from(PathKind),
    reason=st.sampled_from(PathReason),
    loss=st.integers(0, 255).map(lambda share: share / 255),
    round_trip=numbers,
    relay_round_trip=numbers,
    packets=numbers,
    bytes=numbers,
)
ONE = PathReport(9, PathKind.IPV6, PathReason.BETTER, 0.2, 25_000, 40_000, 100, 20_000)


@given(st.lists(entries, max_size=MAX_ENTRIES))
def test_reports_are_read_as_they_were_written(reports: list[PathReport]) -> None:
    assert decode_reports(encode_reports(reports)) == reports


def test_the_longest_report_fits_in_a_datagram() -> None:
    assert len(encode_reports([ONE] * MAX_ENTRIES)) + packets.OVERHEAD <= packets.MAX_DATAGRAM_BESIDE_EDGEGAP


def test_numbers_and_losses_stay_within_their_fields() -> None:
    extreme = PathReport(9, PathKind.RELAY, PathReason.NONE, 1.5, 2**40, 2**32, 2**33, 2**63)
    (read,) = decode_reports(encode_reports([extreme]))
    assert (read.loss, read.round_trip, read.packets, read.bytes) == (1.0, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    (read,) = decode_reports(encode_reports([PathReport(9, PathKind.RELAY, PathReason.NONE, -1.0, 0, 0, 0, 0)]))
    assert read.loss == 0.0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\1",
        b"\0x",
        encode_reports([ONE])[:-1],
        encode_reports([ONE]) + b"\0",
        b"\2" + encode_reports([ONE])[1:],
        bytes((MAX_ENTRIES + 1,)) + bytes(20 * (MAX_ENTRIES + 1)),
        b"\1\xff" + bytes(19),
        b"\1\0\x05" + bytes(18),
        b"\1\0\0\x09" + bytes(17),
    ],
)
def test_anything_else_is_malformed(body: bytes) -> None:
    with pytest.raises(DecodeError, match="malformed"):
        decode_reports(body)


def test_the_standard_names_the_same_paths_and_reasons() -> None:
    rows = {row[1].split(" u")[0]: row[2] for row in standard.rows(standard.section("12.9"))}

    def stated(name: str) -> dict[int, str]:
        listed = rows[name].rpartition(": ")[2].split(", ")
        return {int(number): text for number, _, text in (item.partition(" ") for item in listed)}

    assert stated("path").keys() == {int(kind) for kind in PathKind}
    assert stated("reason").keys() == {int(reason) for reason in PathReason}
    assert [stated("path")[kind] for kind in PathKind] == ["relay", "local network", "IPv4", "IPv6", "port-mapped"]
    assert stated("reason")[PathReason.ONLY_SMALL_PACKETS] == "only small packets pass"
