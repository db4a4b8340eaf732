"""JSON and files that nodes, manager and matchmaker read: from each other, from tenants, from disk.

What is meant for the manager comes to its code as over HTTP: by its parser, and then by the serializer or reader.
"""

import asyncio
import atexit
import base64
import contextlib
import functools
import io
import json
import math
import random
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
from django.core.exceptions import ValidationError
from kombu import Consumer
from rest_framework.exceptions import APIException

from causeway_client.protocol.proofs import RoundTripProof, proof_key
from matchmaker.apis.players import MemberInputSerializer
from matchmaker.apis.tickets import GroupTicketsApi
from matchmaker.matching.attributes import attribute_problems, without_failed_pings
from matchmaker.matching.pool import PoolTicket
from matchmaker.matching.profile_parser import ProfileInvalid, parse, profiles_of_file
from matchmaker.matching.proposals import make_matches
from nodeapi.grants import Grant
from nodeapi.strict_json import as_builtins
from relaymgr.nodes.apis import NodeHeartbeatApi, NodeJoinApi
from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable, _answer
from relaymgr.sessions.apis.sessions import SessionsApi
from relaymgr.sessions.models import RelaySession
from relaymgr.sessions.placement import measurements
from relaymgr.sessions.selectors import ORDER
from relaymgr.telemetry.probing.reports import leg_figures, parse_report
from relaynode.control.api import control_app
from relaynode.control.manager_link import ManagerFault, ManagerLink, Rejected
from relaynode.core.grants import GrantRefused, read_grant
from relaynode.core.relay import Relay, RelayConfig
from relaynode.errors import NodeError
from relaynode.supervision.peer_meter import PeerMeter
from relaynode.supervision.state_folder import KEYS, SNAPSHOT, NodeKeys, StateFolder
from tests.fuzz.packet_targets import Table
from tests.relaymgr.task_queue.test_broker import POISONED, connection, message, queue
from tests.relaymgr.telemetry.documents import telemetry
from tests.relaynode.players import KEY_ID, NOW, SESSION, TOKEN_KEY, grant_json
from web.http.paging import CursorField, after
from web.http.parsers import BoundedJSONParser

CONFIGURATIONS = Path(__file__).parents[1] / "matchmaker" / "edgegap_configurations"


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


