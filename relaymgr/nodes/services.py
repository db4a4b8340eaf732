"""Changes of nodes. Races are decided by conditional UPDATEs; no transaction contains a network call."""

import logging
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Case, DateTimeField, F, Value, When
from django.db.models.functions import Greatest, Least
from django.utils import timezone

from nodeapi.membership import WorkerPorts
from relaymgr.nodes import control_client
from relaymgr.nodes.health.incidents import incident_record
from relaymgr.nodes.health.state_changes import state_change_record
from relaymgr.nodes.keys import token_key_create, token_keys_confirm
from relaymgr.nodes.models import JoinKey, Location, RelayNode, RelayWorker, TokenKey
from relaymgr.nodes.selectors import join_key_get
from relaymgr.nodes.states import DRAINING, IncidentKind, NodeState
from relaymgr.tenants.services import api_key_create, api_key_revoke
from web.audit.services import action_record
from web.audit.via import Via
from web.authorization import Scope
from web.errors import Conflict, Invalid, Unauthorized

logger = logging.getLogger(__name__)

ALIVE_WITHIN = timedelta(seconds=10)  # five probes


class JoinKeyInvalid(Unauthorized):
    code, message = "join_key_invalid", "The join key is unknown, used, expired or revoked."


class ClockSkew(Conflict):
    code, message = "clock_skew", "The node's clock is wrong. Synchronise it (NTP) and try again."


class NameTaken(Conflict):
    code, message = "name_taken", "A node of that name is alive. Choose another name, or stop that node first."


class IdentityTaken(Conflict):
    code = "identity_taken"
    message = "Another live process runs as this node. Stop one of them; a copied machine needs its own state folder."


class NodeInUse(Conflict):
    code, message = "node_in_use", "The node still serves sessions. Drain it and wait, or stop it."


class NodeNotDrained(Conflict):
    code, message = "node_not_drained", "The node accepts new sessions. Drain it first."


@dataclass(frozen=True)
class Joined:
    node: RelayNode
    node_key: str
    token_key: TokenKey

    def __repr__(self) -> str:
        return f"Joined({self.node})"


# Joining and heartbeat


def location_ensure(*, slug: str, **fields: Any) -> Location:
    """The location of this slug, created with these fields if it does not exist."""
    return Location.objects.get_or_create(slug=slug, defaults=fields)[0]


def node_join(
    *,
    join_key: str,
    name: str,
    public_ip: str,
    control_url: str,
    time: float,
    capacity: int,
    workers: Sequence[WorkerPorts],
    public_ipv6: str | None = None,
    host: str = "",
    websocket_url: str = "",
    version: str = "",
) -> Joined:
    """A node joins, or takes the place of a dead node of its name.

    Raises JoinKeyInvalid, ClockSkew, Invalid, NameTaken; the join key is used up only when none is raised.
    """
    found = join_key_get(presented=join_key, or_repeat=True)
    if found is None:
        raise JoinKeyInvalid
    clock_check(time=time)
    workers_check(workers=workers, capacity=capacity)
    fields = {
        "location": found.location,
        "public_ip": public_ip,
        "public_ipv6": public_ipv6,
        "host": host,
        "websocket_url": websocket_url,
        "control_url": control_url,
        "version": version,
    }
    try:
        with transaction.atomic():
            node, node_key = _admit(found, name, fields)
            _workers_store(node, workers, capacity)
            token_key = token_key_create(node)
            action_record(
                via=Via.API,
                actor=f"join key {found.prefix}",
                action="node.join",
                target=name,
                detail=f"at {found.location}, address {public_ip}",
            )
    except IntegrityError:  # two nodes of one new name at the same moment
        raise NameTaken from None
    logger.info("node %s joined at %s", node, node.location)
    return Joined(node, node_key, token_key)


def _admit(join_key: JoinKey, name: str, fields: dict[str, Any]) -> tuple[RelayNode, str]:
    """The node's row and its new node key. All its earlier keys are revoked."""
    now = timezone.now()
    node = RelayNode.objects.select_for_update().filter(name=name).first() or RelayNode(name=name)
    if not _is_repeated(node, join_key, fields):
        _join_key_use(join_key, now)
        if node.pk and max(node.joined_at, node.last_seen_at or node.joined_at) > now - ALIVE_WITHIN:
            raise NameTaken
    before = node.status if node.pk else ""
    old_key, (node.key, plain) = node.key, api_key_create(tenant=None, name=f"node {name}", scopes=[Scope.NODE])
    for field, value in fields.items():
        setattr(node, field, value)
    node.control_key = secrets.token_urlsafe(32)
    node.state, node.missed_probes, node.is_stopping = NodeState.JOINING, 0, False
    node.boot_id, node.refused_boot_id, node.last_event, node.joined_at = "", "", 0, now
    node.joined_with = join_key
    node.save()
    if old_key:
        api_key_revoke(key=old_key)
    node.token_keys.all().delete()
    state_change_record(node=node, before=before, reason="joined")
    JoinKey.objects.filter(pk=join_key.pk).update(used_by=node)
    return node, plain


