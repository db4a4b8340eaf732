"""A node: its workers, its reports and the manager's commands. The control API and the manager link use it."""

import asyncio
import contextlib
import functools
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Literal

from nodeapi.grants import Grant
from nodeapi.membership import WorkerPorts
from nodeapi.peers import Peer
from nodeapi.strict_json import as_builtins
from nodeapi.telemetry import MAX_LEGS, MAX_WORKER_EXITS, Telemetry, WorkerExit, WorkerStats

from ..config import VERSION, NodeConfig
from ..core.events import Event
from ..core.grants import GrantRefused
from ..datapath.packet_path import PacketPath
from ..errors import StateUnusable, WorkerDown
from .event_log import EventLog
from .peer_meter import PeerMeter
from .snapshot import SnapshotKeeper
from .state_folder import NodeKeys, Snapshot, State, StateFolder
from .websocket_process import WebSocketProcess
from .worker_channel import Message
from .worker_process import EXITS_REPORTED_FOR, WorkerProcess
from .worker_report import Report

log = logging.getLogger(__name__)


LinkState = Literal["standalone", "unreachable", "connected", "refused", "duplicate"]
"""The node has no manager; the manager does not answer; it answers; it refuses the node key; it reports another live
process with the node's identity."""

KEYS_RETRY_INTERVAL = 5.0  # seconds

KEEP_ENDED = 60.0
"""Seconds between the end of a session and the first list that may forget it. By then all messages about the session
have arrived, and its connect tokens are older than the list even if the clocks differ."""

ENDED_BY_NODE = ("idle", "expired")  # these ends are reported to the manager


