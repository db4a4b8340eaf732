"""Two hosts of the lab play against each other: rounds in which their programs look for a direct path."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from causeway_client.protocol.packets import PacketType
from natlab.lab import Host, Lab
from natlab.programs import ROOT, Program
from natlab.relay import LabNode

RELAY = "relay"  # the site of the relay node
STARTS_WITHIN = 60.0  # seconds, against hanging only, as the next two
READY_WITHIN = 20.0
STOPS_WITHIN = 20.0
_LONGEST_LINE = 1 << 20
_UDP = 17

Messages = asyncio.Queue[tuple[int, dict[str, Any]]]  # the side of a player, and what it reports


@dataclass
class Outcome:
    """One round. `seconds`: from the moment when both sides know the other's candidates until both have a direct path;
    None: they found none. `rendezvous_bytes`: of the RENDEZVOUS that the node received, UDP payload."""

    seconds: float | None = None
    paths: list[str] = field(default_factory=list)
    reason: str = ""
    rendezvous_bytes: int = 0
    is_relayed: bool = False  # both received packets, over the relay only
    held: bool | None = None  # whether the path carried packets after a silence; None: there was none


class PlayerProcess:
    """A program on one host. What it reports is put into `messages`, with its side."""

    def __init__(self, side: int, host: Host, process: asyncio.subprocess.Process, messages: Messages) -> None:
        self.side = side
        self.host = host
        self._messages = messages
        self._process = process
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, program: Program, host: Host, side: int, messages: Messages) -> "PlayerProcess":
        process = await asyncio.create_subprocess_exec(
            *host.namespace.command(program.command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            limit=_LONGEST_LINE,
        )
        return cls(side, host, process, messages)

    def send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def close(self) -> None:
        """It ends when its standard input does."""
        with contextlib.suppress(ProcessLookupError):
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), STOPS_WITHIN)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._messages.put_nowait((self.side, json.loads(line)))
        self._messages.put_nowait((self.side, {"ended": await self._process.wait()}))


class Pair:
    """Two running programs. Use `open_pair`."""

    def __init__(
        self, lab: Lab, node: LabNode, program: Program, players: list[PlayerProcess], messages: Messages
    ) -> None:
        self._lab = lab
        self._node = node
        self._program = program
        self._players = players
        self._messages = messages
        self._number = 0

    async def started(self) -> None:
        """Waits until both programs are."""
        async with asyncio.timeout(STARTS_WITHIN):
            await self._both("started")

    async def play(self, limit: float, hold: float = 0.0) -> Outcome:
        """One round with new sockets and NATs that know nothing. `limit`: seconds after both sides are ready. `hold`:
        seconds of silence once they have a direct path. Raises RuntimeError if a program has ended."""
        self._number += 1
        self._lab.flush()
        rendezvous = _RendezvousTap(self._messages, self._number, asyncio.get_running_loop())
        if self._program.is_causeway:
            self._lab.wire.taps.append(rendezvous)
        try:
            self._start()
            outcome = await self._outcome(limit)
            if outcome.seconds is not None and hold:
                outcome.held = await self._holds(hold)
        finally:
            if self._program.is_causeway:
                self._lab.wire.taps.remove(rendezvous)
        for player in self._players:
            player.send({"stop": self._number})
        async with asyncio.timeout(STOPS_WITHIN):
            await self._both("stopped")
        outcome.rendezvous_bytes = rendezvous.received
        return outcome

    def _start(self) -> None:
        sides: list[dict[str, Any]] = self._node.session() if self._program.is_causeway else [{}, {}]
        for player, own in zip(self._players, sides, strict=True):
            families = {":" in address for address in player.host.addresses}
            stun = [(address, port) for address, port in self._node.stun if (":" in address) in families]
            config = {"side": player.side, "stun": stun, "hard_nats": self._program.hard_nats, **own}
            player.send({"start": self._number, "config": config})

    async def _outcome(self, limit: float) -> Outcome:
        loop = asyncio.get_running_loop()
        ready: dict[int, float] = {}
        direct: dict[int, float] = {}
        joined: set[int] = set()
        paths, reasons = ["", ""], ["", ""]
        deadline = loop.time() + READY_WITHIN
        # A message by way of a relay: from one site to the relay, and from there to the other site.
        signal_delay = 2 * self._lab.wire.line.delay_ms / 1000
        while len(direct) < 2 and not all(reasons):
            try:
                async with asyncio.timeout_at(deadline):
                    side, message = await self._messages.get()
            except TimeoutError:
                break
            if "ended" in message:
                raise RuntimeError(f"{self._program.title} has ended with status {message['ended']}")
            if message.get("round") != self._number:
                continue
            if "signal" in message:
                loop.call_later(signal_delay, self._players[1 - side].send, message)
            elif "ready" in message:
                ready.setdefault(side, message["ready"])
                if len(ready) == 2:
                    deadline = loop.time() + limit
            elif "direct" in message:
                direct.setdefault(side, message["direct"])
                paths[side] = message["path"]
            elif "joined" in message:
                joined.add(side)
                if len(joined) == 2 and len(ready) < 2:  # over TLS, where no RENDEZVOUS can be seen
                    deadline = min(deadline, loop.time() + limit)
            elif "failed" in message:
                reasons[side] = message["failed"]
        if len(direct) < 2:
            reason = "; ".join(dict.fromkeys(filter(None, reasons))) or "none found in time"
            return Outcome(reason=reason, is_relayed=len(joined) == 2)
        return Outcome(max(0.0, max(direct.values()) - max(ready.values(), default=0.0)), paths)

    async def _holds(self, seconds: float) -> bool:
        for player in self._players:
            player.send({"round": self._number, "silence": True})
        await asyncio.sleep(seconds)
        for player in self._players:
            player.send({"round": self._number, "check": True})
        async with asyncio.timeout(STOPS_WITHIN):
            return all(await self._both("held"))

    async def _both(self, key: str) -> list[Any]:
        """What both players report under this key; None for one whose round has failed."""
        found: dict[int, Any] = {}
        while len(found) < 2:
            side, message = await self._messages.get()
            if "ended" in message:
                raise RuntimeError(f"{self._program.title} has ended with status {message['ended']}")
            if key in message:
                found[side] = message[key]
            elif "failed" in message and key == "held":
                found[side] = None
        return [found[0], found[1]]


@contextlib.asynccontextmanager
async def open_pair(lab: Lab, node: LabNode, program: Program, hosts: tuple[Host, Host]) -> AsyncIterator[Pair]:
    """Starts the program on both hosts. Raises RuntimeError if it does not start."""
    messages: Messages = asyncio.Queue()
    async with contextlib.AsyncExitStack() as stack:
        players = []
        for side, host in enumerate(hosts):
            players.append(await PlayerProcess.start(program, host, side, messages))
            stack.push_async_callback(players[-1].close)
        pair = Pair(lab, node, program, players, messages)
        await pair.started()
        yield pair


class _RendezvousTap:
    """Sees the RENDEZVOUS of a session on the wire. Causeway's players are ready when they have received the first one,
    which the client's interface does not report."""

    def __init__(self, messages: Messages, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.received = 0  # bytes that the node received
        self._messages = messages
        self._number = number
        self._loop = loop

    def __call__(self, source: str, target: str, packet: bytes, now: float) -> None:
        payload = _udp_payload(packet)
        if not payload or payload[0] != PacketType.RENDEZVOUS:
            return
        if target == RELAY:
            self.received += len(payload)
        elif source == RELAY:
            side = 1 - payload[9]  # down, the byte is the seat of the sender
            self._loop.call_soon_threadsafe(self._messages.put_nowait, (side, {"round": self._number, "ready": now}))


def _udp_payload(packet: bytes) -> bytes:
    if packet[0] >> 4 == 6:
        return packet[48:] if packet[6] == _UDP else b""
    length = (packet[0] & 15) * 4
    return packet[length + 8 :] if packet[9] == _UDP else b""