def _is_repeated(node: RelayNode, join_key: JoinKey, fields: dict[str, Any]) -> bool:
    """Whether the same node joined with this key and never used the answer: it was lost, or could not be stored."""
    is_unused = bool(node.pk) and node.joined_with_id == join_key.pk and not node.boot_id and node.last_seen_at is None
    return is_unused and all(getattr(node, name) == fields[name] for name in ("public_ip", "control_url"))


def _join_key_use(join_key: JoinKey, now: datetime) -> None:
    """Raises JoinKeyInvalid."""
    usable = JoinKey.objects.filter(pk=join_key.pk, used_at=None, expires_at__gt=now, uses_left__gt=0)
    used_up = Case(When(uses_left=1, then=Value(now)), output_field=DateTimeField())
    if usable.update(uses_left=F("uses_left") - 1, used_at=used_up) != 1:
        raise JoinKeyInvalid


def node_heartbeat(
    *,
    node: RelayNode,
    boot_id: str,
    time: float,
    version: str,
    key_ids: Sequence[int],
    draining: bool,
    control_url: str,
    capacity: int,
    workers: Sequence[WorkerPorts],
    public_ip: str = "",
    public_ipv6: str | None = None,
    host: str = "",
    websocket_url: str = "",
    packet_path: str = "",
    packet_path_reason: str = "",
    address: str = "",
) -> RelayNode:
    """Stores what a node reports about itself, and returns the node as it is now. `address`: of the caller.

    Raises ClockSkew, Invalid, IdentityTaken."""
    clock_check(time=time)
    workers_check(workers=workers, capacity=capacity)
    boot_check(node=node, boot_id=boot_id, control_url=control_url, address=address)
    reported = {
        "version": version,
        "is_stopping": draining,
        "control_url": control_url,
        "packet_path": packet_path,
        "packet_path_reason": packet_path_reason,
    }
    if public_ip:
        reported |= {"public_ip": public_ip, "public_ipv6": public_ipv6, "host": host, "websocket_url": websocket_url}
    if node.boot_id != boot_id:
        reported |= {
            "boot_id": boot_id,
            "refused_boot_id": "",
            "last_event": 0,
        }  # the numbers of its events start at 1 again
    was_stopping = node.is_stopping
    with transaction.atomic():
        RelayNode.objects.filter(pk=node.pk).update(**reported)
        _workers_store(node, workers, capacity)
        token_keys_confirm(node, key_ids)
        node.refresh_from_db()
        if was_stopping != draining and node.state == NodeState.READY and not node.is_draining:
            before = NodeState.READY if draining else DRAINING
            state_change_record(node=node, before=before, reason="reported by the node")
    return node


def boot_check(*, node: RelayNode, boot_id: str, control_url: str, address: str) -> None:
    """Raises IdentityTaken if another process than the known one calls while the known one still responds at the node's
    control URL. A node that was restarted responds there with the new boot id."""
    if node.boot_id in ("", boot_id) or control_client.boot_id_of(node) != node.boot_id:
        return
    RelayNode.objects.filter(pk=node.pk).update(refused_boot_id=boot_id)
    detail = f"process {boot_id[:8]} at {address or 'an unknown address'} ({control_url}) was refused"
    detail += f"; process {node.boot_id[:8]} is alive at {node.control_url}"
    incident_record(node_id=node.pk, kind=IncidentKind.DUPLICATE, detail=detail)
    raise IdentityTaken(details={"boot_id": node.boot_id, "control_url": node.control_url})


def grants_check(*, node: RelayNode, boot_id: str) -> None:
    """Raises IdentityTaken for a process whose heartbeat was refused: the grants belong to the other process."""
    if boot_id and boot_id == node.refused_boot_id != node.boot_id:
        raise IdentityTaken


def clock_check(*, time: float) -> None:
    """Raises ClockSkew. The node's clock decides when tokens expire and which packets are replayed."""
    skew = time - timezone.now().timestamp()
    if not abs(skew) <= settings.NODE_MAX_CLOCK_SKEW:  # NaN neither
        raise ClockSkew(details={"skew_seconds": round(skew, 3)} if math.isfinite(skew) else {})


def workers_check(*, workers: Sequence[WorkerPorts], capacity: int) -> None:
    """Raises Invalid: workers are numbered from 0, and no two of a node's ports are the same."""
    if sorted(worker.index for worker in workers) != list(range(len(workers))):
        raise Invalid.field("workers", "Number the workers 0, 1, 2 ...", "indexes")
    ports = [port for worker in workers for port in (worker.server_port, worker.client_port)]
    if len(set(ports)) != len(ports):
        raise Invalid.field("workers", "Each port may be used once.", "ports_not_distinct")
    if capacity < len(workers):
        raise Invalid.field("capacity", "Each worker needs at least one seat.", "min_value")


