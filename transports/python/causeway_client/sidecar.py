"""The sidecar: it forwards the packets of an unmodified UDP game over a relay.

    python -m causeway_client.sidecar host --relay HOST:PORT --game 127.0.0.1:PORT
    python -m causeway_client.sidecar join --relay HOST:PORT --listen 127.0.0.1:PORT

`host` runs beside the game's server. It opens a local UDP port for each remote player, so that any server can
distinguish them. `join` runs beside a player's game. It listens on a port to which the game connects as if it were the
server, and answers the local address that sent last; it serves one local program, which may restart on another port.

Datagrams that are longer than the payload of a packet are split into fragments, which the sidecar at the other end
reassembles (fragments.py), so a game keeps its MTU. A player without a sidecar cannot receive such datagrams, and must
not send any.

Tokens are read from the environment or from the file of --credentials, never from the command line, which other users
of the machine can read.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, cast

from . import asyncio_udp, credentials
from .edgegap import ADVICE, EdgegapClient, EdgegapHost, EdgegapRefused, StateChanged
from .edgegap import MAX_PAYLOAD as EDGEGAP_MAX_PAYLOAD
from .fragments import Fragmenter, Reassembler
from .protocol.errors import ConnectionFailed, ConnectTimeout, InvalidTarget, PayloadTooLarge, SeatRevoked, SessionEnded
from .protocol.events import Event, Left, PathChanged, ReconnectStarted, RelayChanged, Welcomed

logger = logging.getLogger("causeway_client.sidecar")

Relay = asyncio_udp.Connection | EdgegapClient
MAX_GAME_PORTS = 255
PATH_LINES_AT_ONCE, SECONDS_PER_PATH_LINE = 20, 10.0  # of the log about changed paths


class ExitCode(IntEnum):
    STOPPED = 0
    USAGE = 2  # also of argparse
    REFUSED = 3
    NO_ANSWER = 4
    SESSION_OVER = 5
    SYSTEM = 6  # a port in use, a name that does not resolve


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="sidecar: %(message)s")
    try:
        asyncio.run(_run(options))
    except asyncio.CancelledError:
        return ExitCode.STOPPED
    except (ConnectionFailed, OSError, ValueError) as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return _exit_code(error)
    return ExitCode.STOPPED


def _exit_code(error: Exception) -> ExitCode:
    match error:
        case ConnectTimeout():
            return ExitCode.NO_ANSWER
        case SessionEnded() | SeatRevoked():
            return ExitCode.SESSION_OVER
        case ConnectionFailed():
            return ExitCode.REFUSED
        case OSError():
            return ExitCode.SYSTEM
        case _:
            return ExitCode.USAGE


async def _run(options: argparse.Namespace) -> None:
    _cancel_on_signals()
    async with _connected(options) as relay:
        if options.role == "host":
            side: HostSide | JoinSide = HostSide(relay, options.game, options.idle_timeout)
        else:
            side = await JoinSide.open(relay, options.listen, options.target)
        print(f"ready: {side}", flush=True)
        try:
            await _until_one_fails(side.forward(), _watch(relay, side))
        finally:
            side.close()


async def _until_one_fails(*parts: Any) -> None:
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _cancel_on_signals() -> None:
    """SIGINT and SIGTERM cancel the main task, even if the parent process had them ignored."""
    loop, task = asyncio.get_running_loop(), cast("asyncio.Task[None]", asyncio.current_task())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(task.cancel))


@contextlib.asynccontextmanager
async def _connected(options: argparse.Namespace) -> AsyncIterator[Relay]:
    host, port = options.relay
    relay: Relay
    if options.dialect == "edgegap":
        found = credentials.load(("user_token", "session_token"), os.environ, options.credentials)
        numbers = {name: credentials.decode_number(name, text) for name, text in found.items()}
        kind = EdgegapHost if options.role == "host" else EdgegapClient
        async with kind(host, port, **numbers) as relay:
            await relay.wait_valid(options.connect_timeout)
            yield relay
    else:
        found = credentials.load(
            ("connect_token", "seat_key"),
            os.environ,
            options.credentials,
            optional=("peer_keys", "websocket_url", "offer_key", "standby"),
        )
        relay = await asyncio_udp.connect(
            host,
            port,
            connect_token=found["connect_token"],
            seat_key=found["seat_key"],
            peer_keys=found.get("peer_keys", ""),
            websocket_url=options.websocket or found.get("websocket_url", ""),
            offer_key=found.get("offer_key", ""),
            standby=credentials.decode_standby(found.get("standby")),
            connect_timeout=options.connect_timeout,
            reconnect_timeout=options.reconnect_timeout,
        )
        async with relay:
            yield relay


async def _watch(relay: Relay, side: "HostSide | JoinSide") -> None:
    """Handles the events of the connection. Raises EdgegapRefused; `receive` raises the end of a native connection."""
    path_log = PathLog()
    async for event in relay.events():
        side.on_event(event)
        match event:
            case PathChanged():
                path_log.changed(event, time.monotonic())
            case StateChanged(state) if state in ADVICE:
                raise EdgegapRefused(state)
            case ReconnectStarted():
                logger.info("the relay does not answer, reconnecting")
            case RelayChanged(previous, current, reason, gap_ms):
                logger.info("changed from relay %s to %s: %s, %d ms", previous, current, reason, gap_ms)
            case Welcomed():
                logger.info("connected as seat %d", event.seat)


class PathLog:
    """One line for each change of a path. A path that changes all the time does not fill the log: the lines that exceed
    the limit are counted, and the next line has the number."""

    def __init__(self) -> None:
        self._left = float(PATH_LINES_AT_ONCE)
        self._counted_at = 0.0
        self._omitted = 0

    def changed(self, change: PathChanged, now: float) -> None:
        """`now`: seconds of any clock that never goes back."""
        earned = (now - self._counted_at) / SECONDS_PER_PATH_LINE
        self._left, self._counted_at = min(self._left + earned, PATH_LINES_AT_ONCE), now
        if self._left < 1:
            self._omitted += 1
            return
        self._left -= 1
        omitted = f"; {self._omitted} earlier changes of paths are not listed" if self._omitted else ""
        self._omitted = 0
        logger.info("packets to player %d take the path %s (%s)%s", change.seat, change.path, change.reason, omitted)


class _LocalPort(asyncio.DatagramProtocol):
    """A local UDP socket whose datagrams are passed to a callable."""

    def __init__(self, on_datagram: Callable[[bytes, Any], None]) -> None:
        self._on_datagram = on_datagram

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._on_datagram(data, addr)

    def error_received(self, exc: Exception) -> None:
        logger.debug("local socket: %s", exc)  # the game may not have started yet


class _RelaySender:
    """Sends the datagrams of a game, in fragments if necessary, and logs one warning if some cannot be sent."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._fragmenter = Fragmenter()
        self._has_warned = False

    def send(self, datagram: bytes, target: int) -> None:
        relay = self._relay
        max_payload = relay.welcome.max_payload if isinstance(relay, asyncio_udp.Connection) else EDGEGAP_MAX_PAYLOAD
        try:
            for payload in self._fragmenter.split(datagram, max_payload):
                relay.send(payload, target)
        except (PayloadTooLarge, InvalidTarget, ValueError) as error:
            if not self._has_warned:
                self._has_warned = True
                logger.warning("a datagram of the game was dropped: %s", error)
        except ConnectionFailed:
            pass  # `receive` raises it too, which ends the sidecar


