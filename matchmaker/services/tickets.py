"""Tickets of single players and of groups that search at once."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from rest_framework.exceptions import APIException

from web.errors import ApiError, NotFound
from web.fields.measurements import not_measured
from web.http.input_warnings import unknown_names, warn

from ..errors import (
    AlreadyMatched,
    KeyMismatch,
    PlayerHasTicket,
    invalid,
)
from ..matching.attributes import attribute_problems, group_problems, without_failed_pings
from ..matching.rules import Problem, Rules
from ..models import Group, ProfileVersion, Status, Ticket
from ..proofs import session_of_rejoin_key
from ..selectors.locations import known_locations
from ..selectors.profiles import active_version, rules_of
from ..selectors.tickets import ANY_SESSION
from .quotas import places


@dataclass(frozen=True)
class Requester:
    """Who asks. `network`: a digest of the network, "" for a backend, which no limit of networks concerns. A backend is
    believed who a player is. `key`: a digest of the Idempotency-Key, "" without one; `body`: one of the request."""

    tenant: str
    network: str = ""
    is_backend: bool = False
    key: str = ""
    body: str = ""


@dataclass(frozen=True)
class Player:
    """What a ticket is made of. `player_id` "": the matchmaker makes one. `rejoin_key`: of an earlier assignment."""

    profile: str
    attributes: Mapping[str, Any]
    player_ip: str
    network_measurements: Mapping[str, Any]
    player_id: str = ""
    rejoin_key: str = ""


def ticket_create(requester: Requester, player: Player) -> Ticket:
    """A ticket that searches; the one that the request made before, if it is repeated.

    Raises Invalid, KeyMismatch, PlayerHasTicket, TooManyTickets."""
    try:
        version, rules = require_active_version(requester.tenant, player.profile)
        ticket = new_ticket(requester, version, rules, player, requester.key)
        # Hardly any request is a repetition: the constraint finds those, so that the others need no query for it.
        with places(requester.tenant, requester.network, 1):
            return insert_one(requester, start_search(ticket, rules, timezone.now()))
    except (ApiError, APIException):
        if earlier := created_before(requester):
            return earlier[0]
        raise


def tickets_create_together(requester: Requester, players: Sequence[Player]) -> list[Ticket]:
    """A group that searches at once; or the one that the request made before. A ticket for each, in this order.

    Raises as `ticket_create`: nothing is made then."""
    if earlier := created_before(requester):
        return earlier
    names = {player.profile for player in players}
    if len(names) > 1:
        raise invalid([Problem("player_tickets", "name different profiles")])
    version, rules = require_active_version(requester.tenant, names.pop())
    tickets = []
    for index, player in enumerate(players):
        key = "" if index else requester.key
        tickets.append(new_ticket(requester, version, rules, player, key, under=f"player_tickets[{index}]."))
    if problems := group_problems(rules, [ticket.attributes for ticket in tickets]):
        raise invalid(problems, under="player_tickets")
    now = timezone.now()

    def insert() -> list[Ticket]:
        group = Group.objects.create(version=version)
        for ticket in tickets:
            start_search(ticket, rules, now, group).save(force_insert=True)
        return tickets

    with places(requester.tenant, requester.network, len(tickets)):
        return insert_once(requester, insert)


def ticket_delete(*, tenant: str, ticket_id: str) -> None:
    """The player waits no more; nor does the group, which was to play together or not at all.

    Raises NotFound, AlreadyMatched."""
    ticket = Ticket.objects.filter(tenant=tenant, pk=ticket_id).first()
    if ticket is None:
        raise NotFound("There is no such ticket, or it was removed.")
    together = Ticket.objects.filter(group=ticket.group_id) if ticket.group_id else Ticket.objects.filter(pk=ticket.pk)
    with transaction.atomic():
        withdrawn = tickets_cancel(list(together), "withdrawn")
        if not withdrawn and Ticket.objects.filter(pk=ticket_id).exclude(status=Status.CANCELLED).exists():
            raise AlreadyMatched
        Ticket.objects.filter(pk=ticket_id).delete()


def tickets_cancel(tickets: Sequence[Ticket], reason: str) -> int:
    """Those of them that still wait. How many that were."""
    waiting = Ticket.objects.filter(
        pk__in=[ticket.pk for ticket in tickets], status__in=(Status.INITIAL, Status.SEARCHING)
    )
    removal = rules_of(tickets[0].version).removal if tickets else 0.0
    remove_at = timezone.now() + timedelta(seconds=removal)
    return waiting.update(status=Status.CANCELLED, reason=reason, remove_at=remove_at)


def require_active_version(tenant: str, name: str) -> tuple[ProfileVersion, Rules]:
    """What a new ticket is made under. Raises Invalid (EDGEGAP.md M12: an unknown profile is 400)."""
    found = active_version(tenant=tenant, name=name)
    if found is None:
        raise invalid([Problem("profile", f"there is no active profile {name}")])
    return found


def created_before(requester: Requester) -> list[Ticket]:
    """The tickets, in their order, that the first request with this key made, as they are now. Raises KeyMismatch."""
    if not requester.key:
        return []
    tickets = Ticket.objects.select_related("match", "version__profile")
    first = tickets.filter(request_key=requester.key).first()
    if first is None:
        return []
    if first.request_digest != requester.body:
        raise KeyMismatch
    # Of a group that gathers each member was made by a request of its own.
    rest = tickets.filter(group=first.group_id, request_digest=first.request_digest, request_key="")
    return [first, *rest.order_by("created_at", "pk")] if first.group_id else [first]


def insert_once(requester: Requester, insert: Callable[[], list[Ticket]]) -> list[Ticket]:
    """All or none. One of two equal requests at the same moment makes them, and both answer with them."""
    try:
        with transaction.atomic():
            return insert()
    except IntegrityError:
        return inserted_before(requester)


def insert_one(requester: Requester, ticket: Ticket) -> Ticket:
    """`insert_once` of a single ticket. That is one statement, which needs no transaction of its own, and so neither BEGIN
    nor COMMIT; within a transaction it needs a savepoint."""
    try:
        with transaction.atomic() if connection.in_atomic_block else contextlib.nullcontext():
            ticket.save(force_insert=True)
            return ticket
    except IntegrityError:
        return inserted_before(requester)[0]


def inserted_before(requester: Requester) -> list[Ticket]:
    """By the same request, a moment ago. Raises PlayerHasTicket where it was another one."""
    if earlier := created_before(requester):
        return earlier
    raise PlayerHasTicket from None


def new_ticket(
    requester: Requester, version: ProfileVersion, rules: Rules, player: Player, key: str, under: str = ""
) -> Ticket:
    """Not yet in the database. Raises Invalid."""
    if problems := attribute_problems(rules, player.attributes):
        raise invalid(problems, under=f"{under}attributes")
    if rules.latencies:
        latencies, path = player.attributes[rules.latencies], f"{under}attributes.{rules.latencies}"
        warn(not_measured(latencies, path))
        if known := frozenset(known_locations().slugs_by_city):
            warn(unknown_names(latencies, known, f"{path}.{{name}}", "beacon", "beacon_unknown"))
    ticket = Ticket(
        tenant=requester.tenant,
        version=version,
        attributes=without_failed_pings(rules, player.attributes),
        player_ip=player.player_ip,
        network_measurements=dict(player.network_measurements),
        rejoin_session_id=_rejoin_session_id(requester, player, under),
        network=requester.network,
        request_key=key,
        request_digest=requester.body,
    )
    if player.player_id:
        ticket.player_id = player.player_id
        is_one_everywhere = settings.MATCHMAKER_PLAYER_TICKET_SCOPE == "tenant"
        ticket.player_scope = "" if is_one_everywhere else version.profile.name
    return ticket


def _rejoin_session_id(requester: Requester, player: Player, under: str) -> str:
    if requester.is_backend and player.player_id:
        return ANY_SESSION
    if not player.rejoin_key:
        return ""
    session_id = session_of_rejoin_key(player.rejoin_key, player.player_id)
    if session_id is None:
        raise invalid([Problem(f"{under}rejoin_key", "is not the one that this player_id got with its assignment")])
    return session_id


def start_search(ticket: Ticket, rules: Rules, now: datetime, group: Group | None = None) -> Ticket:
    ticket.group, ticket.status = group, Status.SEARCHING
    ticket.searching_since, ticket.expires_at = now, now + timedelta(seconds=rules.expiration)
    return ticket
