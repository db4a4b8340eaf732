"""The batches of datagrams, without a socket."""

import ctypes
import socket

import pytest

from relaynode.core.addresses import ADDRESS_SIZE
from relaynode.datapath.buffers import BATCH, ReceiveBatch, SendBatch


def address(number: int) -> bytes:
    return bytes((number,)) * ADDRESS_SIZE


def sent(batch: SendBatch) -> list[tuple[bytes, bytes]]:
    pieces = zip(batch.pieces[::2], batch.pieces[1::2], batch.names, strict=True)
    return [(ctypes.string_at(place, size), addr) for place, size, addr in pieces]


@pytest.fixture
def received() -> ReceiveBatch:
    batch = ReceiveBatch(socket.AF_INET6)
    batch.put(0, bytes(range(1, 21)), address(1))
    batch.put(1, b"12345678X", address(2))
    return batch


def test_a_column_has_a_value_for_each_datagram(received: ReceiveBatch) -> None:
    assert received.sizes(2) == [20, 9]
    assert received.first_words(2) == [0x0807060504030201, int.from_bytes(b"12345678", "little")]
    assert received.ninth_bytes(2) == [9, ord("X")]


def test_a_slot_leads_to_payload_and_address(received: ReceiveBatch) -> None:
    at, where, pointer = received.slots[1]
    assert received.payloads[at : at + 9] == b"12345678X"
    assert received.addresses[where] == address(2)
    assert ctypes.string_at(pointer.value or 0, 9) == b"12345678X"


def test_nothing_of_an_address_is_left_for_the_next_batch(received: ReceiveBatch) -> None:
    received.reset(1)
    _, first, _ = received.slots[0]
    _, second, _ = received.slots[1]
    assert received.addresses[first] == bytes(ADDRESS_SIZE)
    assert received.addresses[second] == address(2), "only as many as were received are cleared"


def test_a_full_batch_is_sent_before_another_datagram_is_added() -> None:
    flushed: list[list[tuple[bytes, bytes]]] = []

    def flush() -> None:
        flushed.append(sent(batch))
        batch.clear()

    batch = SendBatch(socket.AF_INET6, flush)
    for number in range(BATCH + 1):
        batch.add(b"%d" % number, address(number))
    assert [[data for data, _ in each] for each in flushed] == [[b"%d" % number for number in range(BATCH)]]
    assert sent(batch) == [(b"%d" % BATCH, address(BATCH))]


def test_datagrams_are_sent_in_order_from_where_they_are(received: ReceiveBatch) -> None:
    batch = SendBatch(socket.AF_INET6, lambda: None)
    assert batch.fill() == 0
    batch.add(b"copied", address(3))
    batch.pieces += received.payloads_at + received.slots[0][0] + 2, 3
    batch.names.append(address(4))
    assert batch.fill() == 2
    assert sent(batch) == [(b"copied", address(3)), (b"\x03\x04\x05", address(4))]
    assert batch.addresses[: 2 * ADDRESS_SIZE] == address(3) + address(4)
