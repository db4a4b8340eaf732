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

from ..errors import AlreadyMatched, KeyMismatch, PlayerHasTicket, invalid
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
    """The caller. `network`: a digest of the caller's network; "" for a backend, to which no limit by network applies.
    A backend is trusted to identify players. `key`: a digest of the Idempotency-Key, "" without one; `body`: a digest
    of the request."""

    tenant: str
    network: str = ""
    is_backend: bool = False
    key: str = ""
    body: str = ""


@dataclass(frozen=True)
class Player:
    """The input for a ticket. `player_id` "": the matchmaker assigns one. `rejoin_key`: of an earlier assignment."""

    profile: str
    attributes: Mapping[str, Any]
    player_ip: str
    network_measurements: Mapping[str, Any]
    player_id: str = ""
    rejoin_key: str = ""


def ticket_create(requester: Requester, player: Player) -> Ticket:
    """A ticket that is searching. A repeated request gets the ticket that it created the first time.

    Raises Invalid, KeyMismatch, PlayerHasTicket, TooManyTickets."""
    try:
        version, rules = require_active_version(requester.tenant, player.profile)
        ticket = new_ticket(requester, version, rules, player, requester.key)
        # Repeated requests are rare: a constraint detects them, so that the others need no query for this.
        with places(requester.tenant, requester.network, 1):
            return insert_one(requester, start_search(ticket, rules, timezone.now()))
    except (ApiError, APIException):
        if earlier := created_before(requester):
            return earlier[0]
        raise


def tickets_create_together(requester: Requester, players: Sequence[Player]) -> list[Ticket]:
    """A ticket for each player, in this order, of a group that searches at once. A repeated request gets the tickets
    that it created the first time.

    Raises the errors of `ticket_create`, and then creates nothing."""
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
    """Withdraws the ticket and the others of its group, which plays together or not at all.

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
    """Cancels the tickets that are not matched yet. Returns how many these were."""
    waiting = Ticket.objects.filter(
        pk__in=[ticket.pk for ticket in tickets], status__in=(Status.INITIAL, Status.SEARCHING)
    )
    removal = rules_of(tickets[0].version).removal if tickets else 0.0
    remove_at = timezone.now() + timedelta(seconds=removal)
    return waiting.update(status=Status.CANCELLED, reason=reason, remove_at=remove_at)


def require_active_version(tenant: str, name: str) -> tuple[ProfileVersion, Rules]:
    """The version for new tickets. Raises Invalid (EDGEGAP.md M12: an unknown profile is 400)."""
    found = active_version(tenant=tenant, name=name)
    if found is None:
        raise invalid([Problem("profile", f"there is no active profile {name}")])
    return found


def created_before(requester: Requester) -> list[Ticket]:
    """The tickets that the first request with this key created, in their order and present state. Raises
    KeyMismatch."""
    if not requester.key:
        return []
    tickets = Ticket.objects.select_related("match", "version__profile")
    first = tickets.filter(request_key=requester.key).first()
    if first is None:
        return []
    if first.request_digest != requester.body:
        raise KeyMismatch
    # Each member of a group that gathers was created by a request of its own.
    rest = tickets.filter(group=first.group_id, request_digest=first.request_digest, request_key="")
    return [first, *rest.order_by("created_at", "pk")] if first.group_id else [first]


def insert_once(requester: Requester, insert: Callable[[], list[Ticket]]) -> list[Ticket]:
    """Creates all or none. Of two identical requests at the same time one creates the tickets, and both return them."""
    try:
        with transaction.atomic():
            return insert()
    except IntegrityError:
        return inserted_before(requester)


def insert_one(requester: Requester, ticket: Ticket) -> Ticket:
    """`insert_once` for a single ticket. One statement needs no transaction of its own, so BEGIN and COMMIT are saved;
    within a transaction it needs a savepoint."""
    try:
        with transaction.atomic() if connection.in_atomic_block else contextlib.nullcontext():
            ticket.save(force_insert=True)
            return ticket
    except IntegrityError:
        return inserted_before(requester)[0]


def inserted_before(requester: Requester) -> list[Ticket]:
    """The tickets of an identical request. Raises PlayerHasTicket when a different request created the active
    ticket."""
    if earlier := created_before(requester):
        return earlier
    raise PlayerHasTicket from None


def new_ticket(
    requester: Requester, version: ProfileVersion, rules: Rules, player: Player, key: str, under: str = ""
) -> Ticket:
    """Validated, and not yet in the database. Raises Invalid."""
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
        raise invalid(
            [Problem(f"{under}rejoin_key", "is not the key that this player_id received with its assignment")]
        )
    return session_id


def start_search(ticket: Ticket, rules: Rules, now: datetime, group: Group | None = None) -> Ticket:
    ticket.group, ticket.status = group, Status.SEARCHING
    ticket.searching_since, ticket.expires_at = now, now + timedelta(seconds=rules.expiration)
    return ticket
