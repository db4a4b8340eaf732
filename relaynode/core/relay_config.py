"""What of the core's behaviour can be set."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelayConfig:
    keep_alive_ms: int = 1000  # native players are told to send a PING this often
    timeout: float = 10.0  # seconds of silence after which a seat counts as gone, 1 to 65
    owner_timeout: float = 60.0  # seconds of silence of an edgegap host after which pings hear SessionTimeout
    max_sessions: int = 10_000
    max_seats: int = 40_000  # in all sessions together; at most 1,000,000, as a connection id has 20 bits for its index
    connect_flood_threshold: int = 2000  # CONNECTs a second above which each must bring a cookie
    connects_per_source: int = 20  # CONNECTs a second above which each of one source must bring a cookie
    refused_connects_per_source: int = 500  # a second, with right cookies; those that connect a player do not count
    connects_per_seat: int = 1  # new CONNECTs a second, ten of which may come at once
    unauthenticated_replies: int = 20_000  # a second, to CONNECTs, probes and STUN of unauthenticated sources, in all
    ping_flood_threshold: int = 5000  # edgegap pings a second with unknown tokens above which none of them is answered
    bad_tokens_per_source: int = 20  # edgegap packets a second with unknown user tokens for one session token
    probes_per_source: int = 1000  # a second; four times as many are refused, the rest is ignored
    stun_per_source: int = 20
    remember_ended: float = 86_400.0  # seconds an ended session is remembered whose last moment is not known
    max_tombstones: int = 100_000  # ended sessions that are remembered; the oldest make room
    max_ended_pairs: int = 50_000  # token pairs of sessions that ended within the last minute

    def __post_init__(self) -> None:
        if not 1 <= self.timeout <= 65:
            raise ValueError("timeout must be 1 to 65 seconds")
        if not 1 <= self.keep_alive_ms <= 65_535:
            raise ValueError("keep_alive_ms must be 1 to 65535")
        if not 1 <= self.max_seats <= 1_000_000:
            raise ValueError("max_seats must be 1 to 1000000")
