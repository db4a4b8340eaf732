"""The manager reads and describes these documents with serializers: their fields are the same."""

import base64
from typing import Any

import pytest
from msgspec import Struct

from nodeapi.grants import Grant, Limits, SeatGrant, SeatOffer
from nodeapi.membership import (
    GrantList,
    Heartbeat,
    HeartbeatResponse,
    JoinRequest,
    JoinResponse,
    TokenKey,
    WorkerPorts,
)
from nodeapi.strict_json import InvalidDocument, as_builtins, read_document
from relaymgr.nodes.apis import NodeHeartbeatApi, NodeJoinApi
from relaymgr.sessions.apis.node_grants import NodeGrantsApi

JOIN, HEARTBEAT, GRANTS = NodeJoinApi, NodeHeartbeatApi, NodeGrantsApi.OutputSerializer
KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("serializer", "document"),
    [
        (JOIN.InputSerializer(), JoinRequest),
        (JOIN.OutputSerializer(), JoinResponse),
        (JOIN.OutputSerializer().fields["token_keys"].child, TokenKey),
        (JOIN.InputSerializer().fields["workers"].child, WorkerPorts),
        (HEARTBEAT.InputSerializer(), Heartbeat),
        (HEARTBEAT.OutputSerializer(), HeartbeatResponse),
        (GRANTS(), GrantList),
        (GRANTS().fields["sessions"].child, Grant),
        (GRANTS().fields["sessions"].child.fields["limits"], Limits),
        (GRANTS().fields["sessions"].child.fields["seats"].child, SeatGrant),
        (GRANTS().fields["sessions"].child.fields["seats"].child.fields["offer"], SeatOffer),
    ],
)
def test_the_serializer_has_the_fields_of_the_document(serializer: Any, document: type[Struct]) -> None:
    assert set(serializer.fields) == set(document.__struct_fields__)


def test_a_key_is_base64_in_json_and_not_shown() -> None:
    key = TokenKey(5, KEY)
    document = {"id": 5, "key": base64.b64encode(KEY).decode()}
    assert as_builtins(key) == document
    assert read_document(document, TokenKey) == key
    assert repr(key) == "TokenKey(id=5)"


@pytest.mark.parametrize("key", ["QUJD", "not base64", 5, None, base64.b64encode(bytes(33)).decode()])
def test_a_key_has_32_bytes(key: Any) -> None:
    with pytest.raises(InvalidDocument) as caught:
        read_document({"id": 5, "key": key}, TokenKey)
    assert caught.value.field == "key"


@pytest.mark.parametrize("key", ["", "a\nb", "a\0b", "\u00e9"])
def test_keys_that_fit_no_header_are_refused(key: str) -> None:
    answer = {
        "node": "a",
        "location": "b",
        "control_key": "c",
        "token_keys": [],
        "heartbeat_interval": 5.0,
        "time": 1.0,
    }
    with pytest.raises(InvalidDocument):
        read_document(answer | {"node_key": key}, JoinResponse)
    assert "secret" not in repr(read_document(answer | {"node_key": "secret"}, JoinResponse))
