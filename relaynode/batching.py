"""Many datagrams a system call: recvmmsg and sendmmsg by ctypes, into and out of buffers made once.

Nearly all a relay costs is the kernel's work for each packet and each call; calls are what can be saved. Where the
two are missing (they are Linux's), one datagram a call does the same.

An address that came by `recvmmsg` is the bytes the kernel gave: the player's sockaddr, then the control message with
the local address it wrote to. Sent back as they are they make an answer leave from where it was asked (spec W40).
"""

import ctypes
import errno
import mmap
import socket
import sys
from collections.abc import Sequence
from typing import Any

from . import ports
from .addresses import ADDRESS_SIZE, Address, Outgoing

BATCH = 64
"""Datagrams a call; more gains nothing that can be measured."""

READ_SIZE = 2048
"""More than any datagram we take: what is too long is seen to be, never cut to something that looks right."""

_SLOT = ADDRESS_SIZE + 8  # an address, and the end of struct in6_pktinfo: the interface, which is left to the routes
_NAME_SIZE = {socket.AF_INET: 16, socket.AF_INET6: 28}
_CONTROL_AT = 32
_CONTROL_SIZE = {socket.AF_INET: socket.CMSG_SPACE(12), socket.AF_INET6: socket.CMSG_SPACE(20)}
_PKTINFO_INTERFACE_AT = (_CONTROL_AT + socket.CMSG_LEN(0)) // 4  # in struct in_pktinfo it comes first


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    """struct mmsghdr (recvmmsg(2)), as on every Linux with 8-byte pointers."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_uint64),  # an int, and the padding at the end of the struct msghdr inside
        ("received", ctypes.c_uint64),
    ]


_MESSAGE_SIZE = ctypes.sizeof(_Message)
_RECEIVED_AT = _Message.received.offset // 4


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
        self.send_full = self.send_refused = self.receive_failed = 0
        self._socket = udp
        self._controls: dict[bytes, ports.Control] = {}

    def receive(self, most: int) -> Sequence[tuple[bytes, Address]]:
        """Up to `most` datagrams that wait, with where they came from."""
        received: list[tuple[bytes, Address]] = []
        for _ in range(min(most, BATCH)):
            try:
                data, ancillary, _, peer = self._socket.recvmsg(READ_SIZE, ports.CONTROL_SIZE)
            except BlockingIOError:
                break
            except OSError:
                self.receive_failed += 1
                break
            received.append((data, (*peer, self._control(ancillary))))
        return received

    def send(self, outgoing: Sequence[Outgoing]) -> None:
        for _, data, addr in outgoing:
            try:
                self._socket.sendmsg((data,), addr[-1], 0, addr[:-1])
            except OSError as error:
                self._count_unsent(error.errno)

    def _count_unsent(self, number: int | None, datagrams: int = 1) -> None:
        if number in _FULL:
            self.send_full += datagrams
        else:
            self.send_refused += 1  # no route, a firewall's veto, an address nobody can have

    def _control(self, ancillary: list[tuple[int, int, bytes]]) -> ports.Control:
        """reply_control, made once for each local address: seats that came to the same one share it."""
        if not ancillary:
            return ()
        key = ancillary[0][2]
        control = self._controls.get(key)
        if control is None:
            if len(self._controls) >= 1024:  # as 127.0.0.0/8 has more local addresses than are worth remembering
                self._controls.clear()
            control = self._controls[key] = ports.reply_control(ancillary)
        return control


_FULL = (errno.EAGAIN, errno.ENOBUFS)


class BatchedUdpPort(UdpPort):
    """The same by recvmmsg and sendmmsg."""

    def __init__(self, udp: socket.socket, calls: tuple[Any, Any]) -> None:
        super().__init__(udp)
        self._receive_call, self._send_call = calls
        self._fd = udp.fileno()
        self._has_ipv4_pktinfo = udp.family == socket.AF_INET
        self._incoming = _Batch(udp.family)
        self._outgoing = _Batch(udp.family)
        # recvmmsg writes into the headers what it found; they are put back by one copy.
        self._headers = bytes(self._incoming.messages)

    def receive(self, most: int) -> Sequence[tuple[bytes, Address]]:
        batch = self._incoming
        count = self._receive_call(self._fd, batch.messages_at, min(most, BATCH), socket.MSG_DONTWAIT, None)
        if count <= 0:
            if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
                self.receive_failed += 1
            return ()
        if self._has_ipv4_pktinfo:
            batch.blank_interfaces(count)
        payloads, addresses = batch.payloads, batch.addresses
        received = [
            (payloads[at : at + size], addresses[where])
            for at, where, size in zip(_PAYLOAD_AT, _ADDRESS, batch.sizes(count), strict=False)
        ]
        # What stays in a buffer must never be taken for a part of the next, shorter packet's address.
        ctypes.memset(batch.addresses_at, 0, count * _SLOT)
        ctypes.memmove(batch.messages_at, self._headers, count * _MESSAGE_SIZE)
        return received

    def send(self, outgoing: Sequence[Outgoing]) -> None:
        if len(outgoing) > BATCH:
            for start in range(0, len(outgoing), BATCH):
                self.send(outgoing[start : start + BATCH])
            return
        batch = self._outgoing
        payloads, addresses, iov_words = batch.payloads, batch.addresses, batch.iov_words
        for index, (_, data, addr) in enumerate(outgoing):
            size = len(data)
            at = index * READ_SIZE
            payloads[at : at + size] = data
            addresses[_ADDRESS[index]] = addr
            iov_words[2 * index + 1] = size
        self._send_all(len(outgoing))

    def _send_all(self, count: int) -> None:
        """sendmmsg stops at a datagram it cannot send, and says why only when asked to begin with that one."""
        done = 0
        while done < count:
            sent = self._send_call(self._fd, self._outgoing.messages_at + done * _MESSAGE_SIZE, count - done, 0)
            if sent > 0:
                done += sent
                continue
            number = ctypes.get_errno()
            if number == errno.EINTR:
                continue
            lost = count - done if number in _FULL else 1
            self._count_unsent(number, lost)
            done += lost


class _Batch:
    """BATCH messages, each with a payload of up to READ_SIZE bytes and an address, and views to reach into them."""

    def __init__(self, family: int) -> None:
        # Of all the buffers in Python, slices of these are bytes, and are cut and written fastest.
        self.payloads = mmap.mmap(-1, BATCH * READ_SIZE)
        self.addresses = mmap.mmap(-1, BATCH * _SLOT)
        payloads_at = ctypes.addressof(ctypes.c_char.from_buffer(self.payloads))
        self.addresses_at = ctypes.addressof(ctypes.c_char.from_buffer(self.addresses))
        self._iovs = (_Iovec * BATCH)()
        self.messages = (_Message * BATCH)()
        self.messages_at = ctypes.addressof(self.messages)
        self.iov_words = memoryview(self._iovs).cast("B").cast("Q")
        self._message_words = memoryview(self.messages).cast("B").cast("I")
        self._address_words = memoryview(self.addresses).cast("I")
        for index in range(BATCH):
            self._lay_out(index, socket.AddressFamily(family), payloads_at)

    def sizes(self, count: int) -> list[int]:
        """Of the datagrams received."""
        step = _MESSAGE_SIZE // 4
        return self._message_words[_RECEIVED_AT : step * count : step].tolist()

    def blank_interfaces(self, count: int) -> None:
        """In struct in_pktinfo: an answer takes the way the routes say, which need not be the one the packet came."""
        step = _SLOT // 4
        self._address_words[_PKTINFO_INTERFACE_AT : step * count : step] = _ZEROS[:count]

    def _lay_out(self, index: int, family: socket.AddressFamily, payloads_at: int) -> None:
        address = self.addresses_at + index * _SLOT
        iov, message = self._iovs[index], self.messages[index]
        iov.base, iov.size = payloads_at + index * READ_SIZE, READ_SIZE
        message.name, message.name_size = address, _NAME_SIZE[family]
        message.iov, message.iov_count = ctypes.addressof(iov), 1
        message.control, message.control_size = address + _CONTROL_AT, _CONTROL_SIZE[family]


_PAYLOAD_AT = range(0, BATCH * READ_SIZE, READ_SIZE)
_ADDRESS = [slice(at, at + ADDRESS_SIZE) for at in range(0, BATCH * _SLOT, _SLOT)]
_ZEROS = memoryview(bytes(4 * BATCH)).cast("I")


def can_batch() -> bool:
    return _CALLS is not None


def udp_port(udp: socket.socket) -> UdpPort:
    """The faster of the two that works here."""
    return UdpPort(udp) if _CALLS is None else BatchedUdpPort(udp, _CALLS)
