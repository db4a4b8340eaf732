"""Which peers each node is to measure: all other nodes that it shares an address family with."""

import hashlib
from collections.abc import Iterable

import msgspec
from django.conf import settings

from nodeapi.peers import Peer
from relaymgr.nodes.control_client import PeerListUpdate, send_peer_lists
from relaymgr.nodes.selectors import beacons
from relaymgr.telemetry.probing.answers import Answer


def peer_lists_send(answers: Iterable[Answer]) -> None:
    """Sends the current list to every node whose report names another version of it."""
    listed = [(worker.node.name, worker.node.addresses, worker.client_port) for worker in beacons()]
    updates = []
    for families, group in _by_families(answers).items():
        peers = [
            Peer(name, addresses[shared[0]], port)
            for name, addresses, port in listed
            if (shared := [family for family in families if family in addresses])
        ]
        version = hashlib.sha256(msgspec.json.encode(peers)).hexdigest()[:16]
        updates += [
            PeerListUpdate(
                answer.node.control_url,
                answer.node.control_key,
                tuple(peer for peer in peers if peer.node != answer.node.name),
                version,
            )
            for answer in group
            if answer.report.peers_version != version
        ]
    send_peer_lists(updates, settings.NODE_PROBE_TIMEOUT)


def _by_families(answers: Iterable[Answer]) -> dict[tuple[str, ...], list[Answer]]:
    found: dict[tuple[str, ...], list[Answer]] = {}
    for answer in answers:
        found.setdefault(tuple(sorted(answer.node.addresses)), []).append(answer)
    return found