def _workers_store(node: RelayNode, workers: Sequence[WorkerPorts], capacity: int) -> None:
    """Stores the reported workers and divides the node's seats evenly among them. A worker that is gone keeps its row,
    which sessions refer to, and has no capacity."""
    share, extra = divmod(capacity, len(workers))
    stored = {worker.index: worker for worker in node.workers.all()}
    for worker in workers:
        seats = share + (worker.index < extra)
        ports = {"server_port": worker.server_port, "client_port": worker.client_port}
        if worker.index in stored:
            _worker_update(stored[worker.index], seats, ports)
        else:
            RelayWorker.objects.create(node=node, index=worker.index, capacity=seats, free_seats=seats, **ports)
    for index in stored.keys() - {worker.index for worker in workers}:
        _worker_update(stored[index], 0, {})


def _worker_update(worker: RelayWorker, seats: int, ports: dict[str, int]) -> None:
    if worker.capacity == seats and all(getattr(worker, name) == port for name, port in ports.items()):
        return
    # What is reserved (capacity - free) stays reserved, also against concurrent reservations. A worker that shrinks
    # below that has no free seats, and shrinks further as its sessions end.
    reserved = F("capacity") - F("free_seats")
    RelayWorker.objects.filter(pk=worker.pk).update(
        capacity=Greatest(Value(seats), reserved), free_seats=Greatest(Value(seats) - reserved, Value(0)), **ports
    )


# Seats


def worker_reserve(*, worker_id: int, seats: int) -> bool:
    """Reserves seats on a worker; False if there are too few, or its node accepts no sessions. A suspect node accepts
    them: placement uses it where no other node can take a session, and the node itself confirms or fails to."""
    # The UPDATE itself tests the worker's columns: under PostgreSQL's READ COMMITTED they are evaluated again once the
    # row is locked, and a subquery's are not. It is raw SQL because every creation runs it.
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE nodes_relayworker SET free_seats = free_seats - %s "
            "WHERE id = %s AND free_seats >= %s AND EXISTS "
            "(SELECT 1 FROM nodes_relaynode node WHERE node.id = node_id AND node.state IN (%s, %s) "
            "AND NOT node.is_draining AND NOT node.is_stopping)",
            [seats, worker_id, seats, NodeState.READY, NodeState.SUSPECT],
        )
        return bool(cursor.rowcount == 1)


def worker_reserve_extra(*, worker_id: int, seats: int = 1) -> bool:
    """Reserves more seats for an existing session; also on a draining node, whose sessions may grow."""
    room = RelayWorker.objects.filter(pk=worker_id, free_seats__gte=seats)
    return room.update(free_seats=F("free_seats") - seats) == 1


def worker_release(*, worker_id: int, seats: int) -> None:
    """Releases seats; the free seats never exceed the capacity."""
    free = Least(F("free_seats") + seats, F("capacity"))
    RelayWorker.objects.filter(pk=worker_id).update(free_seats=free)


# Draining and removing


def node_drain(*, node: RelayNode) -> bool:
    """No new sessions from now on; live ones continue. False: the node did not respond; its next heartbeat informs
    it."""
    return _drain_set(node, True)


def node_undrain(*, node: RelayNode) -> bool:
    """Accepts new sessions again. False as in node_drain."""
    return _drain_set(node, False)


def _drain_set(node: RelayNode, draining: bool) -> bool:
    with transaction.atomic():
        RelayNode.objects.filter(pk=node.pk).update(is_draining=draining)
        node.refresh_from_db(fields=["state", "is_draining", "is_stopping"])
        before = NodeState.READY if draining else DRAINING
        state_change_record(node=node, before=before, reason="by an operator")
    logger.info("node %s %s", node, "drains" if draining else "accepts sessions again")
    try:
        (control_client.drain if draining else control_client.undrain)(node)
    except (control_client.NodeUnreachable, control_client.NodeRefused):
        return False
    return True


def node_remove(*, node: RelayNode) -> None:
    """Deletes a node and its keys. Raises NodeInUse while seats on it are reserved, NodeNotDrained while it accepts new
    sessions."""
    with transaction.atomic():
        found = RelayNode.objects.select_for_update().get(pk=node.pk)
        if node.workers.filter(free_seats__lt=F("capacity")).exists():
            raise NodeInUse
        if found.takes_sessions:
            raise NodeNotDrained
        RelayNode.objects.filter(pk=node.pk).delete()
        if node.key:
            node.key.delete()
    logger.info("node %s removed", node)
