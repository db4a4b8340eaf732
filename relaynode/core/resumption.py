"""How players stay connected when the process that serves them is replaced: their addresses and keys go to the next
process (PROTOCOL.md 7).

The next process cannot know the last sequence numbers. Towards the player it skips more than the earlier one can have
used. From the player it accepts nothing until the player has answered a PATH_CHALLENGE, whose answer shows which
numbers have been used: packets that were recorded before cannot be played again.
"""

import base64
import struct
from collections.abc import Mapping
from typing import Any

from causeway_client.protocol.packets import MAX_DATAGRAM

from .addresses import Address
from .dialects.edgegap_binding import EdgegapBinding
from .dialects.native_binding import NativeBinding
from .forwarding import Forwarder
from .grants import GrantRefused
from .seat_table import SeatTable
from .seats import Seat

SKIPPED = 1 << 30
"""Sequence numbers, of the 2^31 by which a player's next packet may be ahead. No connection sends so many packets
before its state is stored again."""

PART = 2_000
"""Connections whose progress is one message."""

_HEAD = struct.Struct("<I?16sH")
_KEY_SIZE = 16
_MAX_SENT = 1 << 63


def connection_state(seat: Seat) -> dict[str, Any]:
    """For `resume`, as JSON. It contains keys: it stays in memory. A seat that is not connected has no address."""
    state: dict[str, Any] = {"session": seat.session.name, "seat": seat.number, "addr": None}
    if seat.addr is None:
        return state
    state |= {"addr": _packed(seat.addr), "port": seat.port, "dialect": seat.binding.dialect}
    binding = seat.binding
    if isinstance(binding, NativeBinding):
        state |= {
            "id": binding.id,
            "up_key": _text(binding.receive_key),
            "down_key": _text(binding.send_key),
            "nonce": _text(binding.player_nonce),
            "welcome": _text(binding.welcome),
            "sent": binding.totals()[0],
            "shared_with": sorted(binding.shared_with),
            "knows_mode": binding.knows_mode,
            "relay_change": binding.last_relay_change,
            "second_addr": None if binding.second_addr is None else _packed(binding.second_addr),
        }
    return state


def resume(forwarder: Forwarder, seat: Seat, state: Mapping[str, Any], now: float) -> None:
    """Connect the seat as it was when `connection_state` returned `state`. Raises GrantRefused."""
    try:
        if state["addr"] is None or seat.addr is not None or seat.revoked:
            return
        addr, port = _unpacked(state["addr"]), int(state["port"])
        if port not in (0, 1) or state["dialect"] not in seat.session.dialects:
            raise ValueError("not a binding of this seat")
        if state["dialect"] == EdgegapBinding.dialect:
            forwarder.table.bind(seat, addr, port, now)
        else:
            _resume_native(forwarder, seat, state, addr, port, now)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GrantRefused("invalid", "not the state of a connection") from error
    forwarder.watch_silence(seat, now)


def _resume_native(
    forwarder: Forwarder, seat: Seat, state: Mapping[str, Any], addr: Address, port: int, now: float
) -> None:
    table = forwarder.table
    connection, sent = int(state["id"]), int(state["sent"]) + SKIPPED
    up_key, down_key = _bytes(state["up_key"]), _bytes(state["down_key"])
    welcome, second = _bytes(state["welcome"]), state["second_addr"]
    shared_with = {int(number) for number in state["shared_with"]}
    second_addr = None if second is None else _unpacked(second)
    if not 0 < connection < 1 << 32 or connection in table.by_connection or connection in table.resumed:
        raise ValueError("not a connection of its own")
    if {len(up_key), len(down_key)} != {_KEY_SIZE} or len(welcome) > MAX_DATAGRAM or not SKIPPED <= sent < _MAX_SENT:
        raise ValueError("out of range")
    path_key = forwarder.random(16)  # a new one: only the answer to a challenge of this process confirms
    binding = table.mirror.make_native_binding(connection, seat, up_key, down_key, _bytes(state["nonce"]), path_key)
    binding.welcome, binding.shared_with, binding.second_addr = welcome, shared_with, second_addr
    binding.knows_mode = bool(state["knows_mode"])
    change = state["relay_change"]
    binding.last_relay_change = None if change is None else int(change)
    table.resume_native(seat, binding, addr, port, now)
    table.mirror.skip_sent(binding, sent)


def progress(table: SeatTable) -> list[bytes]:
    """Of each native connection its id, whether its player still has to confirm it, the key of its challenges, and its
    sequence numbers, in parts of PART connections."""
    bindings = [*table.by_connection.values(), *table.resumed.values()]
    packed = []
    for binding in bindings:
        body = binding.progress()
        packed.append(_HEAD.pack(binding.id, binding.is_resumed, binding.path_key, len(body)) + body)
    return [b"".join(packed[at : at + PART]) for at in range(0, len(packed), PART)]


def set_progress(table: SeatTable, packed: bytes) -> None:
    """Raises GrantRefused if a connection is not known here, or was served by another packet path."""
    at = 0
    try:
        while at < len(packed):
            connection, is_resumed, path_key, size = _HEAD.unpack_from(packed, at)
            binding = table.resumed[connection]
            binding.set_progress(packed[at + _HEAD.size : at + _HEAD.size + size])
            binding.path_key = path_key
            if not is_resumed:
                table.go_on(binding)
            at += _HEAD.size + size
    except (KeyError, ValueError, struct.error) as error:
        raise GrantRefused("invalid", "not the progress of these connections") from error


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _packed(addr: Address) -> str | list[Any]:
    """An address as the socket returned it: in bytes, or a tuple."""
    return _text(addr) if isinstance(addr, bytes) else list(addr)


def _unpacked(packed: str | list[Any]) -> Address:
    return _bytes(packed) if isinstance(packed, str) else tuple(packed)