@functools.cache
def scratch() -> Path:
    """A folder of this process, in memory where the machine has one."""
    shared = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="causeway-fuzz-", dir=shared if shared.is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _stored(value: Any) -> None:
    """Fails for what a database or a JSON answer cannot hold."""
    if isinstance(value, str):
        assert "\0" not in value
        value.encode()
    elif isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, int):
        assert -(2**63) <= value < 2**64
    elif isinstance(value, dict):
        for key, item in value.items():
            _stored(key)
            _stored(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _stored(item)
    elif is_dataclass(value) or hasattr(value, "__struct_fields__"):
        names = [field.name for field in fields(value)] if is_dataclass(value) else value.__struct_fields__  # type: ignore[arg-type]
        for name in names:
            _stored(getattr(value, name))
    else:
        assert value is None or isinstance(value, datetime | bytes), type(value)


# What a node reads


class NodeInProcess:
    """What the control API and the link to the manager call of a node, over one core in this process."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(
            **dict.fromkeys(
                ("name", "public_ip", "public_ipv6", "host", "websocket_url", "control_url", "join_key"), ""
            ),
            capacity=1,
        )
        self.boot_id, self.link, self.draining, self.is_healthy = "6f1c", "connected", False, True
        self.keys = NodeKeys("control", "node")
        self.packet_path = SimpleNamespace(name="xdp", reason="")
        self.peers, self.peers_version = PeerMeter(random.Random(1).randbytes), ""
        self.table = Table()

    async def grant(self, grant: Grant) -> int:
        return self.table.relay.apply_grant(grant, NOW)

    async def end_session(self, session: str, reason: str) -> None:
        self.table.relay.end_session(session, reason, NOW)

    async def apply_grant_list(self, grants: list[Grant], listed: set[str], asked_at: float, listed_at: float) -> None:
        for grant in grants:
            with contextlib.suppress(GrantRefused):
                self.table.relay.apply_grant(grant, NOW)
        self.table.relay.confirm_ended(listed_at, NOW, listed)

    async def telemetry(self, after: int, *, with_peers: bool) -> dict[str, Any]:
        return {"after": after, "peers_version": self.peers_version, "peers": self.peers.figures(1.0)}

    def set_peers(self, peers: list[Any], version: str) -> None:
        self.peers.set_peers(peers)
        self.peers_version = version
        for peer in self.peers.peers[:3]:
            for datagram in self.peers.probe(peer, 0.0):
                self.peers.receive_datagram(b"\xcd" + datagram[1:], 0.5)

    async def set_draining(self, draining: bool) -> None:
        self.draining = draining

    async def set_keys(self, keys: NodeKeys) -> None:
        self.keys = keys
        self.table.relay.set_token_keys(keys.token_keys)

    async def reserve_keys(self) -> None: ...

    async def stand_aside(self, reason: str, *, was_accepted: bool) -> None:
        self.link = "duplicate"

    def worker_ports(self) -> list[dict[str, int]]:
        return []


def grant(content: bytes) -> None:
    """A grant as JSON, applied to a node that serves others, twice, and written down."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return
    table = Table()
    try:
        read = read_grant(document)
        assert read_grant(json.loads(json.dumps(as_builtins(read)))) == read
        table.relay.apply_grant(read, NOW)
        table.relay.apply_grant(read, NOW)
    except GrantRefused as error:
        _stored([error.code, error.message, error.field])
        table.bystanders_play()
        return
    if read.session == SESSION:
        table.bystanders_play()
    table.check_state()


def grant_seeds() -> Iterator[bytes]:
    yield _json(grant_json())
    yield _json(grant_json(revision=2, topology="mesh", limits={"packets": 5, "bytes": 100}, revoked={1}))
    yield _json(grant_json(0, session="000000000001-S", token=None, dialects=["native"]))
    move = {"id": 7, "kind": "move", "ip": "192.0.2.9", "port": 31001, "token": "A" * 160, "deadline_ms": 5000}
    offered = {0: move | {"second_ip": "2001:db8::9"}, 1: move | {"kind": "standby", "second_ip": ""}}
    yield _json(grant_json(2, role="standby", epoch=3, dialects=["native"], offers=offered))


def control_api(content: bytes) -> None:
    """A request with the right key: {"method", "path", "query", "body"}, the body any JSON or, as text, any bytes."""
    try:
        document = json.loads(content)
        method, path, query, body = (document[name] for name in ("method", "path", "query", "body"))
        raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else json.dumps(body).encode()
        target, query_string = str(path).encode(errors="replace"), quote(str(query), "=&%", errors="replace").encode()
        method = str(method).encode("ascii", "replace").decode()
    except (ValueError, RecursionError, TypeError, KeyError):
        return
    node = NodeInProcess()
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "method": method,
        "path": target.decode(),
        "raw_path": target,
        "query_string": query_string,
        "headers": [(b"authorization", b"Bearer control"), (b"host", b"node")],
        "http_version": "1.1",
        "scheme": "http",
        "client": ("192.0.2.1", 5),
        "server": ("192.0.2.2", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": raw}

    async def send(event: Any) -> None:
        sent.append(event)

    loop().run_until_complete(control_app(node)(scope, receive, send))  # type: ignore[arg-type]
    loop().run_until_complete(_ask_telemetry(node))
    status, answer = sent[0]["status"], b"".join(event.get("body", b"") for event in sent[1:])
    assert status < 500, answer
    if status >= 400:
        assert set(json.loads(answer)) == {"message", "code", "details"}


async def _ask_telemetry(node: NodeInProcess) -> None:
    """What was taken in can be reported."""
    document = msgspec.to_builtins(await node.telemetry(0, with_peers=True))
    json.dumps(document, allow_nan=False, ensure_ascii=False).encode()


@functools.cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def control_api_seeds() -> Iterator[bytes]:
    peer = {"node": "fra-2", "address": "192.0.2.7", "port": 31001}
    for method, path, query, body in [
        ("PUT", f"/sessions/{SESSION}", "", grant_json(revision=3)),
        ("DELETE", f"/sessions/{SESSION}", "reason=idle", None),
        ("GET", "/telemetry", "after=5&peers=1", ""),
        ("PUT", "/peers", "", {"version": "6f", "peers": [peer, peer | {"address": "2001:db8::7"}]}),
        ("POST", "/drain", "", ""),
        ("POST", "/undrain", "", ""),
        ("GET", "/healthz", "", ""),
        ("GET", "/nowhere", "", ""),
    ]:
        yield _json({"method": method, "path": path, "query": query, "body": body})


def manager_answer(content: bytes) -> None:
    """The body of the manager's answer to join, heartbeat and pull: whatever it is, the node goes on."""
    node = NodeInProcess()
    link = ManagerLink(node)  # type: ignore[arg-type]

    def take_interval(answer: dict[str, Any]) -> None:
        """As the link does, without the waiting."""
        ManagerLink._take_interval(link, answer)
        assert 0.1 <= link._heartbeat_interval <= 300
        link._heartbeat_interval = 0.0

    link._take_interval = take_interval  # type: ignore[method-assign]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(409 if content[:1] == b" " else 200, content=content)

    async def calls() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://manager") as client:
            link._client = client
            for call in (link._heartbeat, link._pull):
                link._heartbeat_interval = 0.1
                link._may_pull.set()
                link._pull_now.set()
                with contextlib.suppress(Rejected, ManagerFault, NodeError):
                    await call()

    loop().run_until_complete(calls())
    if b"-S" not in content:  # of no session at all
        node.table.bystanders_play()


def manager_answer_seeds() -> Iterator[bytes]:
    key = {"id": KEY_ID, "key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
    yield _json({"time": time.time(), "heartbeat_interval": 5.0, "key_ids": [KEY_ID], "draining": True})
    yield _json({"time": 1795257600.0, "token_keys": [key], "sessions": [grant_json(revision=7)]})
    yield b" " + _json({"message": "No.", "code": "identity_taken", "details": {"x": [{"code": "y"}]}})


def node_state(content: bytes) -> None:
    """The snapshot of a node, a record a line; a line that begins with "!" gets the right checksum. Or its keys."""
    folder_path = scratch() / "state"
    shutil.rmtree(folder_path, ignore_errors=True)
    folder = StateFolder(folder_path)
    (folder_path / KEYS).write_bytes(content)
    folder.read_keys()
    lines = [
        b"%08x %s" % (zlib.crc32(line[1:]), line[1:]) if line.startswith(b"!") else line
        for line in content.split(b"\n")[:50]
    ]
    (folder_path / SNAPSHOT).write_bytes(b"\n".join(lines))
    snapshot = folder.read_snapshot()
    relay = Relay(worker=0, config=RelayConfig(), random=random.Random(1).randbytes)
    for states in snapshot.workers:
        for state in states.values():
            with contextlib.suppress(GrantRefused):
                relay.restore_session(state, NOW)
    for session in relay.sessions():
        json.dumps(relay.session_state(session.session), allow_nan=False)
    folder.write_snapshot(snapshot)
    read_again = [states for states in folder.read_snapshot().workers if states]
    assert read_again == [states for states in snapshot.workers if states]
    assert not folder_path.joinpath(f"{SNAPSHOT}.new").exists()


def node_state_seeds() -> Iterator[bytes]:
    table = Table()
    states = [[0, table.relay.session_state(session.session)] for session in table.relay.sessions()]
    table.relay.end_session(SESSION, "idle", NOW)
    ended = [0, table.relay.session_state(SESSION)]
    records = [{"listed_at": NOW}, *states, ended, [0, "3960c873aafe-S"], [3, "x"]]
    yield b"\n".join(b"!" + _json(record) for record in records)
    yield b"\n".join(b"%08x %s" % (zlib.crc32(_json(record)), _json(record)) for record in records)
    yield _json({"format": 1, **NodeKeys("control", "node", {KEY_ID: TOKEN_KEY}).to_json()})


# What the manager reads


def _parsed(content: bytes) -> Any:
    """What the parser of every API lets through. Raises APIException."""
    document = BoundedJSONParser().parse(io.BytesIO(content))
    _stored(document)
    return document


def node_report(content: bytes) -> None:
    """A node's answer to GET /telemetry."""
    with contextlib.suppress(NodeRefused, NodeUnreachable):
        _answer(409, content)
    try:
        report = parse_report(_answer(200, content))
    except (NodeUnreachable, ValueError):
        return
    _stored(report)
    _stored(leg_figures(report.legs))
    for event in report.events:
        datetime.fromtimestamp(event.at)
    datetime.fromtimestamp(report.time)


def node_report_seeds() -> Iterator[bytes]:
    yield _json(telemetry())
    yield _json({"message": "no", "code": "full", "details": {}})


def _request(serializer_of: Callable[[Any], Any], content: bytes) -> None:
    """Accepted or refused with reasons; what is accepted can be stored."""
    try:
        serializer = serializer_of(_parsed(content))
        serializer.is_valid(raise_exception=True)
    except (APIException, ValidationError) as error:
        _stored(json.loads(json.dumps(error.get_full_details())) if isinstance(error, APIException) else [])
        return
    _stored(json.loads(json.dumps(serializer.validated_data, default=_plain)))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    return str(value) if isinstance(value, datetime) else list(value)


def heartbeat(content: bytes) -> None:
    _request(lambda data: NodeHeartbeatApi.InputSerializer(data=data), content)


def join(content: bytes) -> None:
    _request(lambda data: NodeJoinApi.InputSerializer(data=data), content)


def _introduction() -> dict[str, Any]:
    return {
        "public_ip": "192.0.2.1",
        "public_ipv6": "2001:db8::1",
        "host": "fra-1.example.com",
        "websocket_url": "wss://fra-1.example.com:8443",
        "control_url": "http://192.0.2.1:31100",
        "time": NOW,
        "version": "0.1.0",
        "capacity": 1000,
        "workers": [{"index": 0, "server_port": 31000, "client_port": 31001}],
    }


def heartbeat_seeds() -> Iterator[bytes]:
    more = {"boot_id": "6f1c", "key_ids": [1, 2], "draining": False, "packet_path": "xdp", "packet_path_reason": ""}
    yield _json(_introduction() | more)
    yield _json(
        {"boot_id": "6f1c", "time": NOW, "control_url": "https://[2001:db8::1]:5", "capacity": 1, "workers": []}
    )


def join_seeds() -> Iterator[bytes]:
    yield _json(_introduction() | {"name": "fra-1"})


def session_request(content: bytes) -> None:
    """A tenant's request for a session."""
    context = {"edgegap_enabled": True, "private_webhooks": True}
    _request(lambda data: SessionsApi.InputSerializer(data=data, context=context), content)


def session_request_seeds() -> Iterator[bytes]:
    signed = {"node": "fra-1", "rtt_ms": 18.0, "jitter_ms": 1.0, "loss": 0.0, "proof": "A" * 75}
    yield _json({"users": [{"ip": "192.0.2.10", "latencies": {"frankfurt": 18}}, {"ip": "2001:db8::5"}]})
    yield _json(
        {
            "users": [{"ip": "192.0.2.10", "measurements": [signed], "player_id": "x", "latitude": 5, "longitude": 6}],
            "filters": [{"field": "country", "values": ["DE"], "filter_type": "any"}],
            "webhook_url": "https://example.com/hook",
            "topology": "mesh",
            "objective": "sum",
            "choose_host": True,
            "dialects": ["native"],
            "idle_timeout": 60,
            "max_lifetime": 600,
            "limits": {"per_seat": {"packets": 5, "bytes": 5}},
            "metadata": {"match": "5"},
            "constraints": {"max_latency_ms": 100},
        }
    )


def ticket_request(content: bytes) -> None:
    """A player's request for a ticket, and a group's."""
    context = {"address": "192.0.2.1"}
    _request(lambda data: MemberInputSerializer(data=data, context=context), content)
    _request(lambda data: GroupTicketsApi.InputSerializer(data=data, context=context), content)


def ticket_request_seeds() -> Iterator[bytes]:
    ticket = {"profile": "duel", "attributes": {"elo": 5}, "player_ip": "192.0.2.5", "player_id": "anna"}
    ticket |= {"latencies": {"frankfurt": 20.5}, "rejoin_key": "x.y", "is_ready": True}
    yield _json(ticket)
    yield _json({"player_tickets": [ticket, {"profile": "duel"}]})


def cursor(content: bytes) -> None:
    """The cursor of a list: the text itself, and what it stands for. Compiled, not asked of a database."""
    for text in (content.decode(errors="replace"), _base64(content)):
        try:
            values = CursorField().run_validation(text)
            rows = after(RelaySession.objects.all(), ORDER, values)
        except APIException:
            continue
        _, parameters = rows.query.sql_with_params()
        _stored([str(parameter) for parameter in parameters])


def cursor_seeds() -> Iterator[bytes]:
    yield _json(["2026-11-30T12:00:00+00:00", SESSION])
    yield _base64(_json(["2026-11-30T12:00:00+00:00", SESSION])).encode()


def probe_proof(content: bytes) -> None:
    """What a player hands on as a node's signed measurement: text, bytes, and fields with the right signature."""
    key, now = proof_key(TOKEN_KEY), NOW + 1
    values = content[:48].ljust(48, b"\0")
    signed = RoundTripProof(
        values[:16],
        int.from_bytes(values[16:24], "little"),
        int.from_bytes(values[24:28], "little"),
        KEY_ID,
        values[32:48],
    )
    encoded = RoundTripProof(*[getattr(signed, f.name) for f in fields(signed)][:5], signed.sign(key)).encode()
    for proof in (content.decode(errors="replace"), *map(_base64, (content, encoded))):
        item = {"node": "fra-1", "rtt_ms": 5.0, "jitter_ms": 0.0, "loss": 0.0, "proof": proof}
        for ip in ("192.0.2.1", "2001:db8::1", None):
            user = {"ip": ip, "measurements": [item]}
            samples = measurements._samples(user, {("fra-1", KEY_ID): key}, now)
            _stored(samples)
            assert samples == {} or samples["fra-1"][0] >= 5.0


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def probe_proof_seeds() -> Iterator[bytes]:
    time_us = int(NOW * 1e6).to_bytes(8, "little")
    address = bytes(10) + b"\xff\xff\xc0\x00\x02\x01"
    yield b"n" * 16 + time_us + (20_000).to_bytes(4, "little") + KEY_ID.to_bytes(4, "little") + address + b"p" * 8
    yield _base64(b"n" * 16 + time_us + bytes(8) + address + b"p" * 8).encode()


# The matchmaker


def profile(content: bytes) -> None:
    """{"profile": a configuration, "players": attributes of players}: refused with reasons, or matched without fault.
    Or a whole configuration file."""
    try:
        document = _parsed(content)
    except APIException:
        return
    with contextlib.suppress(ProfileInvalid):
        profiles_of_file(document)
    config, players = (document.get(name) for name in ("profile", "players")) if isinstance(document, dict) else (1, 1)
    try:
        read = parse(config)
    except ProfileInvalid as error:
        assert error.problems
        _stored([[problem.path, problem.reason] for problem in error.problems])
        return
    tickets = []
    for number, attributes in enumerate(players[:12] if isinstance(players, list) else []):
        if isinstance(attributes, dict) and not attribute_problems(read, attributes):
            tickets.append(PoolTicket(str(number), float(number), without_failed_pings(read, attributes)))
    for now in (20.0, read.expiration / 2, read.expiration):
        found = make_matches(read, tickets, now)
        assert not found.invalid
        matched = [ticket for match in found.matches for ticket in match.tickets]
        assert len(matched) == len(set(matched))
        assert all(0.0 <= match.quality <= 1.0 for match in found.matches)


def profile_seeds() -> Iterator[bytes]:
    for file in sorted(CONFIGURATIONS.iterdir()):
        whole = json.loads(file.read_text())
        yield _json(whole)
        for config in whole["profiles"].values():
            player: dict[str, Any] = {}
            for name, rule in config["rules"]["initial"].items():
                value: Any = {
                    "latencies": {"Frankfurt": 10.0, "Tokyo": 200.0},
                    "number_difference": 5,
                    "string_equality": "x",
                    "intersection": ["a", "b"],
                }.get(rule["type"])
                if value is not None:
                    player[name] = value
            yield _json({"profile": config, "players": [player] * 6})


# The embedded broker


def broker_message(content: bytes) -> None:
    """A message file of any content is processed or set aside, and the next one arrives."""
    root = scratch() / "broker"
    folder = root / "queue" / "work"
    shutil.rmtree(root, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "1.msg").write_bytes(content)
    (folder / "2.msg").write_bytes(message({"task": "x"}, '"good"', "tag"))
    heard: list[Any] = []

    def take(body: Any, taken: Any) -> None:
        heard.append(body)
        taken.ack()

    with connection(root) as own, own.channel() as channel:
        consumer = Consumer(channel, [queue("work")], accept=["json"], on_decode_error=lambda taken, _: taken.reject())
        consumer.register_callback(take)
        with consumer:
            for _ in range(4):
                if "good" in heard:
                    break
                with contextlib.suppress(TimeoutError):
                    own.drain_events(timeout=0.01)
    assert "good" in heard, "the queue stands still"
    assert list(folder.iterdir()) == []


def broker_message_seeds() -> Iterator[bytes]:
    yield from (content for content in POISONED if len(content) < 2_000)
    yield message({"task": "x", "id": "1"}, "[[1], {}, {}]", "1")
