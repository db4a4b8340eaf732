"""docs/implementing.md: its bytes are what our player and node write, its tables those of the code and the vectors."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from causeway_client import edgegap
from causeway_client.protocol import connection, handshake, joining, packets, proofs
from causeway_client.protocol.connection import RelayConnection, State
from causeway_client.protocol.errors import Refusal
from causeway_client.protocol.events import Joined, Welcomed
from causeway_client.protocol.packets import NoticeCode, PacketType
from causeway_client.protocol.probing import Measurement, Prober
from causeway_client.protocol.relays import relay_leg
from causeway_client.protocol.replay_window import ReplayWindow
from causeway_client.protocol.tokens import TOKEN_SIZE
from relaynode.core.counters import DROPS
from relaynode.core.relay_config import RelayConfig
from tests.docs import pages

PAGE = pages.DOCS / "implementing.md"
BLOCKS = pages.titled(PAGE)
NODE = ("192.0.2.1", 31000)
VECTORS = Path(__file__).parents[2] / "transports/protocol/vectors"
NATIVE: dict[str, Any] = json.loads((VECTORS / "native.json").read_text())
EDGEGAP: dict[str, Any] = json.loads((VECTORS / "edgegap.json").read_text())
KEYS = {name: bytes.fromhex(value) for name, value in NATIVE["keys"].items()}
TOKEN_KEY = bytes.fromhex(NATIVE["token"]["key"])
PROBES = {"PROBE", "PROBE_REPLY"}


def exchange(*, probes: bool) -> list[tuple[str, str, bytes]]:
    """(who, what, bytes) of the blocks "player: ..." and "node: ...", in order: those of probes, or all others."""
    titles = [(*title.partition(": ")[::2], text) for title, text in BLOCKS]
    return [
        (who, what, pages.octets(text))
        for who, what, text in titles
        if who in ("player", "node") and (what in PROBES) is probes
    ]


# -- bytes


def our_player() -> RelayConnection:
    """With what the vectors give it."""
    return RelayConnection(
        NODE,
        connect_token=bytes.fromhex(NATIVE["token"]["hex"]),
        seat_key=KEYS["seat_key"],
        wall_clock=lambda: 1795257600123456,
        random=lambda size: KEYS["player_nonce"][:size],
    )


def test_the_python_client_sends_the_bytes_of_the_page() -> None:
    player = our_player()
    acts: dict[str, Callable[[], object]] = {
        "CONNECT": lambda: player.connect(1.0),
        "DATA": lambda: player.send(0, b"hello host", 1.1),
        "CLOSE": lambda: player.close(2.0, 128, "bye"),
    }
    payloads, waiting = [], []
    for who, what, data in exchange(probes=False):
        assert packets.PacketType(data[0]).name == what
        if who == "node":
            payloads.append(player.receive_datagram(data, NODE, 1.03))
        elif what in acts:
            acts[what]()
        waiting += [sent for sent, _ in player.datagrams_to_send(1.1)]
        if who == "player":
            assert waiting.pop(0) == data, what
    copies = [data for data in waiting if data[0] == PacketType.CLOSE]
    assert waiting == copies and len(copies) == relay_leg.CLOSE_COPIES - 1
    assert not player.dropped
    assert [found for found in payloads if found] == [(0, b"hello player")]
    events = list(iter(player.next_event, None))
    assert Joined(9) in events
    welcomed = next(event for event in events if isinstance(event, Welcomed))
    assert (welcomed.seat, welcomed.address) == (5, ("203.0.113.9", 40001))
    assert welcomed.peers == {0, 9, 254}


def test_the_measurement_and_its_proof_are_those_of_the_page() -> None:
    (_, _, first), (_, _, reply), (_, _, second), (_, _, signed) = exchange(probes=True)
    prober = Prober(NODE, random=lambda size: KEYS["player_nonce"][:size], count=1)
    prober.start(0.0)
    assert [sent for sent, _ in prober.datagrams_to_send(0.0)] == [first]
    prober.receive_datagram(reply, NODE, 0.02)
    assert [sent for sent, _ in prober.datagrams_to_send(0.02)] == [second]
    prober.receive_datagram(signed, NODE, 0.04)
    measured = prober.next_event()
    assert isinstance(measured, Measurement)
    stated = dict(BLOCKS)["proof"].strip()
    assert base64.urlsafe_b64encode(measured.proof).decode() == stated
    proof, key = proofs.decode_proof(base64.urlsafe_b64decode(stated)), proofs.proof_key(TOKEN_KEY)
    assert proof.is_signed_by(key) and proof.round_trip == 18_250
    shown = packets.decode_probe(second)
    assert proofs.is_answer(shown.nonce, shown.time, proof.address, shown.proof, [(NATIVE["token"]["key_id"], key)])


def test_keys() -> None:
    stated = dict(re.split(r"\s{2,}", line) for line in dict(BLOCKS)["keys"].splitlines())
    assert {name.replace(" ", "_"): bytes.fromhex(value) for name, value in stated.items()} == KEYS
    derived = packets.packet_keys(KEYS["seat_key"], KEYS["player_nonce"], KEYS["node_nonce"])
    assert derived == (KEYS["up_key"], KEYS["down_key"])


def test_edgegap() -> None:
    stated = {title.partition(": ")[2]: pages.octets(text) for title, text in BLOCKS if title.startswith("edgegap")}
    assert stated.items() <= {packet["name"]: bytes.fromhex(packet["hex"]) for packet in EDGEGAP["packets"]}.items()
    client = edgegap.ClientMachine(NODE, user_token=4000000001, session_token=3500589645)
    client.connect(0.0)
    client.send(0, b"hello", 0.0)
    sent = [data for data, _ in client.datagrams_to_send(0.0)]
    assert sent == [stated["client ping"], stated["client data"]]
    assert client.receive_datagram(stated["ping reply: valid"], NODE, 0.0) is None
    assert client.state is edgegap.EdgegapState.VALID
    assert client.receive_datagram(stated["data to the client"], NODE, 0.0) == (0, b"welcome")
    host = edgegap.HostMachine(NODE, user_token=21986334, session_token=3500589645)
    assert host.receive_datagram(stated["data to the host"], NODE, 0.0) == (305419898, b"hello")
    host.send(305419898, b"welcome", 0.0)
    assert [data for data, _ in host.datagrams_to_send(0.0)] == [stated["host data"]]


def test_a_turned_bit_ends_in_a_drop() -> None:
    """What the checklist asks of a plugin."""
    without_mac = {"COOKIE", "REFUSED", "PROBE_REPLY", "PROBE_REFUSED"}
    down = [packet for packet in NATIVE["packets"] if packet["direction"] == "down"]
    welcome = next(bytes.fromhex(packet["hex"]) for packet in down if packet["type"] == "WELCOME")
    for packet in down:
        if packet["type"] in without_mac:
            continue
        for index in range(1, len(packet["hex"]) // 2):
            player = our_player()
            player.connect(1.0)
            if packet["type"] != "WELCOME":
                player.receive_datagram(welcome, NODE, 1.0)
            before = player.state
            player.datagrams_to_send(1.0)
            list(iter(player.next_event, None))
            data = bytearray.fromhex(packet["hex"])
            data[index] ^= 1 << index % 8
            assert player.receive_datagram(bytes(data), NODE, 1.0) is None
            assert (player.dropped.total(), player.state) == (1, before)
            assert not player.datagrams_to_send(1.0) and player.next_event() is None


# -- tables


def names(after: str) -> set[str]:
    return {word for row in pages.table(PAGE, after=after) for word in pages.words(row[0])}


def test_refusals_and_notices() -> None:
    assert names("## What ends a connection") == {refusal.name.lower() for refusal in Refusal}
    assert names("| `draining` | ends;") == {notice.name.lower() for notice in NoticeCode}


def test_reasons_of_the_node() -> None:
    assert names("## When the node does not answer") == set(DROPS)


def test_reasons_of_a_player() -> None:
    stated = {word for row in pages.table(PAGE, after="**Receiving.**") for word in pages.words(row[1])}
    stated |= {"unsupported_version", "bad_mac", "unknown_nonce"}
    sources = [Path(module.__file__).read_text() for module in (packets, handshake, joining, connection, relay_leg)]  # type: ignore[arg-type]
    sources.append((Path(connection.__file__).parent / "leg.py").read_text())
    assert stated == set(re.findall(r'DecodeError\("(\w+)"\)', "".join(sources)))


def test_states() -> None:
    stated = {(row[0], row[2]) for row in pages.table(PAGE, after="## States")}
    ours = {(before.value, after.value) for (before, _), after in connection.TRANSITIONS.items()}
    assert stated == ours - {(State.IDLE.value, State.CLOSED.value)}  # closed before it was opened


def test_timers() -> None:
    stated = [row[1] for row in pages.table(PAGE, after="## Timers")]
    node = RelayConfig()
    *repeats, last = joining.REPEAT_AFTER
    player = our_player()
    assert stated[0] == ", ".join(f"{wait:g}" for wait in repeats)
    assert f"after another {last:g} s" in PAGE.read_text()
    assert stated[2:4] == [f"{player._timeouts[state]:g}" for state in (State.JOINING, State.RECONNECTING)]
    assert f"keep-alive, {node.keep_alive_ms / 1000:g} by default; at least {handshake.MIN_KEEP_ALIVE:g}" in stated[4]
    assert stated[5].startswith(f"{relay_leg.SILENT_KEEP_ALIVES} keep-alives")
    assert f"timeout, {node.timeout:g} by default" in stated[6]


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        (r"accept any length up to ([\d,]+)", connection.MAX_TOKEN),
        (r"A payload is at most ([\d,]+) bytes", packets.MAX_PAYLOAD),
        (r"`max payload` is ([\d,]+)\.", packets.MAX_PAYLOAD_BESIDE_EDGEGAP),
        (r"The token has (\d+) bytes", TOKEN_SIZE),
        (r"one window of ([\d,]+) numbers", ReplayWindow.END_TO_END_SIZE),
        (r"the overhead is (\d+) bytes", packets.OVERHEAD),
        (r"receive up to ([\d,]+)\.", packets.MAX_DATAGRAM),
        (r"at most ([\d,]+) below and not marked", ReplayWindow.SIZE - 1),
        (r"payloads up to ([\d,]+), which", edgegap.MAX_PAYLOAD),
        (r"every other one of ([\d,]+) bytes", 1000),
    ],
)
def test_numbers(statement: str, value: int) -> None:
    found = re.search(statement, " ".join(PAGE.read_text().split()))
    assert found, statement
    assert int(found[1].replace(",", "")) == value


def test_states_of_edgegap() -> None:
    rows = pages.table(PAGE, after="ping reply: valid")
    ours = {state.name.replace("_", "").lower(): int(state) for state in edgegap.EdgegapState if state}
    assert {row[1].lower(): int(row[0]) for row in rows} == ours
    assert f"every {edgegap.PING_INTERVAL:g} s" in PAGE.read_text()


def test_the_checklist_names_every_vector() -> None:
    stated = {word for row in pages.table(PAGE, after="## Checklist") for word in pages.words(row[1])}
    parts = {"siphash", "keys", "packets", "pair", "offer", "replay"}
    assert parts <= set(NATIVE)
    assert stated - parts - {"refused"} == {packet["name"] for packet in NATIVE["packets"] + EDGEGAP["packets"]}
