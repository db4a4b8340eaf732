"""The base class of all bindings."""

from typing import ClassVar

import pytest

from causeway_client.protocol.packets import Notice, NoticeCode, PacketType
from relaynode.core.dialects.binding import Binding, DialectName, Quality
from relaynode.core.seats import Seat


class DataOnly(Binding):
    """A dialect that can carry only payloads."""

    dialect: ClassVar[DialectName] = "edgegap"
    quality = None

    def encode(self, source: Seat, payload: bytes, now: float) -> bytes | None:
        return payload


class Speechless(Binding):
    dialect: ClassVar[DialectName] = "edgegap"

    @property
    def quality(self) -> Quality | None:
        return None


def test_a_dialect_needs_only_to_carry_payloads(seat: Seat) -> None:
    binding = DataOnly()
    assert binding.encode(seat, b"payload", 0.0) == b"payload"
    assert binding.encode_signal(PacketType.SIGNAL, seat, b"signal") is None
    assert binding.encode_notice(1, Notice(NoticeCode.LEFT)) is None
    assert not binding.may_report_over_limit(0.0)
    assert binding.is_proven


def test_a_dialect_that_cannot_carry_payloads_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="encode"):
        Speechless()  # type: ignore[abstract]
