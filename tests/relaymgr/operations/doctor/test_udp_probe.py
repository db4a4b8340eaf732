import socket
import time

from causeway_client.protocol.probing import Measurement
from relaymgr.operations.doctor.udp_probe import measure_all
from tests.support.node_process import NodeProcess


async def test_both_ports_of_a_node_answer(process: NodeProcess) -> None:
    ports = [("127.0.0.1", process.server_port), ("127.0.0.1", process.client_port)]
    found = await measure_all([*ports, ports[0]])
    assert list(found) == ports
    for measured in found.values():
        assert isinstance(measured, Measurement)
        assert measured.rtt_ms is not None and measured.rtt_ms < 1000
        assert measured.loss == 0


async def test_port_where_nobody_listens_is_known_at_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()
    started = time.monotonic()
    found = await measure_all([port])
    assert isinstance(found[port], ConnectionRefusedError)
    assert time.monotonic() - started < 1


async def test_port_that_is_silent_or_speaks_nonsense_is_given_up_in_time() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()
        started = time.monotonic()
        found = await measure_all([port])
        measured = found[port]
        assert isinstance(measured, Measurement) and measured.rtt_ms is None and measured.loss == 1
        assert time.monotonic() - started < 3


async def test_address_that_cannot_be_sent_to_is_an_error_of_its_own() -> None:
    found = await measure_all([("not an address", 1)])
    assert isinstance(found["not an address", 1], OSError)
