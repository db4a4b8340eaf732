from typing import Any

import pytest

from nodeapi.peers import MAX_PEERS, Peer, parse_peers
from nodeapi.strict_json import InvalidDocument

PEER = {"node": "ams-1", "address": "192.0.2.1", "port": 31001}


def listed(*peers: Any, version: Any = "6f") -> dict[str, Any]:
    return {"version": version, "peers": list(peers)}


def test_a_list_of_peers_is_read() -> None:
    found = parse_peers(listed(PEER, PEER | {"address": "2001:db8::7"}))
    assert (found.version, found.peers[0]) == ("6f", Peer("ams-1", "192.0.2.1", 31001))


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], ""),
        ({"version": "6f"}, "peers"),
        ({"peers": []}, "version"),
        (listed(version="x" * 65), "version"),
        (listed(version=None), "version"),
        (listed(*[PEER] * (MAX_PEERS + 1)), "peers"),
        (listed("ams-1"), "peers[0]"),
        (listed(PEER, PEER | {"node": ""}), "peers[1].node"),
        (listed(PEER | {"node": "x" * 51}), "peers[0].node"),
        (listed(PEER | {"address": "nowhere"}), "peers[0].address"),
        (listed(PEER | {"address": 5}), "peers[0].address"),
        (listed(PEER | {"port": 0}), "peers[0].port"),
        (listed(PEER | {"port": 65536}), "peers[0].port"),
        (listed(PEER | {"port": True}), "peers[0].port"),
    ],
)
def test_a_wrong_field_is_named(document: object, field: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse_peers(document)
    assert caught.value.field == field