class Node:
    def __init__(
        self,
        config: NodeConfig,
        folder: StateFolder,
        keys: NodeKeys,
        sockets: Sequence[tuple[socket.socket, socket.socket]],
        packet_path: PacketPath,
    ) -> None:
        self.config = config
        self.packet_path = packet_path
        self.keys = keys
        self.boot_id = uuid.uuid4().hex
        self.draining = False
        self.link: LinkState = "standalone" if config.is_standalone else "unreachable"
        self.events = EventLog()
        self.websocket = WebSocketProcess(config)
        self.workers = [
            WorkerProcess(
                index,
                pair,
                pair_sockets,
                config.seats_per_worker,
                functools.partial(self._on_message, index),
                packet_path,
                config.limits,
            )
            for index, (pair, pair_sockets) in enumerate(zip(config.ports, sockets, strict=True))
        ]
        self.peers = PeerMeter(os.urandom)
        self.peers_version = ""
        self.snapshot = SnapshotKeeper(folder, self._state_of, self._snapshot_now)
        self._folder = folder
        self._keys_changed = asyncio.Event()
        self._writing_keys = asyncio.Lock()
        self._stopping = False
        self._started = time.monotonic()
        self._first_seen: dict[str, float] = {}
        self._cpu = [CpuMeter(self._started) for _ in self.workers]
        for worker in self.workers:
            worker.token_keys = keys.token_keys
            worker.grants_known = config.is_standalone
        self._restore(folder.read_snapshot())

    @property
    def is_healthy(self) -> bool:
        return all(worker.is_up for worker in self.workers)

    @property
    def live_sessions(self) -> int:
        return sum(len(worker.sessions) for worker in self.workers)

    # -- commands

    async def grant(self, grant: Grant) -> int:
        """Returns the revision in force, after the worker has applied the grant. Raises GrantRefused, WorkerDown."""
        worker = self._worker_of(grant)
        is_new = grant.session not in worker.sessions
        revision: int = await worker.call("grant", grant=as_builtins(grant))
        if is_new:
            line = "session %s opened on worker %d, seats: %d"
            log.info(line, grant.session, grant.worker, len(grant.seats), extra={"session_id": grant.session})
        return revision

    async def end_session(self, session: str, reason: str) -> None:
        """After this returns, nothing of the session is forwarded and its tokens are invalid. Raises WorkerDown."""
        holders = [worker for worker in self.workers if session in worker.sessions]
        await asyncio.gather(
            *(worker.call("end", session=session, reason=reason) for worker in holders or self.workers)
        )
        if holders:
            log.info("session %s ended: %s", session, reason)

    async def apply_grant_list(
        self, grants: Iterable[Grant], listed: set[str], asked_at: float, listed_at: float
    ) -> None:
        """Apply these grants, and end every session that is not `listed`, except those that started after `asked_at`
        (monotonic time). The manager made the list at `listed_at`, in seconds since 1970. Raises WorkerDown."""
        is_whole = True
        for grant in grants:
            if self._revision(grant.session) < grant.revision:
                try:
                    await self.grant(grant)
                except GrantRefused as refusal:
                    log.warning("session %s of the manager's list was refused: %s", grant.session, refusal.code)
                    self._report_end_again(grant.session)
                    is_whole = is_whole and refusal.code == "session_ended"
        for session in self._live_before(asked_at) - listed:
            await self.end_session(session, "deleted")
        await self._forget_ended(listed, asked_at, listed_at if is_whole else 0.0)

    async def _forget_ended(self, listed: set[str], asked_at: float, listed_at: float) -> None:
        """The list invalidates the connect tokens of sessions that are not in it (`Sessions.is_over`), so sessions that
        ended well before it are forgotten. `listed_at` 0: the list was not applied completely, so sessions missing from
        it are kept."""
        ended_before = time.time() - (time.monotonic() - asked_at) - KEEP_ENDED if listed_at else 0.0
        for worker in self.workers:
            for session in await worker.apply_grant_list(listed_at, ended_before, listed):
                self._first_seen.pop(session, None)
                self.snapshot.changed(worker.index, session)
        if listed_at:
            self.snapshot.listed(listed_at)

    async def set_keys(self, keys: NodeKeys) -> None:
        """Use these keys from now on, and after a restart. If the disk is full, `keep_keys` retries writing them."""
        self.keys = keys
        await asyncio.gather(*(worker.set_token_keys(keys.token_keys) for worker in self.workers))
        self._keys_changed.set()
        await self._write_keys()

    async def reserve_keys(self) -> None:
        """Raises StateUnusable if the disk has no space for keys."""
        await asyncio.to_thread(self._folder.reserve_keys)

    async def keep_keys(self) -> None:
        """Retry writing keys, until cancelled."""
        while True:
            await self._keys_changed.wait()
            await asyncio.sleep(KEYS_RETRY_INTERVAL)
            await self._write_keys()

    async def _write_keys(self) -> None:
        async with self._writing_keys:
            keys = self.keys
            if not self._keys_changed.is_set():
                return
            try:
                await asyncio.to_thread(self._folder.write_keys, keys)
            except StateUnusable as error:
                log.error("keys could not be written, retrying: %s", error)
                return
            if keys is self.keys:
                self._keys_changed.clear()

    @property
    def is_state_written(self) -> bool:
        """False: the keys or the snapshot on the disk are outdated and cannot be written."""
        return not (self._keys_changed.is_set() or self.snapshot.is_failing)

    async def stand_aside(self, reason: str, *, was_accepted: bool) -> None:
        """Another live process has this node's identity. Accept no new sessions. If the manager never accepted this
        process, drop the restored sessions, too: they belong to the other process."""
        if self.link != "duplicate":
            log.error("another process runs as this node: %s. New sessions are refused until it is gone", reason)
        self.link = "duplicate"
        await self.set_draining(True)
        if not was_accepted:
            for worker in self.workers:
                for session in worker.withdraw():
                    self.snapshot.changed(worker.index, session)

    async def set_draining(self, draining: bool) -> None:
        """Refuse or accept new sessions. A node that is stopping keeps refusing them."""
        draining = draining or self._stopping
        if draining != self.draining:
            log.info("draining: new sessions are refused" if draining else "new sessions are accepted again")
        self.draining = draining
        await asyncio.gather(*(worker.set_draining(draining) for worker in self.workers))

    async def wind_down(self, at_once: asyncio.Event) -> None:
        """Drain, notify native players, and let live sessions finish until the drain timeout."""
        self._stopping = True
        await self.set_draining(True)
        await asyncio.gather(*(worker.announce_shutdown() for worker in self.workers))
        deadline = time.monotonic() + self.config.drain_timeout
        while self.live_sessions and not at_once.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(at_once.wait(), 0.1)

    async def restart_workers(self) -> None:
        """Replace the workers by new processes, one after another, without losing a packet. One whose successor fails
        goes on."""
        for worker in self.workers:
            try:
                waited = await worker.hot_restart()
            except (GrantRefused, OSError, WorkerDown) as error:
                log.error("worker %d goes on, because its successor failed: %s", worker.index, error)
            else:
                log.info("worker %d was replaced; packets waited for %.1f ms", worker.index, waited * 1000)

    def set_peers(self, peers: Iterable[Peer], version: str) -> None:
        """Measure the way to these nodes from now on; `version` is the manager's name for the list."""
        self.peers.set_peers(peers)
        self.peers_version = version

    # -- reports

    async def reports(self, legs: int = 0) -> list[Report]:
        """One report for each worker, with at most `legs` legs in total."""
        share = legs // len(self.workers)
        return await asyncio.gather(*(worker.report(share) for worker in self.workers))

    async def telemetry(self, after: int, *, with_peers: bool = False) -> Telemetry:
        """As in docs/node-api.md, with the events numbered above `after`."""
        reports = await self.reports(MAX_LEGS)
        events, last_event = self.events.after(after)
        cpu = [meter.share(report.cpu_seconds) for meter, report in zip(self._cpu, reports, strict=True)]
        return Telemetry(
            boot_id=self.boot_id,
            # The time of the worker that is furthest off: tokens and sessions are checked against it.
            time=time.time() + max((worker.clock_error for worker in self.workers), key=abs),
            uptime=round(time.monotonic() - self._started, 3),
            version=VERSION,
            draining=self.draining,
            cpu=max(cpu),
            packet_path=self.packet_path.name,
            packet_path_reason=self.packet_path.reason,
            workers=[
                WorkerStats(
                    index=worker.index,
                    server_port=worker.pair.server,
                    client_port=worker.pair.client,
                    cpu=share,
                    receive_buffer=report.receive_buffer,
                    counters=report.counters,
                    **report.stats,
                )
                for worker, report, share in zip(self.workers, reports, cpu, strict=True)
            ],
            peers_version=self.peers_version,
            peers=self.peers.figures(asyncio.get_running_loop().time()) if with_peers else [],
            legs=[leg for report in reports for leg in report.legs],
            paths=[path for report in reports for path in report.paths],
            events=events,
            last_event=last_event,
            worker_exits=self._worker_exits(),
            websocket=self.websocket.stats,
        )

    def _worker_exits(self) -> list[WorkerExit]:
        """The last ones, the newest first."""
        now = time.monotonic()
        exits = [each for worker in self.workers for each in worker.exits if now - each.at < EXITS_REPORTED_FOR]
        exits.sort(key=lambda each: -each.at)
        return [
            WorkerExit(
                worker=each.worker,
                number=each.number,
                age_s=round(now - each.at, 3),
                status=each.status,
                uptime_s=round(each.uptime_s, 3),
            )
            for each in exits[:MAX_WORKER_EXITS]
        ]

    def worker_ports(self) -> list[WorkerPorts]:
        """As in join and heartbeat."""
        return [WorkerPorts(worker.index, worker.pair.server, worker.pair.client) for worker in self.workers]

    # -- sessions

    def _worker_of(self, grant: Grant) -> WorkerProcess:
        if grant.worker >= len(self.workers):
            raise GrantRefused("invalid", f"worker must be below {len(self.workers)}", "worker")
        for other in self.workers:
            if grant.session in other.ended:
                raise GrantRefused("session_ended", "the session was ended here")
            if grant.session in other.sessions and other.index != grant.worker:
                raise GrantRefused("invalid", "worker must stay the same for a session", "worker")
        return self.workers[grant.worker]

    def _revision(self, session: str) -> int:
        """The revision of the session's grant; -1: the node does not serve the session."""
        return next((int(it.sessions[session]["revision"]) for it in self.workers if session in it.sessions), -1)

    def _live_before(self, moment: float) -> set[str]:
        return {
            session
            for worker in self.workers
            for session in worker.sessions
            if self._first_seen.get(session, 0.0) < moment
        }

    def _report_end_again(self, session: str) -> None:
        """The manager may have missed the event: events are lost in a restart."""
        state = next((worker.ended[session] for worker in self.workers if session in worker.ended), None)
        if state is not None and state["reason"] in ENDED_BY_NODE:
            self.events.append(asdict(Event(time.time(), session, None, "session_ended", reason=state["reason"])))

    def _on_message(self, worker: int, message: Message) -> None:
        """An event or a changed state from a worker."""
        if (event := message.get("event")) is not None:
            self.events.append(event)
            if event["kind"] == "session_ended":
                context = {"session_id": event["session"]}
                log.info("session %s ended: %s", event["session"], event["reason"], extra=context)
        if (state := message.get("state")) is not None:
            if state["ended"]:
                self._first_seen.pop(state["session"], None)
            else:
                self._first_seen.setdefault(state["session"], time.monotonic())
            self.snapshot.changed(worker, state["session"])

    def _restore(self, snapshot: Snapshot) -> None:
        for index, states in enumerate(snapshot.workers):
            if index >= len(self.workers):
                log.warning(
                    "snapshot: %d sessions of worker %d dropped, because there is no such worker", len(states), index
                )
                continue
            worker = self.workers[index]
            for session, state in states.items():
                (worker.ended if state["ended"] else worker.sessions)[session] = state
        for worker in self.workers:
            worker.listed_at = snapshot.listed_at
        if self.live_sessions:
            log.info("snapshot: restoring %d sessions", self.live_sessions)

    def _state_of(self, worker: int, session: str) -> State | None:
        held = self.workers[worker]
        return held.sessions.get(session) or held.ended.get(session)

    def _snapshot_now(self) -> Snapshot:
        """The complete state, for the snapshot."""
        workers = [{**worker.ended, **worker.sessions} for worker in self.workers]
        return Snapshot(workers, max(worker.listed_at for worker in self.workers))


class CpuMeter:
    """The share of a core that was used between two calls."""

    def __init__(self, started: float) -> None:
        self._at = started
        self._used = 0.0

    def share(self, cpu_seconds: float) -> float:
        """`cpu_seconds`: the total since the start."""
        now = time.monotonic()
        used, elapsed = cpu_seconds - self._used, now - self._at
        self._used, self._at = cpu_seconds, now
        return round(min(max(used / elapsed, 0.0), 1.0), 4) if elapsed > 0 else 0.0
