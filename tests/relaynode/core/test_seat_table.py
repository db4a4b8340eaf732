"""The table's indexes stay true whatever is put in and taken out."""

import os
import tracemalloc

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relaynode.core.dialects.native_binding import NativeBinding
from relaynode.core.relay import RelayConfig
from relaynode.core.seat_table import SeatTable, token_pair
from relaynode.core.seats import Seat
from tests.relaynode.players import NOW, grant_of, relay_with
from tests.support.grants import SESSION_TOKEN, user_token


def native_binding(table: SeatTable, seat: Seat) -> NativeBinding:
    return NativeBinding(table.new_connection(), seat, bytes(16), bytes(16), bytes(16), bytes(16))


def test_a_pair_is_the_first_eight_bytes_on_the_wire() -> None:
    wire = bytes.fromhex("01286bee4dc2a6d0")
    assert token_pair(4000000001, 3500589645) == int.from_bytes(wire, "little")


def test_connection_ids_carry_their_index_and_rest_before_they_return() -> None:
    table = SeatTable(os.urandom)
    seat = table.put_session(grant_of(), NOW).seats[1]
    indexes = []
    for _ in range(3000):
        binding = native_binding(table, seat)
        table.bind_native(seat, binding, ("192.0.2.1", 1), 1, NOW)
        indexes.append(binding.id & 0xFFFFF)
    assert max(indexes) < 1100
    last_used: dict[int, int] = {}
    for when, index in enumerate(indexes):
        assert when - last_used.get(index, -9999) > 1000
        last_used[index] = when


def test_a_packet_to_the_player_takes_the_next_sequence() -> None:
    table = SeatTable(os.urandom)
    binding = native_binding(table, table.put_session(grant_of(), NOW).seats[1])
    assert [binding.seal(0xC4, 0, b"")[5] for _ in range(3)] == [1, 2, 3]


def test_5000_sessions_of_4_take_less_than_100_mb() -> None:
    tracemalloc.start()
    relay = relay_with(config=RelayConfig(max_sessions=10_000))
    for number in range(1, 501):
        relay.apply_grant(grant_of(session=f"{number:012x}-S", token=number, seats=4), NOW)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used * 10 < 100e6


SESSIONS = [f"{number:012x}-S" for number in range(3)]
NAMES = st.sampled_from(SESSIONS)
SEATS = st.integers(0, 3)


class TableMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.table = SeatTable(os.urandom)
        self.revision = 0

    @rule(name=NAMES, seats=st.integers(0, 4), shift=st.integers(0, 2))
    def put(self, name: str, seats: int, shift: int) -> None:
        self.revision += 1
        number = SESSIONS.index(name)
        grant = grant_of(seats=seats, session=name, token=SESSION_TOKEN + number + 3 * shift, revision=self.revision)
        self.table.put_session(grant, NOW)

    def seat(self, name: str, number: int) -> Seat | None:
        session = self.table.sessions.get(name)
        return session.seats.get(number) if session else None

    @rule(name=NAMES, number=SEATS, port=st.integers(0, 1))
    def bind(self, name: str, number: int, port: int) -> None:
        if seat := self.seat(name, number):
            self.table.bind(seat, ("192.0.2.1", number), port, NOW)

    @rule(name=NAMES, number=SEATS)
    def bind_native(self, name: str, number: int) -> None:
        if seat := self.seat(name, number):
            self.table.bind_native(seat, native_binding(self.table, seat), ("192.0.2.1", number), 1, NOW)

    @rule(name=NAMES, number=SEATS)
    def unbind(self, name: str, number: int) -> None:
        if seat := self.seat(name, number):
            self.table.unbind(seat)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        if session := self.table.sessions.get(name):
            for seat in session.seats.values():
                self.table.unbind(seat)
            self.table.remove_session(session)

    @invariant()
    def indexes_are_true(self) -> None:
        seats = [seat for session in self.table.sessions.values() for seat in session.seats.values()]
        assert self.table.seat_count == len(seats)
        assert self.table.connected == sum(seat.addr is not None for seat in seats)
        assert self.table.by_pair == {it.edgegap.pair: it.edgegap for it in seats if it.edgegap.pair is not None}
        assert all((seat.edgegap.pair or 0) & 0xFFFFFFFF == user_token(seat.number) for seat in seats)
        native = [seat.binding for seat in seats if isinstance(seat.binding, NativeBinding)]
        assert self.table.by_connection == {binding.id: binding for binding in native}


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
