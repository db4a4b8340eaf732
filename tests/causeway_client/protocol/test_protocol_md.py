"""PROTOCOL.md and the code say the same: types, codes, offsets, sizes, limits."""

import re
import struct
from pathlib import Path

import pytest

from causeway_client.protocol import handshake, offers, packets, siphash, tokens
from causeway_client.protocol.errors import Refusal
from causeway_client.protocol.packets import NoticeCode, PacketType
from causeway_client.protocol.paths import end_to_end, path, punching, rendezvous
from causeway_client.protocol.replay_window import ReplayWindow
from relaynode.core.counters import DROPS
from relaynode.core.two_relays import offers as node_offers
from tests.causeway_client.protocol import standard


def codes(heading: str, base: int = 10) -> dict[int, str]:
    """{code: name} of the table under a heading."""
    found = {}
    for code, name, *_ in standard.rows(standard.section(heading)):
        digits = code.strip("`")
        if re.fullmatch(r"[0-9A-F]+", digits) and re.fullmatch(r"\w+", name):
            found[int(digits, base)] = name
    return found


def test_packet_types() -> None:
    assert codes("3.", 16) == {int(kind): kind.name for kind in PacketType}


def test_refusals() -> None:
    stated = {code: name for code, name in codes("6.4").items() if name.islower()}
    assert stated == {int(code): code.name.lower() for code in Refusal}


def test_notices() -> None:
    assert codes("7.3") == {int(code): code.name.lower() for code in NoticeCode}


@pytest.mark.parametrize(
    ("heading", "format_"),
    [
        ("6.1", handshake._CONNECT),
        ("6.2", handshake._WELCOME),
        ("6.3", handshake._COOKIE),
        ("6.4", handshake._REFUSED),
        ("14.4", offers._RELAY_CHANGED),
        ("14.6", offers._OFFER),
    ],
)
def test_offsets_of_the_handshake(heading: str, format_: struct.Struct) -> None:
    """Every numbered offset in the table is that of a field in the code's format, and in its order."""
    stated = [int(offset) for offset, *_ in standard.layout(heading) if offset.isdigit()]
    ends = [0]
    for width in re.findall(r"\d*[a-zA-Z]", format_.format.lstrip("<")):
        ends.append(ends[-1] + struct.calcsize("<" + width))
    assert [offset for offset in stated if offset <= format_.size] == ends[: len(stated)]


def test_offsets_of_the_token() -> None:
    rows = standard.layout("5.")
    names = [name for _, name, _, _ in rows]
    outer, inner = rows[: names.index("session")], rows[names.index("session") :]
    assert standard.size_of(outer) == tokens.TOKEN_SIZE
    assert standard.size_of(inner) == tokens._BODY.size
    assert re.search(r"(\d+) bytes:", standard.section("5."))[1] == str(tokens.TOKEN_SIZE)  # type: ignore[index]


@pytest.mark.parametrize(("heading", "format_"), [("14.4", offers._RELAY_CHANGED), ("14.6", offers._OFFER)])
def test_bodies_about_two_relays_end_with_their_tables(heading: str, format_: struct.Struct) -> None:
    assert standard.size_of(standard.layout(heading)) == format_.size


def test_kinds_of_offers_and_reasons_of_changes() -> None:
    for enum, heading, field in ((offers.OfferKind, "14.6", "kind u8"), (offers.ChangeReason, "14.4", "reason u8")):
        (cell,) = [row[2] for row in standard.rows(standard.section(heading)) if row[1] == field]
        stated = {name: int(code) for code, name in re.findall(r"(\d) (\w+)", cell)}
        assert stated == {member.name.lower(): int(member) for member in enum}


@pytest.mark.parametrize("heading", ["6.2", "6.3", "6.4"])
def test_headings_state_the_sum_of_their_fields(heading: str) -> None:
    assert standard.stated_size(heading) == standard.size_of(standard.layout(heading))


