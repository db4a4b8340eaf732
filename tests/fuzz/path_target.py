"""The userspace and the XDP path get the same datagrams, and must do the same."""

from collections.abc import Iterator

from relaynode.core.relay import RelayConfig
from tests.fuzz.inputs import script, steps_of
from tests.fuzz.packet_targets import VECTORS
from tests.relaynode.datapath.xdp.frames import Endpoint
from tests.relaynode.datapath.xdp.players import EdgegapPlayer, NativePlayer, grant
from tests.relaynode.datapath.xdp.twins import CLIENT_PORT, NOW, SERVER_PORT, Twins, kernel_available

WAITS = (0.0, 0.01, 0.25, 1.5)


def missing() -> str:
    reason = kernel_available()
    return f"no XDP program here: {reason}" if reason else ""


def packet_paths(content: bytes) -> None:
    """Head: three bits of sender (raw; edgegap host, player; native, native in a mesh; raw from one of them), port, two
    bits of time, whether it comes from elsewhere, whether the frame has a checksum. Data: what stands behind the
    tokens, or type, seat and body to be sealed."""
    steps = steps_of(content)
    version = 6 if steps and steps[0][0] & 1 else 4
    twins = Twins(1, RelayConfig(max_seats=256, timeout=4.0, connect_flood_threshold=10**9), version)
    try:
        limits = {"packets": 20, "bytes": 10_000}
        twins.grant(grant(4, 0, limits=limits))
        twins.grant(grant(4, 1, topology="mesh", dialects=["native"], direct_mode="direct"))
        host, player = EdgegapPlayer(twins, 0), EdgegapPlayer(twins, 1)
        native, mesh, other = NativePlayer(twins, 2), NativePlayer(twins, 1, True, 1), NativePlayer(twins, 2, True, 1)
        for edgegap in (host, player):
            edgegap.ping()
        for each in (native, mesh, other):
            each.connect()
        player.send(b"hello")
        for head, data in steps:
            if wait := WAITS[head >> 4 & 3]:
                twins.at(min(twins.now + wait, NOW + 60.0))
            sender = (None, host, player, native, mesh, other, native, player)[head & 7]
            port = CLIENT_PORT
            if isinstance(sender, NativePlayer) and head & 7 != 6 and len(data) >= 2:
                data = sender.packet(data[0], data[2:1220], data[1])
            elif isinstance(sender, EdgegapPlayer) and head & 7 != 7:
                data, port = sender.tokens + data, sender.port
            source = sender.at if sender else Endpoint("192.0.2.66" if version == 4 else "2001:db8::66", 666)
            if head & 64:
                source = Endpoint(source.ip, 4999)
            port = {0: port, 8: SERVER_PORT + CLIENT_PORT - port}[head & 8]
            twins.send(source, data[:1400], port, with_checksum=bool(head & 128) or version == 6)
        twins.assert_same()
    finally:
        twins.close()


def packet_paths_seeds() -> Iterator[bytes]:
    for vector in VECTORS["native"]["packets"][:16:3] + VECTORS["edgegap"]["packets"]:
        yield script([(0, bytes.fromhex(vector["hex"])), (7, bytes.fromhex(vector["hex"]))])
    for kind in (*range(0xC4, 0xCC), 0xCF, 0xD4, 0xD5):
        steps = [(sender | more, bytes((kind, 0)) + bytes(12)) for sender in (3, 4, 5) for more in (0, 128, 32)]
        yield script(steps)
    yield script([(head, b"\x02" + b"payload" * 3) for head in (1, 2, 129, 130, 34, 65, 66, 2, 2)])
    yield script([(head, b"\x01") for head in (1, 2, 9, 10, 65, 49)])
    yield script([(4, b"\xc4\xff" + b"all" * n) for n in range(30)])
    yield script([(sender, b"\xc4\x02" + bytes(size)) for sender in (3, 4) for size in (1182, 1183, 1214, 1215)])
