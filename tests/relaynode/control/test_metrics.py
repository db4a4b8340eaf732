import socket
import struct
import time

from prometheus_client.parser import text_string_to_metric_families

from relaynode.core.counters import DROPS
from tests.relaynode.control.test_api import grant
from tests.support.node_process import NodeProcess, node_process

DROPPED = "causeway_node_dropped_packets_total"


def scrape(node: NodeProcess):
    text = node.call("GET", "/metrics")[1]
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def label_sets(samples):
    return {(sample.name, *sorted(sample.labels.items())) for sample in samples if sample.name != "causeway_node_info"}


def test_labels_are_fixed_whatever_is_played():
    with node_process(workers=2) as node:
        before = scrape(node)
        for number in range(3):
            body = grant(worker=number % 2)
            node.put_grant(body)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
                player.settimeout(5)
                ping = struct.pack("<IIB", body["seats"][1]["token"], body["token"], 1)
                player.sendto(ping, ("127.0.0.1", node.client_ports[number % 2]))
                assert player.recv(10) == b"\x01\x02"
                player.sendto(b"short", ("127.0.0.1", node.client_ports[number % 2]))
                player.sendto(b"\x20" * 30, ("127.0.0.1", node.client_ports[number % 2]))
        node.delete_session(body["session"])
        after = scrape(node)
    assert label_sets(before) == label_sets(after)
    labels = {name for sample in after for name in sample.labels if sample.name != "causeway_node_info"}
    assert labels == {"worker", "reason", "kind", "path"}
    found = {
        (sample.name, sample.labels.get("worker")): sample.value
        for sample in after
        if sample.labels.get("kind") in (None, "ping_valid")
    }
    assert found["causeway_node_sessions", "0"] == 1
    assert found["causeway_node_sessions", "1"] == 1
    assert found["causeway_node_worker_up", "1"] == 1
    assert found["causeway_node_replies_total", "0"] == 2
    assert found["causeway_node_received_packets_total", "0"] == 6
    assert found["causeway_node_received_bytes_total", "0"] == 2 * (9 + 5 + 30)


def test_every_reason_to_drop_is_there_from_the_start():
    with node_process() as node:
        reasons = {
            sample.labels["reason"] for sample in scrape(node) if sample.name == "causeway_node_dropped_packets_total"
        }
        assert reasons >= {*DROPS, "send_full", "send_refused", "receive_queue"}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
            player.sendto(b"short", ("127.0.0.1", node.client_port))
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            counted = {
                s.labels.get("reason"): s.value for s in scrape(node) if s.name == "causeway_node_dropped_packets_total"
            }
            if counted["too_short"] == 1:
                return
        raise AssertionError(counted)
