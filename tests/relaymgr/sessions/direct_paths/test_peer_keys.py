"""Peer keys: two seats share a secret, no third one does, and they reach their player and nothing else."""

import base64
import json
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.apps import apps
from django.db import connection
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from causeway_client.protocol.paths.pair_secrets import PeerKeys, pair_secret, unpack_peer_keys
from causeway_client.protocol.tokens import open_token
from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import RelaySession
from relaymgr.sessions.player_data import Player, player_export
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.relaymgr.sessions.conftest import SESSIONS, authorize
from tests.relaymgr.sessions.test_compat import create
from tests.support.leaks import LogWatch
from tests.support.manager import StandIn, client_with
from tests.support.node_process import NodeProcess

pytestmark = pytest.mark.django_db

MakeStandIn = Callable[..., tuple[RelayNode, StandIn]]
USERS = [{"player_id": name, "ip": f"192.0.2.{number}"} for number, name in enumerate(("ann", "ben", "cleo"))]


@pytest.fixture(autouse=True)
def _permissive(tenant: Tenant) -> None:
    Tenant.objects.update(direct_mode="direct", webhook_url="https://studio.example/hook")


def keys_of(user: dict[str, Any]) -> PeerKeys:
    return unpack_peer_keys(base64.urlsafe_b64decode(user["peer_keys"]))


def secrets_in(users: list[dict[str, Any]]) -> set[bytes]:
    """Every key and every secret of these players, and what they are packed into."""
    found = {base64.urlsafe_b64decode(user["peer_keys"]) for user in users}
    for user in users:
        keys = keys_of(user)
        found |= {keys.own, *keys.with_lower}
    return found


def forms(secret: bytes) -> tuple[str, ...]:
    """As text that a document could contain."""
    return (
        secret.hex(),
        base64.b64encode(secret).decode().rstrip("="),
        base64.urlsafe_b64encode(secret).decode().rstrip("="),
    )


def contained(text: str, secrets: set[bytes]) -> list[str]:
    return [form for secret in secrets for form in forms(secret) if form in text]


