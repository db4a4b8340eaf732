"""One named counter for each outcome of a packet.

The counters are integers that only grow. Those of forwarded packets and of direct ones are attributes, all others are
in dicts.
"""

from typing import Literal, get_args

from causeway_client.protocol.offers import ChangeReason

from .addresses import Outgoing

Drop = Literal[
    "too_short",
    "too_long",
    "unknown_type",
    "malformed",
    "unsupported_version",
    "source_rate_limited",
    "seat_rate_limited",
    "grants_not_loaded",
    # edgegap
    "unknown_token",
    "session_ended",
    "seat_revoked",
    "wrong_port",
    "dialect_off",
    "bound_to_native",
    "address_unvalidated",
    "unknown_connection_id",
    # native
    "replayed_connect",
    "unknown_connection",
    "resumed_connection",
    "bad_tag",
    "replayed",
    # both
    "rate_limited",
    "not_allowed",
    "peer_absent",
    "direct_not_allowed",
    # STUN
    "bad_stun",
]

Answer = Literal[
    "ping_valid",
    "ping_checking",
    "ping_invalid",
    "ping_session_timeout",
    "welcome",
    "cookie",
    "refused",
    "pong",
    "probe_reply",
    "probe_refused",
    "path_challenge",
    "notice",
    "offer",
    "stun",
]

DROPS: tuple[Drop, ...] = get_args(Drop)
ANSWERS: tuple[Answer, ...] = get_args(Answer)
OFFER_ANSWERS = ("accepted", "not_accepted")
RELAY_CHANGE_REASONS = tuple(reason.name.lower() for reason in ChangeReason)


class Counters:
    __slots__ = (
        "answers",
        "direct_bytes",
        "direct_packets",
        "drops",
        "forwarded_bytes",
        "forwarded_packets",
        "offers",
        "relay_changes",
    )

    def __init__(self) -> None:
        self.forwarded_packets = 0  # datagrams sent on to players, each copy of a fan-out
        self.forwarded_bytes = 0  # their UDP payload
        self.direct_packets = 0  # that players sent on direct paths, as they report it
        self.direct_bytes = 0  # their UDP payload
        self.drops: dict[Drop, int] = dict.fromkeys(DROPS, 0)
        self.answers: dict[Answer, int] = dict.fromkeys(ANSWERS, 0)
        self.offers: dict[str, int] = dict.fromkeys(OFFER_ANSWERS, 0)  # acknowledged ones
        self.relay_changes: dict[str, int] = dict.fromkeys(RELAY_CHANGE_REASONS, 0)

    def drop(self, reason: Drop) -> Outgoing | None:
        """Count a drop. Returns None, the answer to a dropped packet."""
        self.drops[reason] += 1
        return None

    def as_dict(self) -> dict[str, int]:
        """All of them by name: forwarded_..., direct_..., answer_<kind>, drop_<reason>, offer_<answer>,
        relay_change_<reason>."""
        return {
            "forwarded_packets": self.forwarded_packets,
            "forwarded_bytes": self.forwarded_bytes,
            "direct_packets": self.direct_packets,
            "direct_bytes": self.direct_bytes,
            **{f"answer_{kind}": count for kind, count in self.answers.items()},
            **{f"drop_{reason}": count for reason, count in self.drops.items()},
            **{f"offer_{answer}": count for answer, count in self.offers.items()},
            **{f"relay_change_{reason}": count for reason, count in self.relay_changes.items()},
        }
