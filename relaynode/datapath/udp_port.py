"""Reads and sends many datagrams with one system call: recvmmsg and sendmmsg through ctypes, with reused buffers.

Nearly all of a relay's cost is the kernel's work for each packet and for each system call; the number of calls can be
reduced. Where the two calls are missing, as they exist only on Linux, each datagram takes one call.

An address from `recvmmsg` is the bytes that the kernel wrote: the player's sockaddr, then the control message with the
local address of the datagram. An answer that is sent with these bytes leaves from that local address (EDGEGAP.md W40).
"""

import ctypes
import errno
import socket
import sys
from collections.abc import Sequence
from typing import Any

from ..core.addresses import Address
from . import sockets
from .buffers import BATCH, MESSAGE_SIZE, READ_SIZE, ReceiveBatch, SendBatch


def _system_calls() -> tuple[Any, Any] | None:
    """(recvmmsg, sendmmsg); None where they are not available."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    receive, send = libc.recvmmsg, libc.sendmmsg
    receive.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
    send.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
    return receive, send


_CALLS = _system_calls()


class UdpPort:
    """A UDP socket that takes one system call for each datagram. Errors are counted and never raised.

    Datagrams that cannot be sent immediately are lost, as a queue would delay the datagrams after them.
    """

    def __init__(self, udp: socket.socket) -> None:
        self.send_full = self.send_refused = self.receive_errors = 0
        self.handed_over = 0  # datagrams passed on for sending
        self._socket = udp
        self._controls: dict[bytes, sockets.Control] = {}

    def receive(self, limit: int) -> Sequence[tuple[bytes, Address]]:
        """Up to `limit` waiting datagrams, with their source addresses."""
        received: list[tuple[bytes, Address]] = []
        for _ in range(min(limit, BATCH)):
            try:
                data, ancillary, _, peer = self._socket.recvmsg(READ_SIZE, sockets.CONTROL_SIZE)
            except BlockingIOError:
                break
            except OSError:
                self.receive_errors += 1
                break
            received.append((data, (*peer, self._control(ancillary))))
        return received

    def add(self, data: bytes, addr: Address) -> None:
        """Send a datagram now or in the next `flush`."""
        self.handed_over += 1
        try:
            self._socket.sendmsg((data,), addr[-1], 0, addr[:-1])
        except OSError as error:
            self._count_unsent(error.errno)

    def flush(self) -> None:
        """Send the waiting datagrams."""

    def _count_unsent(self, number: int | None, datagrams: int = 1) -> None:
        if number in _FULL:
            self.send_full += datagrams
        else:
            self.send_refused += 1  # no route, refused by a firewall, or an invalid address

    def _control(self, ancillary: list[tuple[int, int, bytes]]) -> sockets.Control:
        """reply_control, cached by local address, so that seats with the same local address share one object."""
        if not ancillary:
            return ()
        key = ancillary[0][2]
        control = self._controls.get(key)
        if control is None:
            if len(self._controls) >= 1024:  # 127.0.0.0/8 has too many local addresses for a cache
                self._controls.clear()
            control = self._controls[key] = sockets.reply_control(ancillary)
        return control


_FULL = (errno.EAGAIN, errno.ENOBUFS)


class BatchedUdpPort(UdpPort):
    """A UDP socket that reads and sends batches with recvmmsg and sendmmsg."""

    def __init__(self, udp: socket.socket, calls: tuple[Any, Any]) -> None:
        super().__init__(udp)
        self._receive_call, self._send_call = calls
        self._fd = udp.fileno()
        self._count = 0  # of the last batch
        self.receive_batch = ReceiveBatch(udp.family)
        self.send_batch = SendBatch(udp.family, self.flush)
        self.add = self.send_batch.add  # type: ignore[method-assign]

    def read(self, limit: int) -> int:
        """Read up to `limit` waiting datagrams into `receive_batch`, until the next call. Returns their number."""
        batch = self.receive_batch
        batch.reset(self._count)
        count: int = self._receive_call(self._fd, batch.messages_at, min(limit, BATCH), socket.MSG_DONTWAIT, None)
        self._count = max(count, 0)
        if count > 0:
            batch.blank_interfaces(count)
            return count
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            self.receive_errors += 1
        return 0

    def receive(self, limit: int) -> Sequence[tuple[bytes, Address]]:
        batch, count = self.receive_batch, self.read(limit)
        return [
            (batch.payloads[at : at + size], batch.addresses[where])
            for (at, where, _), size in zip(batch.slots, batch.sizes(count), strict=False)
        ]

    def flush(self) -> None:
        count = self.send_batch.fill()
        self.handed_over += count
        self._send_all(count)
        self.send_batch.clear()

    def _send_all(self, count: int) -> None:
        """sendmmsg stops at a datagram that it cannot send. It reports the error only if that datagram is the first."""
        done = 0
        while done < count:
            sent = self._send_call(self._fd, self.send_batch.messages_at + done * MESSAGE_SIZE, count - done, 0)
            if sent > 0:
                done += sent
                continue
            number = ctypes.get_errno()
            if number == errno.EINTR:
                continue
            lost = count - done if number in _FULL else 1
            self._count_unsent(number, lost)
            done += lost


def can_batch() -> bool:
    return _CALLS is not None


def udp_port(udp: socket.socket) -> UdpPort:
    """The faster of the two classes that this system supports."""
    return UdpPort(udp) if _CALLS is None else BatchedUdpPort(udp, _CALLS)
