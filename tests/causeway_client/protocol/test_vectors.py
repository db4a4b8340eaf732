"""transports/protocol/vectors/native.json, from two sides: our code, and a checker that knows PROTOCOL.md only."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from causeway_client.protocol import handshake, offers, packets, siphash, tokens
from causeway_client.protocol.packets import PacketType
from causeway_client.protocol.paths import pair_secrets, rendezvous, reports
from causeway_client.protocol.replay_window import ReplayWindow
from tests.causeway_client.protocol import standard

VECTORS = json.loads((Path(__file__).parents[3] / "transports/protocol/vectors" / "native.json").read_text())
KEYS = {name: bytes.fromhex(value) for name, value in VECTORS["keys"].items()}
TOKEN = VECTORS["token"]

HANDSHAKE = {"CONNECT": "6.1", "WELCOME": "6.2", "COOKIE": "6.3", "REFUSED": "6.4"}
CONNECTION = (
    *("DATA", "PING", "PONG", "NOTICE", "SIGNAL", "CLOSE", "PATH_CHALLENGE", "PATH_RESPONSE"),
    *("RENDEZVOUS", "PEER", "PATH_REPORT", "OFFER", "OFFER_ACK", "RELAY_CHANGED"),
)
TWO_RELAYS = ("OFFER", "OFFER_ACK", "RELAY_CHANGED")
PAIR = ("DIRECT_DATA", "DIRECT_PING", "DIRECT_PONG", "DIRECT_CLOSE")

each_packet = pytest.mark.parametrize("vector", VECTORS["packets"], ids=lambda vector: vector["name"])


def test_every_packet_type_has_a_vector() -> None:
    assert {vector["type"] for vector in VECTORS["packets"]} == {kind.name for kind in PacketType}


# -- by the document alone


@each_packet
def test_the_standard_reads_it(vector: dict[str, Any]) -> None:
    data, fields = bytes.fromhex(vector["hex"]), vector["fields"]
    if vector["type"] in HANDSHAKE:
        read = standard.decode(data, standard.layout(HANDSHAKE[vector["type"]]))
        assert fields.items() <= read.items()
    elif vector["type"] in (*CONNECTION, *PAIR):
        read = standard.decode(data, standard.layout("7. Packets"))
        assert (read["type"], read["connection_id"], read["seat"]) == (
            fields["type"],
            fields["connection_id"],
            fields["seat"],
        )
        assert read["sequence"] == fields["sequence"] & 0xFFFFFFFF
        assert data[10:-8].hex() == fields["body"]
        if vector["type"] in TWO_RELAYS:
            assert standard.decode(data[10:-8], two_relays_layout(vector["type"])).items() <= fields.items()
    elif vector["type"] == "PROBE_REFUSED":
        assert standard.decode(data, standard.layout("11.2")) == fields
    else:
        column = 1 if vector["type"] == "PROBE" else 2
        read = standard.decode(data, standard.layout("11.", column))
        assert fields.items() <= read.items()


def two_relays_layout(kind: str) -> list[tuple[str, str, str, bool]]:
    """Of the body. 14.6 describes an OFFER_ACK in a sentence."""
    if kind == "OFFER_ACK":
        return [("0", "id", "4", True), ("4", "status", "1", True)]
    return standard.layout("14.6" if kind == "OFFER" else "14.4")


@each_packet
def test_the_standard_authenticates_it(vector: dict[str, Any]) -> None:
    data, kind = bytes.fromhex(vector["hex"]), vector["type"]
    if kind in ("CONNECT", "WELCOME"):
        assert standard.mac(KEYS["seat_key"], data[:-16]) == data[-16:]
    elif kind in CONNECTION:
        key = standard.packet_key(
            vector["direction"], KEYS["seat_key"], bytes.fromhex(VECTORS["keys"]["player_nonce"]), KEYS["node_nonce"]
        )
        assert key == KEYS[vector["direction"] + "_key"]
        assert standard.tag(key, data, vector["fields"]["sequence"]) == data[-8:]
    elif kind in PAIR:
        assert standard.tag(pair_key(vector), data, vector["fields"]["sequence"]) == data[-8:]


def pair_key(vector: dict[str, Any]) -> bytes:
    """By the standard, from the pair secret."""
    own, peer = VECTORS["pair"]["seat"], VECTORS["pair"]["peer"]
    nonces = bytes.fromhex(VECTORS["pair"]["nonce"] + VECTORS["pair"]["peer_nonce"])
    seats = (own, peer) if vector["direction"] == "pair" else (peer, own)
    key = standard.direct_key(bytes.fromhex(VECTORS["pair"]["pair_secret"]), *seats, nonces)
    assert key.hex() == VECTORS["pair"]["key" if vector["direction"] == "pair" else "peer_key"]
    return key


def test_the_standard_derives_the_pair_secrets() -> None:
    """From the own peer key for a higher seat; for a lower one, the manager has derived it."""
    pair = VECTORS["pair"]
    keys = bytes.fromhex(pair["peer_keys"])
    assert len(keys) == 32 + 16 * pair["seat"]
    assert standard.pair_secret(keys[:32], pair["peer"]).hex() == pair["pair_secret"]
    assert keys[32 + 2 * 16 : 32 + 3 * 16].hex() == pair["secret_with_seat_2"]


@pytest.mark.parametrize(
    "vector", [it for it in VECTORS["packets"] if it["type"] == "RENDEZVOUS"], ids=lambda it: it["name"]
)
def test_the_standard_authenticates_a_rendezvous(vector: dict[str, Any]) -> None:
    body = bytes.fromhex(vector["fields"]["body"])
    own, peer = VECTORS["pair"]["seat"], VECTORS["pair"]["peer"]
    seats = (own, peer) if vector["direction"] == "up" else (peer, own)
    end = standard.end_of_rendezvous(body)
    secret = bytes.fromhex(VECTORS["pair"]["pair_secret"])
    assert standard.rendezvous_tag(secret, *seats, body[: end - 8]) == body[end - 8 : end]
    assert (end == len(body)) == (vector["direction"] == "up")


def test_the_standard_derives_the_seat_key_of_an_offered_token() -> None:
    offer = {name: bytes.fromhex(value) for name, value in VECTORS["offer"].items()}
    assert standard.offered_seat_key(offer["offer_key"], offer["token"]) == offer["seat_key"]
    assert offers.offered_seat_key(offer["offer_key"], offer["token"]) == offer["seat_key"]


def test_the_standard_reads_the_token() -> None:
    sealed = bytes.fromhex(TOKEN["hex"])
    assert len(sealed) == 120
    head = standard.decode(sealed, [row for row in standard.layout("5.") if row[1] in ("version", "key_id", "nonce")])
    assert (head["version"], head["key_id"], head["nonce"]) == (1, TOKEN["key_id"], TOKEN["nonce"])
    plain = AESGCM(bytes.fromhex(TOKEN["key"])).decrypt(sealed[5:17], sealed[17:], sealed[:5])
    assert plain.hex() == TOKEN["plaintext"]
    rows = standard.layout("5.")
    body = rows[[name for _, name, _, _ in rows].index("session") :]
    assert standard.decode(plain, body) == TOKEN["fields"]


# -- by our code


def test_keys_are_derived() -> None:
    derived = packets.packet_keys(KEYS["seat_key"], KEYS["player_nonce"], KEYS["node_nonce"])
    assert derived == (KEYS["up_key"], KEYS["down_key"])


@pytest.mark.parametrize("vector", VECTORS["siphash"], ids=lambda vector: len(vector["message"]) // 2)
@pytest.mark.parametrize("function", [siphash.siphash24, siphash.siphash24_pure])
def test_siphash(vector: dict[str, str], function: Any) -> None:
    assert function(bytes.fromhex(vector["key"]), bytes.fromhex(vector["message"])).hex() == vector["tag"]


def test_a_token_is_sealed_with_the_nonce_of_the_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = dict(TOKEN["fields"])
    flags, session = fields.pop("flags"), fields.pop("session") + "-S"
    seat_key = bytes.fromhex(fields.pop("seat_key"))
    token = tokens.ConnectToken(
        session=session,
        mesh=bool(flags & 1),
        admits_edgegap=bool(flags & 2),
        direct_mode=packets.DirectMode(flags >> 2 & 3),
        is_standby=bool(flags & 16),
        seat_key=seat_key,
        **fields,
    )
    key = bytes.fromhex(TOKEN["key"])
    assert tokens.open_token(bytes.fromhex(TOKEN["hex"]), {TOKEN["key_id"]: AESGCM(key)}) == token
    monkeypatch.setattr("causeway_client.protocol.tokens.os.urandom", lambda size: bytes.fromhex(TOKEN["nonce"])[:size])
    assert tokens.seal_token(token, TOKEN["key_id"], key).hex() == TOKEN["hex"]


@each_packet
def test_our_code_writes_it(vector: dict[str, Any]) -> None:
    assert encoded(vector["type"], vector["direction"], vector["fields"]).hex() == vector["hex"]


def encoded(kind: str, direction: str, fields: dict[str, Any]) -> bytes:
    data = {name: bytes.fromhex(value) for name, value in fields.items() if isinstance(value, str)}
    if kind == "CONNECT":
        connect = handshake.Connect(fields["timestamp"], data["player_nonce"], data["token"], data["cookie"])
        return connect.encode(KEYS["seat_key"])
    if kind == "WELCOME":
        return welcome_of(fields, data).encode(KEYS["seat_key"])
    if kind == "COOKIE":
        return handshake.Cookie(data["player_nonce"], data["cookie"]).encode()
    if kind == "REFUSED":
        return handshake.Refused(data["player_nonce"], fields["code"], fields["detail"]).encode()
    if kind == "PROBE":
        return packets.Probe(data["nonce"]).encode()
    if kind == "PROBE_REPLY":
        return packets.ProbeReply(data["nonce"], fields["time"]).encode()
    if kind == "PROBE_REFUSED":
        return packets.ProbeRefused(data["nonce"], fields["wait"]).encode()
    if kind in PAIR:
        key = bytes.fromhex(VECTORS["pair"]["key" if direction == "pair" else "peer_key"])
    else:
        key = KEYS[direction + "_key"]
    return packets.seal(key, fields["type"], fields["connection_id"], fields["sequence"], fields["seat"], data["body"])


def welcome_of(fields: dict[str, Any], data: dict[str, bytes]) -> handshake.Welcome:
    flags = fields["flags"]
    return handshake.Welcome(
        player_nonce=data["player_nonce"],
        node_nonce=data["node_nonce"],
        connection=fields["connection_id"],
        seat=fields["seat"],
        mesh=bool(flags & 1),
        ip=packets.unpack_ip(data["address"]),
        port=fields["port"],
        keep_alive_ms=fields["keep_alive"],
        timeout_ms=fields["timeout"],
        packets_per_second=fields["seat_packets"],
        bytes_per_second=fields["seat_bytes"],
        max_payload=fields["max_payload"],
        roster=packets.unpack_seats(data["roster"]),
        is_sequenced=bool(flags & 2),
        direct_mode=packets.DirectMode(flags >> 2 & 3),
        is_standby=bool(flags & 16),
        epoch=fields["epoch"],
        roster_generation=fields["roster_generation"],
        expires=fields["session_expires"],
        direct_grace=fields["direct_grace"],
        second_port=fields["second_port"],
    )


@each_packet
def test_our_code_reads_it(vector: dict[str, Any]) -> None:
    data, fields, kind = bytes.fromhex(vector["hex"]), vector["fields"], vector["type"]
    if kind == "CONNECT":
        connect = handshake.decode_connect(data)
        assert (connect.timestamp, connect.token.hex()) == (fields["timestamp"], fields["token"])
        assert handshake.is_connect_mac_valid(data, connect, KEYS["seat_key"])
    elif kind == "WELCOME":
        welcome = handshake.decode_welcome(data, KEYS["seat_key"])
        assert welcome.encode(KEYS["seat_key"]) == data
    elif kind == "COOKIE":
        assert handshake.decode_cookie(data).encode() == data
    elif kind == "REFUSED":
        assert handshake.decode_refused(data).encode() == data
    elif kind == "PROBE":
        assert packets.decode_probe(data).encode() == data
    elif kind == "PROBE_REFUSED":
        assert packets.decode_probe_refused(data).encode() == data
    elif kind == "PROBE_REPLY":
        assert packets.decode_probe_reply(data).encode() == data
    else:
        key = pair_key(vector) if kind in PAIR else KEYS[vector["direction"] + "_key"]
        assert packets.is_tag_valid(key, data, fields["sequence"])
        read_body(kind, data[10:-8], fields)


def read_body(kind: str, body: bytes, fields: dict[str, Any]) -> None:
    if kind in ("PING", "PONG"):
        ping = packets.decode_ping(body)
        assert (ping.nonce.hex(), ping.received, ping.generation) == (
            fields["nonce"],
            fields["received"],
            fields["roster_generation"],
        )
    elif kind == "NOTICE":
        notice = packets.decode_notice(body)
        assert (notice.code, notice.encode()) == (fields["code"], body)
    elif kind == "CLOSE":
        close = packets.decode_close(body)
        assert (close.code, close.encode()) == (fields["code"], body)
    elif kind == "RENDEZVOUS":
        read_rendezvous(body, fields)
    elif kind == "PATH_REPORT":
        assert reports.encode_reports(reports.decode_reports(body)) == body
    elif kind == "OFFER":
        offer = offers.decode_offer(body)
        assert (offer.id, offer.kind, offer.deadline, offer.port, offer.token.hex(), offer.encode()) == (
            *(fields[name] for name in ("id", "kind", "deadline", "port", "token")),
            body,
        )
    elif kind == "OFFER_ACK":
        ack = offers.decode_offer_ack(body)
        assert (ack.id, ack.is_accepted, ack.encode()) == (fields["id"], not fields["status"], body)
    elif kind == "RELAY_CHANGED":
        change = offers.decode_relay_changed(body)
        assert (change.number, change.reason, change.gap, change.encode()) == (
            *(fields[name] for name in ("number", "reason", "gap")),
            body,
        )


def read_rendezvous(body: bytes, fields: dict[str, Any]) -> None:
    own, peer = VECTORS["pair"]["seat"], VECTORS["pair"]["peer"]
    secret = bytes.fromhex(VECTORS["pair"]["pair_secret"])
    observed = [tuple(it) for it in fields.get("observed", [])]
    seats = (peer, own) if observed else (own, peer)
    made = rendezvous.Rendezvous(
        round=fields["round"],
        acknowledged=fields["acknowledged"],
        sequence=fields["end_to_end"],
        nonce=bytes.fromhex(fields["nonce"]),
        nat_class=rendezvous.NatClass(fields["nat_class"]),
        port_step=fields["port_step"],
        candidates=tuple(
            rendezvous.Candidate(rendezvous.CandidateKind(kind), ip, port) for kind, ip, port in fields["candidates"]
        ),
        certificate=bytes.fromhex(fields["certificate"]),
    )
    sent = made.encode(secret, *seats)
    assert body == sent + (rendezvous.pack_observed(observed) if observed else b"")
    assert rendezvous.end_of(body) == len(sent)
    as_received = body if observed else body + rendezvous.pack_observed([])
    assert rendezvous.decode_rendezvous(as_received, secret, *seats) == (made, observed)


def test_pair_secrets_and_keys() -> None:
    pair = VECTORS["pair"]
    keys = pair_secrets.unpack_peer_keys(bytes.fromhex(pair["peer_keys"]))
    assert keys.seat == pair["seat"]
    assert keys.secret(pair["peer"]).hex() == pair["pair_secret"]
    assert keys.secret(2).hex() == pair["secret_with_seat_2"]


def test_replay() -> None:
    window = ReplayWindow()
    assert VECTORS["replay"]["window"] == ReplayWindow.SIZE
    for step in VECTORS["replay"]["steps"]:
        sequence = window.complete(step["low"])
        assert (sequence, window.is_new(sequence)) == (step["sequence"], step["accepted"])
        if step["accepted"]:
            window.mark(sequence)
