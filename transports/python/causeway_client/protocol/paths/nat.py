"""What kind of NAT a player is behind, from the addresses that servers saw for one socket (RFC 5780, section 4.3), and
which ports it may assign next (PROTOCOL.md 12.8)."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .rendezvous import NatClass

MAX_STEP = 16  # a larger difference of two successive ports counts as random
PREDICTED_PORTS = 8


@dataclass(frozen=True, slots=True)
class Observation:
    """One server, at `server_ip` and `server_port`, saw the socket's packets come from `ip` and `port`."""

    server_ip: str
    server_port: int
    ip: str
    port: int


def classify(observations: Sequence[Observation]) -> tuple[NatClass, int]:
    """The class, and the step between two successive ports (0: unknown). `observations` are of one socket and one
    address family, in the order in which the requests were sent."""
    if len({(it.server_ip, it.server_port) for it in observations}) < 2:
        return NatClass.UNKNOWN, 0
    if len({(it.ip, it.port) for it in observations}) == 1:
        return NatClass.ENDPOINT_INDEPENDENT, 0
    by_server = defaultdict(set)
    for it in observations:
        by_server[it.server_ip].add((it.ip, it.port))
    tested = [
        mapped
        for server, mapped in by_server.items()
        if len({it.server_port for it in observations if it.server_ip == server}) > 1
    ]
    if tested and all(len(mapped) == 1 for mapped in tested):
        return NatClass.ADDRESS_DEPENDENT, 0
    ports = list(dict.fromkeys(it.port for it in observations))
    steps = [after - before for before, after in pairwise(ports)]
    # Other connections of the same NAT take ports in between, so the steps may be multiples of the smallest one.
    step = min(steps, key=abs, default=0)
    if step and all(abs(it) <= MAX_STEP and it * step > 0 for it in steps):
        return NatClass.PORT_DEPENDENT, step
    return NatClass.RANDOM_PORTS, 0


def predicted_ports(last_port: int, step: int) -> list[int]:
    """The ports that the NAT will probably assign next, the most probable first. Empty if the step is not known."""
    if not step:
        return []
    ports = (last_port + step * number for number in range(1, PREDICTED_PORTS + 1))
    return [port for port in ports if 1024 <= port <= 65_535]
