"""The settings of the core."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelayConfig:
    ports: tuple[int, int] = (0, 0)  # the server and the client port, for WELCOME; 0: unknown
    keep_alive_ms: int = 1000  # the interval at which native players must send a PING
    timeout: float = 10.0  # seconds of silence after which a seat counts as gone, 1 to 65
    owner_timeout: float = 60.0  # seconds of silence of an edgegap host after which pings are answered SessionTimeout
    max_sessions: int = 10_000
    max_seats: int = 40_000  # in all sessions together; at most 1,000,000, as a connection id has 20 bits for its index
    connect_flood_threshold: int = 2000  # CONNECTs a second above which each needs a cookie
    connects_per_source: int = 20  # CONNECTs a second above which each of one source needs a cookie
    refused_connects_per_source: int = 500  # a second, with valid cookies; those that connect a player do not count
    connects_per_seat: int = 1  # new CONNECTs a second, in bursts of up to ten
    unauthenticated_replies: int = 20_000  # a second, to CONNECTs, probes and STUN of all such sources
    ping_flood_threshold: int = 5000  # edgegap pings a second with unknown tokens above which none of them is answered
    bad_tokens_per_source: int = 20  # edgegap packets a second with unknown user tokens for one session token
    probes_per_source: int = 1000  # a second; four times as many are refused, the rest is ignored
    stun_per_source: int = 20
    remember_ended: float = 86_400.0  # seconds for which the end of an unknown session is remembered
    max_tombstones: int = 100_000  # ended sessions that are remembered; beyond this, the oldest are dropped
    max_ended_pairs: int = 50_000  # token pairs of sessions that ended within the last minute

    def __post_init__(self) -> None:
        if not 1 <= self.timeout <= 65:
            raise ValueError("timeout must be 1 to 65 seconds")
        if not 1 <= self.keep_alive_ms <= 65_535:
            raise ValueError("keep_alive_ms must be 1 to 65535")
        if not 1 <= self.max_seats <= 1_000_000:
            raise ValueError("max_seats must be 1 to 1000000")