class HostSide:
    """One local port for each remote player, connected to the game's server. It is opened by the player's first packet,
    and closed when the player leaves, is silent for `idle_timeout` seconds, or has been silent the longest when there
    are more than MAX_GAME_PORTS."""

    def __init__(self, relay: Relay, game: tuple[str, int], idle_timeout: float) -> None:
        self._relay = relay
        self._to_relay = _RelaySender(relay)
        self._game = game
        self._idle_seconds = idle_timeout
        self._ports: OrderedDict[int, asyncio.DatagramTransport] = OrderedDict()  # silent the longest first
        self._used_at: dict[int, float] = {}
        self._reassembler = Reassembler()

    def __str__(self) -> str:
        return f"forwarding players to the game at {self._game[0]}:{self._game[1]}"

    @property
    def open_ports(self) -> int:
        return len(self._ports)

    async def forward(self) -> None:
        async for source, payload in self._relay:
            port = self._ports.get(source) or await self._open_port(source)
            self._touch(source)
            datagram = self._reassembler.receive(source, payload, time.monotonic())
            if datagram is not None:
                port.sendto(datagram)
            self._close_idle()

    def on_event(self, event: Event) -> None:
        if not isinstance(event, Left | Welcomed) or not isinstance(self._relay, asyncio_udp.Connection):
            return
        gone = {event.seat} if isinstance(event, Left) else set(self._ports)
        # Events are read later than they happen: a player that has reconnected keeps its port.
        for seat in gone - self._relay.peers:
            self._close_port(seat)

    def close(self) -> None:
        for source in list(self._ports):
            self._close_port(source)

    async def _open_port(self, source: int) -> asyncio.DatagramTransport:
        def to_relay(data: bytes, addr: Any) -> None:
            if source in self._ports:
                self._touch(source)
                self._to_relay.send(data, source)

        loop = asyncio.get_running_loop()
        port, _ = await loop.create_datagram_endpoint(lambda: _LocalPort(to_relay), remote_addr=self._game)
        self._ports[source] = port
        if len(self._ports) > MAX_GAME_PORTS:
            self._close_port(next(iter(self._ports)))
        logger.info("player %d is at local port %d", source, port.get_extra_info("sockname")[1])
        return port

    def _touch(self, source: int) -> None:
        self._ports.move_to_end(source)
        self._used_at[source] = time.monotonic()

    def _close_idle(self) -> None:
        longest_silent = next(iter(self._ports))
        if time.monotonic() - self._used_at[longest_silent] > self._idle_seconds:
            self._close_port(longest_silent)

    def _close_port(self, source: int) -> None:
        port = self._ports.pop(source, None)
        self._used_at.pop(source, None)
        if port is not None:
            port.close()


