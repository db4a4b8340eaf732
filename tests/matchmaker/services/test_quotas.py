"""Limits of active tickets: of a tenant, of an address, and with many clients at the same time."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from matchmaker.models import Ticket
from matchmaker.services import quotas
from matchmaker.services.profiles import profile_version_create
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.matchmaker.conftest import CONFIG
from tests.support.manager import client_with

pytestmark = pytest.mark.django_db


def test_active_tickets_of_a_tenant_are_bounded_and_others_have_their_own(
    tenant: Tenant, players: APIClient, profile: str, settings: Any
) -> None:
    settings.MATCHMAKER_MAX_TICKETS_PER_TENANT = 3
    body = {"profile": profile, "attributes": {"elo": 1}}
    group = {"player_tickets": [body] * 2}
    assert players.post("/matchmaker/group-tickets", group, format="json").status_code == 201
    refused = players.post("/matchmaker/group-tickets", group, format="json")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_tickets"), "tickets count, not requests"
    assert refused.headers["Retry-After"] == "5"
    assert players.post("/matchmaker/tickets", body, format="json").status_code == 201
    assert players.post("/matchmaker/tickets", body, format="json").status_code == 429

    other = Tenant.objects.create(name="Other", slug="other")
    profile_version_create(tenant="other", name="duel", config=CONFIG, activate=True)
    others = client_with(api_key_create(tenant=other, name="game", scopes=["matchmaker"])[1], word="")
    assert others.post("/matchmaker/tickets", body, format="json").status_code == 201


def test_active_tickets_of_an_address_are_bounded_but_not_those_of_a_backend(
    players: APIClient, api: APIClient, profile: str, settings: Any
) -> None:
    settings.MATCHMAKER_MAX_TICKETS_PER_ADDRESS = 2
    body = {"profile": profile, "attributes": {"elo": 1}}
    codes = [players.post("/matchmaker/tickets", body, format="json").status_code for _ in range(3)]
    assert codes == [201, 201, 429]
    elsewhere = players.post("/matchmaker/tickets", body, format="json", REMOTE_ADDR="198.51.100.9")
    assert elsewhere.status_code == 201
    assert [api.post("/matchmaker/tickets", body, format="json").status_code for _ in range(3)] == [201] * 3


def test_tickets_of_an_address_are_counted_and_not_its_requests(
    players: APIClient, api: APIClient, profile: str, settings: Any
) -> None:
    settings.MATCHMAKER_TICKETS_PER_MINUTE = 5
    body = {"profile": profile, "attributes": {"elo": 1}}
    group = {"player_tickets": [body] * 2}
    answers = [players.post("/matchmaker/group-tickets", group, format="json") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert Ticket.objects.count() == 4
    assert [api.post("/matchmaker/group-tickets", group, format="json").status_code for _ in range(3)] == [201] * 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("counted_every", [0.0, 600.0])
def test_clients_in_parallel_do_not_exceed_the_limit(
    tenant: Tenant,
    profile: str,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    counted_every: float,
) -> None:
    """Also when the database is counted for each request, while other tickets are being created."""
    settings.MATCHMAKER_MAX_TICKETS_PER_TENANT = limit = 5
    monkeypatch.setattr(quotas, "COUNTED_EVERY", counted_every)
    key = api_key_create(tenant=tenant, name="game", scopes=["matchmaker"])[1]
    clients, rounds = 8, 3
    together = threading.Barrier(clients)

    def post(_: int) -> list[int]:
        client = client_with(key, word="")
        together.wait(30)
        try:
            body = {"profile": profile, "attributes": {"elo": 1}}
            return [client.post("/matchmaker/tickets", body, format="json").status_code for _ in range(rounds)]
        finally:
            connection.close()

    with ThreadPoolExecutor(clients) as pool:
        codes = Counter(code for found in pool.map(post, range(clients)) for code in found)
    assert Ticket.objects.count() == codes[201] <= limit
    assert codes == {201: codes[201], 429: clients * rounds - codes[201]}
    quotas.forget_counts()
    last = client_with(key, word="")
    body = {"profile": profile, "attributes": {"elo": 1}}
    for _ in range(limit - codes[201]):  # places of tickets that were counted twice for a moment are free again
        assert last.post("/matchmaker/tickets", body, format="json").status_code == 201
    assert last.post("/matchmaker/tickets", body, format="json").status_code == 429


def test_place_of_a_ticket_that_was_not_created_is_free_again(settings: Any) -> None:
    settings.MATCHMAKER_MAX_TICKETS_PER_TENANT = 1
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), quotas.places("studio", "", 1):
            raise ZeroDivisionError
    with quotas.places("studio", "", 1), pytest.raises(quotas.TooManyTickets), quotas.places("studio", "", 1):
        pass
