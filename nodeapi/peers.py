"""The list of peers: the other nodes whose beacons a node is to measure."""

from typing import Annotated

from msgspec import Meta, Struct

from causeway_client.protocol.packets import pack_ip

from .strict_json import InvalidDocument, read_document

MAX_PEERS = 2_000
MAX_NODE_NAME = 50


class Peer(Struct, frozen=True):
    """Another node and the address of its beacon."""

    node: Annotated[str, Meta(min_length=1, max_length=MAX_NODE_NAME)]
    address: str  # IPv4 or IPv6
    port: Annotated[int, Meta(gt=0, lt=65536)]


class PeerList(Struct, frozen=True):
    version: Annotated[str, Meta(max_length=64)]  # names this list; telemetry repeats it
    peers: Annotated[tuple[Peer, ...], Meta(max_length=MAX_PEERS)]


class PeerListConfirmation(Struct, frozen=True):
    """The answer to a list of peers."""

    version: str


def parse_peers(data: object) -> PeerList:
    """Raises InvalidDocument."""
    found = read_document(data, PeerList)
    for index, peer in enumerate(found.peers):
        try:
            pack_ip(peer.address)
        except ValueError:
            raise InvalidDocument("is not an IP address", f"peers[{index}].address") from None
    return found
