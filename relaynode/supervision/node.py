"""A node: its workers, what it tells of them, and how it obeys. Control API and manager link both speak to this."""

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
from ..errors import StateUnusable
from .event_log import EventLog
from .peer_meter import PeerMeter
from .snapshot import SnapshotKeeper
from .state_folder import NodeKeys, Snapshot, State, StateFolder
from .worker_channel import Message
from .worker_process import EXITS_FOR, Report, WorkerProcess

log = logging.getLogger(__name__)


LinkState = Literal["standalone", "unreachable", "connected", "refused", "duplicate"]
"""How the node stands with the manager: there is none, it does not answer, all is well, it says that our key is dead,
or that another live process has our identity."""

RETRY_KEYS_AFTER = 5.0  # seconds

REMEMBER_ENDED = 60.0
"""Seconds before a pull by which a session must have ended to be forgotten. Whatever was on its way then has arrived,
and its connect tokens are older than the list, also by another clock."""

ENDED_HERE = ("idle", "expired")  # ends that the manager learns from the node


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
        self.workers = [
            WorkerProcess(
                index,
                pair,
                pair_sockets,
                config.seats_per_worker,
                functools.partial(self._heard, index),
                packet_path,
                config.limits,
            )
            for index, (pair, pair_sockets) in enumerate(zip(config.ports, sockets, strict=True))
        ]
        self.peers = PeerMeter(os.urandom)
        self.peers_version = ""
        self.snapshot = SnapshotKeeper(folder, self._look, self._whole)
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

    # -- obeying

    async def grant(self, grant: Grant) -> int:
        """The revision in force once the worker has obeyed. Raises GrantRefused, WorkerDown."""
        worker = self._worker_of(grant)
        is_new = grant.session not in worker.sessions
        revision: int = await worker.call("grant", grant=as_builtins(grant))
        if is_new:
            line = "session %s opened on worker %d, seats: %d"
            log.info(line, grant.session, grant.worker, len(grant.seats), extra={"session_id": grant.session})
        return revision

    async def end_session(self, session: str, reason: str) -> None:
        """Once this returns nothing is forwarded, nor ever again for a token of the session. Raises WorkerDown."""
        holders = [worker for worker in self.workers if session in worker.sessions]
        await asyncio.gather(
            *(worker.call("end", session=session, reason=reason) for worker in holders or self.workers)
        )
        if holders:
            log.info("session %s ended: %s", session, reason)

    async def take_over(self, grants: Iterable[Grant], listed: set[str], asked_at: float, listed_at: float) -> None:
        """Serve these grants, and end every session that is not `listed`, but those that came after `asked_at` (of
        `time.monotonic`). The manager made the list at `listed_at`, seconds since 1970. Raises WorkerDown."""
        is_whole = True
        for grant in grants:
            if self._revision(grant.session) < grant.revision:
                try:
                    await self.grant(grant)
                except GrantRefused as refusal:
                    log.warning("session %s of the manager's list not taken over: %s", grant.session, refusal.code)
                    self._tell_of_end(grant.session)
                    is_whole = is_whole and refusal.code == "session_ended"
        for session in self._live_before(asked_at) - listed:
            await self.end_session(session, "deleted")
        await self._confirm(listed, asked_at, listed_at if is_whole else 0.0)

    async def _confirm(self, listed: set[str], asked_at: float, listed_at: float) -> None:
        """By this list no connect token of an unlisted session is valid (`Sessions.is_over`), so those that ended well
        before it are forgotten. `listed_at` 0: it was not taken over whole, and says nothing of what it lacks."""
        ended_before = time.time() - (time.monotonic() - asked_at) - REMEMBER_ENDED if listed_at else 0.0
        for worker in self.workers:
            for session in await worker.take_listed(listed_at, ended_before, listed):
                self._first_seen.pop(session, None)
                self.snapshot.changed(worker.index, session)
        if listed_at:
            self.snapshot.listed(listed_at)

    async def set_keys(self, keys: NodeKeys) -> None:
        """Use these from now on, also after a restart. On a full disk the latter has to wait (`keep_keys`)."""
        self.keys = keys
        await asyncio.gather(*(worker.set_token_keys(keys.token_keys) for worker in self.workers))
        self._keys_changed.set()
        await self._write_keys()

    async def reserve_keys(self) -> None:
        """Raises StateUnusable when there would be no room for keys."""
        await asyncio.to_thread(self._folder.reserve_keys)

    async def keep_keys(self) -> None:
        """Write keys that could not be written yet, until cancelled."""
        while True:
            await self._keys_changed.wait()
            await asyncio.sleep(RETRY_KEYS_AFTER)
            await self._write_keys()

    async def _write_keys(self) -> None:
        async with self._writing_keys:
            keys = self.keys
            if not self._keys_changed.is_set():
                return
            try:
                await asyncio.to_thread(self._folder.write_keys, keys)
            except StateUnusable as error:
                log.error("keys not written, trying again: %s", error)
                return
            if keys is self.keys:
                self._keys_changed.clear()

    @property
    def is_state_written(self) -> bool:
        """False: keys or snapshot on the disk are older than those in use, and cannot be written."""
        return not (self._keys_changed.is_set() or self.snapshot.is_failing)

    async def stand_aside(self, reason: str, *, was_accepted: bool) -> None:
        """Another live process has this node's identity. Take no new sessions; and when the manager never accepted
        this process, serve nothing: what it restored is the other one's."""
        if self.link != "duplicate":
            log.error("another process runs as this node: %s. No new sessions are taken until it is gone", reason)
        self.link = "duplicate"
        await self.set_draining(True)
        if not was_accepted:
            for worker in self.workers:
                for session in worker.withdraw():
                    self.snapshot.changed(worker.index, session)

    async def set_draining(self, draining: bool) -> None:
        """Refuse new sessions, or take them again; a node that is stopping goes on refusing."""
        draining = draining or self._stopping
        if draining != self.draining:
            log.info("draining: new sessions are refused" if draining else "not draining any more")
        self.draining = draining
        await asyncio.gather(*(worker.set_draining(draining) for worker in self.workers))

    async def wind_down(self, at_once: asyncio.Event) -> None:
        """Drain, tell native players, and finish live sessions for as long as the settings allow."""
        self._stopping = True
        await self.set_draining(True)
        await asyncio.gather(*(worker.announce_shutdown() for worker in self.workers))
        deadline = time.monotonic() + self.config.drain_timeout
        while self.live_sessions and not at_once.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(at_once.wait(), 0.1)

    def set_peers(self, peers: Iterable[Peer], version: str) -> None:
        """Measure the way to these nodes from now on; `version` is the manager's name for the list."""
        self.peers.set_peers(peers)
        self.peers_version = version

    # -- telling

    async def reports(self, legs: int = 0) -> list[Report]:
        """One for each worker, with at most `legs` legs in all."""
        share = legs // len(self.workers)
        return await asyncio.gather(*(worker.report(share) for worker in self.workers))

    async def telemetry(self, after: int, *, with_peers: bool = False) -> Telemetry:
        """As in docs/node-api.md, with the events numbered above `after`."""
        reports = await self.reports(MAX_LEGS)
        events, last_event = self.events.after(after)
        cpu = [meter.share(report.cpu_seconds) for meter, report in zip(self._cpu, reports, strict=True)]
        return Telemetry(
            boot_id=self.boot_id,
            # That of the worker which is furthest off: tokens and sessions are judged by it.
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
            events=events,
            last_event=last_event,
            worker_exits=self._worker_exits(),
        )

    def _worker_exits(self) -> list[WorkerExit]:
        """The last ones, the newest first."""
        now = time.monotonic()
        exits = [each for worker in self.workers for each in worker.exits if now - each.at < EXITS_FOR]
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

    # -- what is served

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
        """That of the grant held; -1 for a session that is not served."""
        return next((int(it.sessions[session]["revision"]) for it in self.workers if session in it.sessions), -1)

    def _live_before(self, moment: float) -> set[str]:
        return {
            session
            for worker in self.workers
            for session in worker.sessions
            if self._first_seen.get(session, 0.0) < moment
        }

    def _tell_of_end(self, session: str) -> None:
        """Once more, to a manager that missed it: the events of before a restart are gone."""
        state = next((worker.ended[session] for worker in self.workers if session in worker.ended), None)
        if state is not None and state["reason"] in ENDED_HERE:
            self.events.append(asdict(Event(time.time(), session, None, "session_ended", reason=state["reason"])))

    def _heard(self, worker: int, message: Message) -> None:
        """An event or a changed state from a worker."""
        if (event := message.get("event")) is not None:
            self.events.append(event)
            if event["kind"] == "session_ended":
                told = {"session_id": event["session"]}
                log.info("session %s ended: %s", event["session"], event["reason"], extra=told)
        if (state := message.get("state")) is not None:
            if state["ended"]:
                self._first_seen.pop(state["session"], None)
            else:
                self._first_seen.setdefault(state["session"], time.monotonic())
            self.snapshot.changed(worker, state["session"])

    def _restore(self, snapshot: Snapshot) -> None:
        for index, states in enumerate(snapshot.workers):
            if index >= len(self.workers):
                log.warning("snapshot: %d sessions of worker %d dropped: there is no such worker", len(states), index)
                continue
            worker = self.workers[index]
            for session, state in states.items():
                (worker.ended if state["ended"] else worker.sessions)[session] = state
        for worker in self.workers:
            worker.listed_at = snapshot.listed_at
        if self.live_sessions:
            log.info("snapshot: %d sessions to serve again", self.live_sessions)

    def _look(self, worker: int, session: str) -> State | None:
        held = self.workers[worker]
        return held.sessions.get(session) or held.ended.get(session)

    def _whole(self) -> Snapshot:
        """What to write down."""
        workers = [{**worker.ended, **worker.sessions} for worker in self.workers]
        return Snapshot(workers, max(worker.listed_at for worker in self.workers))


class CpuMeter:
    """The share of a core used from one look to the next."""

    def __init__(self, started: float) -> None:
        self._at = started
        self._used = 0.0

    def share(self, cpu_seconds: float) -> float:
        """`cpu_seconds`: all used so far."""
        now = time.monotonic()
        used, elapsed = cpu_seconds - self._used, now - self._at
        self._used, self._at = cpu_seconds, now
        return round(min(max(used / elapsed, 0.0), 1.0), 4) if elapsed > 0 else 0.0