class JoinSide:
    """A local port in place of the game's server, which has the seat `target`."""

    def __init__(self, relay: Relay, target: int) -> None:
        self._relay = relay
        self._to_relay = _RelaySender(relay)
        self._target = target
        self._reassembler = Reassembler()
        self._game: Any = None  # the local address that sent the last datagram
        self._port: asyncio.DatagramTransport

    @classmethod
    async def open(cls, relay: Relay, listen: tuple[str, int], target: int) -> "JoinSide":
        """Raises OSError when the port is in use."""
        side = cls(relay, target)
        loop = asyncio.get_running_loop()
        side._port, _ = await loop.create_datagram_endpoint(lambda: _LocalPort(side._from_game), local_addr=listen)
        return side

    def __str__(self) -> str:
        host, port = self._port.get_extra_info("sockname")[:2]
        return f"the game can connect to {host}:{port}"

    async def forward(self) -> None:
        async for source, payload in self._relay:
            if source != self._target:
                continue
            datagram = self._reassembler.receive(source, payload, time.monotonic())
            if datagram is not None and self._game is not None:
                self._port.sendto(datagram, self._game)

    def on_event(self, event: Event) -> None:
        """No event needs handling on a player's side."""

    def close(self) -> None:
        self._port.close()

    def _from_game(self, data: bytes, addr: Any) -> None:
        self._game = addr
        self._to_relay.send(data, self._target)


# -- command line ----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m causeway_client.sidecar",
        description="Forwards the packets of an unmodified UDP game over a relay.",
        epilog="Credentials: CAUSEWAY_CONNECT_TOKEN and CAUSEWAY_SEAT_KEY, or with --dialect edgegap "
        "CAUSEWAY_USER_TOKEN and CAUSEWAY_SESSION_TOKEN; or --credentials FILE, a JSON object with these names in "
        "lower case and without the prefix.",
    )
    roles = parser.add_subparsers(dest="role", required=True)
    host = roles.add_parser("host", help="beside the game's server")
    host.add_argument(
        "--game", type=_address, required=True, metavar="HOST:PORT", help="where the game's server listens"
    )
    host.add_argument(
        "--idle-timeout", type=float, default=120.0, help="seconds until a silent player's port closes (120)"
    )
    join = roles.add_parser("join", help="beside a player's game")
    join.add_argument("--listen", type=_address, required=True, metavar="HOST:PORT", help="the address for the game")
    join.add_argument("--target", type=int, default=0, metavar="SEAT", help="the seat of the server (0)")
    for role in (host, join):
        role.add_argument("--relay", type=_address, required=True, metavar="HOST:PORT")
        role.add_argument(
            "--websocket", default="", metavar="URL", help="where UDP is blocked (that of the credentials' file)"
        )
        role.add_argument("--dialect", choices=("native", "edgegap"), default="native")
        role.add_argument("--credentials", type=Path, metavar="FILE")
        role.add_argument("--connect-timeout", type=float, default=10.0, help="seconds for the first connect (10)")
        role.add_argument("--reconnect-timeout", type=float, default=300.0, help="seconds for a reconnect (300)")
    return parser


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


if __name__ == "__main__":
    sys.exit(main())
