"""Many datagrams a system call: recvmmsg and sendmmsg by ctypes, into and out of buffers made once.

Nearly all a relay costs is the kernel's work for each packet and each call; calls are what can be saved. Where the
two are missing (they are Linux's), one datagram a call does the same.

An address that came by `recvmmsg` is the bytes the kernel gave: the player's sockaddr, then the control message with
the local address it wrote to. Sent back as they are they make an answer leave from where it was asked (EDGEGAP.md W40).
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
    """(recvmmsg, sendmmsg), or None where they are not to be had."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    receive, send = libc.recvmmsg, libc.sendmmsg
    receive.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
    send.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
    return receive, send


_CALLS = _system_calls()


class UdpPort:
    """A UDP socket of ours, one datagram a call. Counts what it does to packets; nothing it meets is raised.

    Datagrams that cannot be sent now are lost: a queue would only make the ones after them late.
    """

    def __init__(self, udp: socket.socket) -> None:
        self.send_full = self.send_refused = self.receive_errors = 0
        self.handed_over = 0  # datagrams to be sent so far
        self._socket = udp
        self._controls: dict[bytes, sockets.Control] = {}

    def receive(self, most: int) -> Sequence[tuple[bytes, Address]]:
        """Up to `most` datagrams that wait, with where they came from."""
        received: list[tuple[bytes, Address]] = []
        for _ in range(min(most, BATCH)):
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
        """Send it, at the latest when `flush` is called."""
        self.handed_over += 1
        try:
            self._socket.sendmsg((data,), addr[-1], 0, addr[:-1])
        except OSError as error:
            self._count_unsent(error.errno)

    def flush(self) -> None:
        """Send what waits."""

    def _count_unsent(self, number: int | None, datagrams: int = 1) -> None:
        if number in _FULL:
            self.send_full += datagrams
        else:
            self.send_refused += 1  # no route, a firewall's veto, an invalid address

    def _control(self, ancillary: list[tuple[int, int, bytes]]) -> sockets.Control:
        """reply_control, made once for each local address: seats that came to the same one share it."""
        if not ancillary:
            return ()
        key = ancillary[0][2]
        control = self._controls.get(key)
        if control is None:
            if len(self._controls) >= 1024:  # as 127.0.0.0/8 has more local addresses than are worth remembering
                self._controls.clear()
            control = self._controls[key] = sockets.reply_control(ancillary)
        return control


_FULL = (errno.EAGAIN, errno.ENOBUFS)


class BatchedUdpPort(UdpPort):
    """The same by recvmmsg and sendmmsg."""

    def __init__(self, udp: socket.socket, calls: tuple[Any, Any]) -> None:
        super().__init__(udp)
        self._receive_call, self._send_call = calls
        self._fd = udp.fileno()
        self._count = 0  # of the last batch
        self.receive_batch = ReceiveBatch(udp.family)
        self.send_batch = SendBatch(udp.family, self.flush)
        self.add = self.send_batch.add  # type: ignore[method-assign]

    def read(self, most: int) -> int:
        """Up to `most` datagrams that wait into `receive_batch`, where they are until the next time; how many."""
        batch = self.receive_batch
        batch.reset(self._count)
        count: int = self._receive_call(self._fd, batch.messages_at, min(most, BATCH), socket.MSG_DONTWAIT, None)
        self._count = max(count, 0)
        if count > 0:
            batch.blank_interfaces(count)
            return count
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            self.receive_errors += 1
        return 0

    def receive(self, most: int) -> Sequence[tuple[bytes, Address]]:
        batch, count = self.receive_batch, self.read(most)
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
        """sendmmsg stops at a datagram it cannot send, and says why only when asked to begin with that one."""
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
    """The faster of the two that works here."""
    return UdpPort(udp) if _CALLS is None else BatchedUdpPort(udp, _CALLS)