def test_two_seats_derive_the_same_secret_and_a_third_cannot(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    make_stand_in_node()
    session = create(api, users=USERS, dialects=["native"])
    users = [*session["session_users"], authorize(api, session, user_ip="192.0.2.9").json()["session_user"]]
    keys = [keys_of(user) for user in users]
    assert [each.seat for each in keys] == [0, 1, 2, 3]
    pairs = {frozenset((a, b)): keys[a].secret(b) for a, b in permutations(range(4), 2)}
    assert all(keys[a].secret(b) == keys[b].secret(a) for a, b in permutations(range(4), 2))
    assert len(set(pairs.values())) == 6
    for pair, secret in pairs.items():
        for third in set(range(4)) - pair:
            held = {keys[third].own, *keys[third].with_lower}
            # All that a third seat can compute from what it holds: the derivation for each seat number.
            derived = {pair_secret(keys[third].own, number) for number in range(255)}
            assert secret not in held | derived


def test_keys_are_the_same_whenever_they_are_read(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    make_stand_in_node()
    created = create(api, users=USERS, dialects=["native"])
    read = api.get(f"{SESSIONS}/{created['session_id']}").json()
    again = authorize(api, created, user_ip="192.0.2.1", player_id="ben").json()["session_user"]
    assert [user["peer_keys"] for user in read["session_users"]] == [
        user["peer_keys"] for user in created["session_users"]
    ]
    assert again["peer_keys"] == created["session_users"][1]["peer_keys"]
    other = create(api, users=USERS, dialects=["native"])
    assert not secrets_in(other["session_users"]) & secrets_in(created["session_users"])


def test_a_seat_without_direct_paths_gets_none(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    make_stand_in_node()
    users = [USERS[0], {**USERS[1], "direct_mode": "relay_only"}, {**USERS[2], "direct_mode": "ask"}]
    found = create(api, users=users, dialects=["native"])["session_users"]
    assert [bool(user["peer_keys"]) for user in found] == [True, False, True]
    # The numbering of the secrets is not affected.
    assert keys_of(found[2]).secret(0) == keys_of(found[0]).secret(2)


def test_with_choose_host_the_keys_are_those_of_the_seats(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    make_stand_in_node()
    distances = {"far": 200, "near": 5, "between": 100}
    users = [{"player_id": name, "latencies": {"frankfurt": ms}} for name, ms in distances.items()]
    found = create(api, users=users, dialects=["native"], choose_host=True)["session_users"]
    assert found[0]["player_id"] == "near"
    assert [keys_of(user).seat for user in found] == [0, 1, 2]


def test_every_other_response_shows_none(make_stand_in_node: MakeStandIn, tenant: Tenant, api: APIClient) -> None:
    make_stand_in_node()
    session = create(api, users=USERS, dialects=["native"])
    secrets = secrets_in(session["session_users"])
    reader = client_with(api_key_create(tenant=tenant, name="reader", scopes=["read"])[1])
    path = f"{SESSIONS}/{session['session_id']}"
    token = session["session_users"][2]["authorization_token"]
    revoked = api.post(
        f"{SESSIONS}:revoke-user",
        {"session_id": session["session_id"], "authorization_token": token},
        format="json",
    )
    for response in (
        api.get(SESSIONS),
        api.get(f"{SESSIONS}?cursor="),
        reader.get(path),
        reader.get(SESSIONS),
        api.get(f"{path}/placement"),
        api.get(f"{path}/paths"),
        revoked,
    ):
        assert response.status_code == 200, response.content
        assert not contained(response.content.decode(), secrets)
    export = player_export(tenant=tenant, player=Player(player_id="ann"))
    assert not contained(json.dumps(export, default=str), secrets)


def columns() -> Iterator[tuple[str, str]]:
    """(table.column, raw value) of every row as the database holds it."""
    for model in apps.get_models(include_auto_created=True):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(model._meta.db_table)}")
            names = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                yield from (
                    (f"{model._meta.db_table}.{name}", str(value)) for name, value in zip(names, row, strict=True)
                )


def decrypted() -> Iterator[tuple[str, str]]:
    for model in apps.get_models(include_auto_created=True):
        for row in model._base_manager.all():
            yield from (
                (f"{model.__name__}.{f.name}", str(getattr(row, f.attname))) for f in model._meta.concrete_fields
            )


def test_grant_token_webhooks_audit_console_and_database_contain_none(
    make_stand_in_node: MakeStandIn, tenant: Tenant, api: APIClient, admin_client: Client, log_watch: LogWatch
) -> None:
    _, stand_in = make_stand_in_node()
    session = create(
        api, users=USERS, dialects=["native"], webhook_url="https://studio.example/plain", metadata={"mode": "duel"}
    )
    secrets = secrets_in(session["session_users"])
    row = RelaySession.objects.get()
    root = base64.urlsafe_b64decode(row.peer_root or "")
    log_watch.note(*(form for secret in secrets | {root} for form in forms(secret)))  # judged after each test
    secrets |= {root}
    authorize(api, session, user_ip="192.0.2.9")
    assert stand_in.requests
    assert not contained(json.dumps([request[3] for request in stand_in.requests]), secrets)
    for user in session["session_users"]:
        sealed = base64.urlsafe_b64decode(user["connect_token"])
        token = open_token(sealed, {1: AESGCM(bytes(32))})
        assert not any(secret in sealed or secret in vars_of(token) for secret in secrets)
    pages = [
        admin_client.get(reverse("admin:relay_sessions_relaysession_change", args=[row.pk])),
        admin_client.get(reverse("admin:relay_sessions_relaysession_now", args=[row.pk])),
        admin_client.get(reverse("admin:relay_sessions_seat_changelist")),
        *(admin_client.get(reverse("admin:relay_sessions_seat_change", args=[seat.pk])) for seat in row.seats.all()),
    ]
    for page in pages:
        assert page.status_code == 200
        assert not contained(page.content.decode(), secrets)
    assert [place for place, text in columns() if contained(text, secrets)] == []
    # What is encrypted: the root only. Webhooks are encrypted too, and contain tokens, but no peer keys.
    assert {place for place, text in decrypted() if contained(text, secrets)} == {"RelaySession.peer_root"}


def vars_of(token: Any) -> bytes:
    values = (getattr(token, name) for name in token.__slots__)
    return b"|".join(value if isinstance(value, bytes) else str(value).encode() for value in values)


def test_a_real_node_holds_none_in_its_telemetry_state_and_log(
    relay: RelayNode, process: NodeProcess, api: APIClient
) -> None:
    session = create(api, users=USERS, dialects=["native"])
    secrets = secrets_in(session["session_users"])
    assert any(worker["seats"] >= 3 for worker in process.telemetry()["workers"])
    texts = [json.dumps(process.telemetry()), process.log]
    texts += [path.read_text(errors="replace") for path in Path(process.state_dir).rglob("*") if path.is_file()]
    assert any(session["session_id"] in text for text in texts)
    assert not any(contained(text, secrets) for text in texts)