def test_the_size_of_a_connect() -> None:
    connect = handshake.Connect(1, bytes(16), bytes(tokens.TOKEN_SIZE)).encode(bytes(32))
    assert standard.stated_size("6.1") == len(connect)
    assert handshake._CONNECT.size + handshake.MAC_SIZE == handshake.MIN_CONNECT


def test_the_header_of_a_connection() -> None:
    stated = {name: offset for offset, name, _, _ in standard.layout("7. Packets")}
    assert stated == {"type": "0", "connection_id": "1", "sequence": "5", "seat": "9", "tag": "n-8"}
    assert packets.HEADER.size == 10
    assert packets.OVERHEAD == 18


def test_ping_body() -> None:
    assert [int(offset) - 10 for offset, *_ in standard.layout("7.2")] == [0, 8, 12]
    assert packets._PING.size == 16


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        (r"No datagram is longer than \*\*([\d,]+) bytes", packets.MAX_DATAGRAM),
        (r"MUST NOT send more than \*\*([\d,]+) bytes", packets.MAX_DATAGRAM_BESIDE_EDGEGAP),
        (r"one window of \*\*([\d,]+) numbers", ReplayWindow.END_TO_END_SIZE),
        (r"more than ([\d,]+) above the highest number authenticated", end_to_end.MAX_UNAUTHENTICATED_LEAD),
        (r"If (\d+) consecutive DATA", end_to_end.TOO_OLD_BEFORE_RESET),
        (
            r"at most (\d+) random ports".replace("(\\d+)", "([\\d,]+)").replace("at most", "up to"),
            punching.MAX_GUESSES,
        ),
        (r"datagrams of at most (\d+) bytes", path.SMALL_DATAGRAM),
        (r"of the candidates, at most (\d+)", rendezvous.MAX_CANDIDATES),
        (r"Seat number \*\*(\d+) means everyone else", packets.EVERYONE),
        (r"Replay window\*\*: ([\d,]+) numbers", ReplayWindow.SIZE),
        (r"game's payload, 0 to ([\d,]+) bytes", packets.MAX_PAYLOAD_BESIDE_EDGEGAP),
        (r"followed by the payload, 0 to ([\d,]+) bytes", packets.MAX_PAYLOAD),
        (r"up to (\d+) bytes of UTF-8 text", packets.MAX_TEXT),
        (r"Body of the challenge: (\d) random bytes", packets.CHALLENGE_SIZE),
        (r"repeats it every 0\.5 s, at most (\d+) times", node_offers.MAX_COPIES),
        (r"milliseconds within which the player changes, at most ([\d,]+)", offers.MAX_DEADLINE),
        (r"Less than (\d+) bytes: drop", packets.MIN_PROBE),
        (r"at least (\d+) bytes \| drop", handshake.MIN_CONNECT),
    ],
)
def test_numbers(statement: str, value: int) -> None:
    found = re.search(statement, " ".join(standard.TEXT.split()))
    assert found, statement
    assert int(found[1].replace(",", "")) == value


def test_the_tag_is_siphash_2_4() -> None:
    assert "SipHash-2-4 with 64-bit output" in standard.section("4.")
    assert len(siphash.siphash24(bytes(16), b"")) == packets.TAG_SIZE


def test_drops_that_the_standard_names_are_counted_by_the_node_or_the_player() -> None:
    text = " ".join(standard.TEXT.split())
    named = re.findall(r"\((?:[\d.]+, )?`([a-z_]+)`(?:, [\d.]+)?\)|[Dd]rop `([a-z_]+)`", text)
    names = {first or second for first, second in named}
    assert {"too_short", "bad_tag", "replayed", "not_allowed", "peer_absent", "replayed_connect"} <= names
    of_players = {"unknown_pair", "stale_round", "stale_nonce"}
    assert of_players <= names <= set(DROPS) | of_players
    machines = "".join(file.read_text() for file in Path(path.__file__).parent.glob("*.py"))
    assert all(f'DecodeError("{name}")' in machines for name in of_players)
