"""Writes that callers ask for: profiles, tickets, groups, backfills. What happens by itself is in `life`."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import F, Max
from django.utils import timezone
from rest_framework.exceptions import APIException

from web.errors import ApiError, NotFound
from web.fields.measurements import not_measured
from web.http.input_warnings import unknown_names, warn

from . import selectors
from .background.session_assignment import match_abandon
from .errors import (
    AlreadyMatched,
    GroupClosed,
    GroupFull,
    KeyMismatch,
    NoEarlierVersion,
    NotTheHost,
    PlayerHasTicket,
    SessionFull,
    VersionChanged,
    invalid,
)
from .matching.attributes import attribute_problems, group_problems, without_failed_pings
from .matching.profile_parser import ProfileInvalid, parse, profiles_of_file
from .matching.rules import Problem, Rules
from .models import Backfill, Group, MatchState, PassState, Profile, ProfileVersion, Status, Ticket
from .proofs import is_host_key, session_of_rejoin_key
from .quotas import places
from .selectors import (
    ANY_SESSION,
    active_version,
    backfill_players,
    group_members,
    match_of_session,
    players_of_session,
    profile_get,
    rules_of,
    version_get,
)

BACKFILL_LIFETIME = timedelta(minutes=1)  # the game renews by making another; EDGEGAP.md 5.6 leaves the length open

# -- profiles --------------------------------------------------------------------------------------


def profile_version_create(
    *, tenant: str, name: str, config: Any, note: str = "", activate: bool = False
) -> ProfileVersion:
    """The next version, of a new profile if there is none of that name. Raises Invalid, problems by path."""
    try:
        parse(config)
    except ProfileInvalid as error:
        raise invalid(error.problems, under="config") from None
    with transaction.atomic():
        profile, _ = Profile.objects.get_or_create(tenant=tenant, name=name)
        Profile.objects.select_for_update(no_key=True).get(pk=profile.pk)  # numbers are given one after the other
        latest = ProfileVersion.objects.filter(profile=profile).aggregate(Max("number"))["number__max"] or 0
        version = ProfileVersion.objects.create(profile=profile, number=latest + 1, config=config, note=note)
        if activate:
            _activate(profile, version)
    return version


def profiles_import(*, tenant: str, config: Any, note: str = "", activate: bool = False) -> list[ProfileVersion]:
    """A version of each profile of a whole configuration file, or of none. Raises Invalid, problems by path."""
    try:
        profiles = profiles_of_file(config)
    except ProfileInvalid as error:
        raise invalid(error.problems, under="config") from None
    with transaction.atomic():
        return [
            profile_version_create(tenant=tenant, name=name, config=profile, note=note, activate=activate)
            for name, profile in sorted(profiles.items())
        ]


def profile_activate(*, tenant: str, name: str, number: int) -> ProfileVersion:
    """From now on tickets are made under this version; those who wait and fit it move over. Raises NotFound."""
    profile = profile_get(tenant=tenant, name=name)
    version = version_get(profile=profile, number=number)
    with transaction.atomic():
        _activate(profile, version)
    return version


def profile_rollback(*, tenant: str, name: str, known_active: int | None = None) -> ProfileVersion:
    """Back to the version that was activated before the active one. `known_active`: its number as the caller knows it:
    a request that is sent again does not go back twice. Raises NotFound, NoEarlierVersion, VersionChanged."""
    profile = profile_get(tenant=tenant, name=name)
    if known_active is not None and (profile.active is None or profile.active.number != known_active):
        raise VersionChanged
    earlier = ProfileVersion.objects.filter(profile=profile).order_by("-activated_at")
    active = profile.active
    version = earlier.filter(activated_at__lt=active.activated_at).first() if active else None
    if version is None:
        raise NoEarlierVersion
    with transaction.atomic():
        Profile.objects.filter(pk=profile.pk).update(active=version)
        _move_waiting(profile, version)
    selectors.forget_active_versions()
    return version


def _activate(profile: Profile, version: ProfileVersion) -> None:
    ProfileVersion.objects.filter(pk=version.pk).update(activated_at=timezone.now())
    Profile.objects.filter(pk=profile.pk).update(active=version)
    _move_waiting(profile, version)
    transaction.on_commit(selectors.forget_active_versions)


def version_try_again(version: ProfileVersion) -> None:
    """Of a version that was suspended after failures."""
    PassState.objects.filter(pk=version.pk).update(suspended_until=None)


def _move_waiting(profile: Profile, version: ProfileVersion, since: datetime | None = None) -> None:
    """Tickets, and groups, that could have been made under the version go on under it. Those that do not fit it play
    out their time under the one they were made for. `since`: only those made since then."""
    rules = rules_of(version)
    waiting = Ticket.objects.filter(version__profile=profile, status__in=(Status.INITIAL, Status.SEARCHING))
    waiting = waiting.exclude(version=version)
    if since is not None:
        waiting = waiting.filter(created_at__gte=since)
    units: dict[Any, list[tuple[str, dict[str, Any]]]] = {}
    for ticket_id, group, attributes in waiting.values_list("pk", "group_id", "attributes").iterator(chunk_size=1_000):
        units.setdefault(group or ticket_id, []).append((ticket_id, attributes))
    moved = [ticket for members in units.values() if _fits(rules, members) for ticket, _ in members]
    for start in range(0, len(moved), 500):
        chosen = Ticket.objects.filter(pk__in=moved[start : start + 500], status__in=(Status.INITIAL, Status.SEARCHING))
        chosen.update(version=version)
        Group.objects.filter(members__in=chosen).update(version=version)


def _fits(rules: Rules, members: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    """As at the creation of a ticket or of a group."""
    attributes = [each for _, each in members]
    return not any(attribute_problems(rules, each) for each in attributes) and not group_problems(rules, attributes)


def move_late_tickets() -> None:
    """Tickets that were being made while another version became active were made under the one before."""
    late = Profile.objects.filter(
        versions__tickets__status__in=(Status.INITIAL, Status.SEARCHING),
        versions__tickets__created_at__gte=F("active__activated_at"),
    ).exclude(active=F("versions"))
    for profile in late.select_related("active").distinct()[:100]:
        active = profile.active
        if active is not None:
            with transaction.atomic():
                _move_waiting(profile, active, since=active.activated_at)


def _active_version(tenant: str, name: str) -> tuple[ProfileVersion, Rules]:
    """What a new ticket is made under. Raises Invalid (EDGEGAP.md M12: an unknown profile is 400)."""
    found = active_version(tenant=tenant, name=name)
    if found is None:
        raise invalid([Problem("profile", f"there is no active profile {name}")])
    return found


# -- tickets ---------------------------------------------------------------------------------------


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
        version, rules = _active_version(requester.tenant, player.profile)
        ticket = _ticket(requester, version, rules, player, requester.key)
        # Hardly any request is a repetition: the constraint finds those, so that the others need no query for it.
        with places(requester.tenant, requester.network, 1):
            return _insert_one(requester, _searching(ticket, rules, timezone.now()))
    except (ApiError, APIException):
        if earlier := _made_before(requester):
            return earlier[0]
        raise


def tickets_create_together(requester: Requester, players: Sequence[Player]) -> list[Ticket]:
    """A group that searches at once; or the one that the request made before. A ticket for each, in this order.

    Raises as `ticket_create`: nothing is made then."""
    if earlier := _made_before(requester):
        return earlier
    names = {player.profile for player in players}
    if len(names) > 1:
        raise invalid([Problem("player_tickets", "name different profiles")])
    version, rules = _active_version(requester.tenant, names.pop())
    tickets = []
    for index, player in enumerate(players):
        key = "" if index else requester.key
        tickets.append(_ticket(requester, version, rules, player, key, under=f"player_tickets[{index}]."))
    if problems := group_problems(rules, [ticket.attributes for ticket in tickets]):
        raise invalid(problems, under="player_tickets")
    now = timezone.now()

    def insert() -> list[Ticket]:
        group = Group.objects.create(version=version)
        for ticket in tickets:
            _searching(ticket, rules, now, group).save(force_insert=True)
        return tickets

    with places(requester.tenant, requester.network, len(tickets)):
        return _insert(requester, insert)


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


def _made_before(requester: Requester) -> list[Ticket]:
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


def _insert(requester: Requester, insert: Callable[[], list[Ticket]]) -> list[Ticket]:
    """All or none. One of two equal requests at the same moment makes them, and both answer with them."""
    try:
        with transaction.atomic():
            return insert()
    except IntegrityError:
        return _inserted_before(requester)


def _insert_one(requester: Requester, ticket: Ticket) -> Ticket:
    """`_insert` of a single ticket. That is one statement, which needs no transaction of its own, and so neither BEGIN
    nor COMMIT; within a transaction it needs a savepoint."""
    try:
        with transaction.atomic() if connection.in_atomic_block else contextlib.nullcontext():
            ticket.save(force_insert=True)
            return ticket
    except IntegrityError:
        return _inserted_before(requester)[0]


def _inserted_before(requester: Requester) -> list[Ticket]:
    """By the same request, a moment ago. Raises PlayerHasTicket where it was another one."""
    if earlier := _made_before(requester):
        return earlier
    raise PlayerHasTicket from None


def _ticket(
    requester: Requester, version: ProfileVersion, rules: Rules, player: Player, key: str, under: str = ""
) -> Ticket:
    """Not yet in the database. Raises Invalid."""
    if problems := attribute_problems(rules, player.attributes):
        raise invalid(problems, under=f"{under}attributes")
    if rules.latencies:
        latencies, path = player.attributes[rules.latencies], f"{under}attributes.{rules.latencies}"
        warn(not_measured(latencies, path))
        if known := frozenset(selectors.known_locations().slugs_by_city):
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


def _searching(ticket: Ticket, rules: Rules, now: datetime, group: Group | None = None) -> Ticket:
    ticket.group, ticket.status = group, Status.SEARCHING
    ticket.searching_since, ticket.expires_at = now, now + timedelta(seconds=rules.expiration)
    return ticket


# -- groups ----------------------------------------------------------------------------------------


def group_create(requester: Requester, player: Player, *, is_ready: bool) -> Ticket:
    """A group of one: its first member. It searches when all are ready (EDGEGAP.md 5.2). Raises as `ticket_create`."""
    if earlier := _made_before(requester):
        return earlier[0]
    version, rules = _active_version(requester.tenant, player.profile)
    member = _ticket(requester, version, rules, player, requester.key)
    with places(requester.tenant, requester.network, 1):
        group = Group(version=version)
        return _insert(requester, lambda: [_join_new(group, rules, member, is_ready=is_ready)])[0]


def member_add(requester: Requester, player: Player, *, group_id: UUID, is_ready: bool) -> Ticket:
    """Raises as `ticket_create`, and NotFound, GroupFull, GroupClosed (EDGEGAP.md M11: a group that searches is
    closed)."""
    if earlier := _made_before(requester):
        return earlier[0]

    def insert() -> list[Ticket]:
        group, members = _open_group(requester.tenant, group_id)
        rules = rules_of(group.version)
        if group.version.profile.name != player.profile:
            raise invalid([Problem("profile", f"the group is made for {group.version.profile.name}")])
        if len(members) >= rules.max_group:
            raise GroupFull
        member = _ticket(requester, group.version, rules, player, requester.key)
        if problems := group_problems(rules, [*(each.attributes for each in members), member.attributes]):
            raise invalid(problems, under="attributes")
        return [_join(group, rules, member, is_ready=is_ready)]

    with places(requester.tenant, requester.network, 1):
        return _insert(requester, insert)[0]


def member_ready(*, tenant: str, group_id: UUID, member_id: str, is_ready: bool) -> Ticket:
    """Repeated, it answers as the first time, also when the group searches by then. Raises NotFound, GroupClosed."""
    with transaction.atomic():
        group = _locked_group(group_id)
        members = group_members(tenant=tenant, group_id=group_id)
        member = next((member for member in members if member.pk == member_id), None)
        if member is None:
            raise NotFound("There is no such member of the group.")
        if group is None or any(each.status != Status.INITIAL for each in members):
            if member.is_ready == is_ready and member.status != Status.CANCELLED:
                return member
            raise GroupClosed
        Ticket.objects.filter(pk=member_id).update(is_ready=is_ready)
        _search_when_all_are_ready(group, rules_of(group.version))
    return Ticket.objects.select_related("match", "version__profile").get(pk=member_id)


def member_remove(*, tenant: str, group_id: UUID, member_id: str) -> None:
    """Before the search: that member leaves. While it searches, or is matched and not yet assigned: the whole group is
    cancelled (EDGEGAP.md M11), and the others of its match search on. Raises NotFound, AlreadyMatched."""
    members = group_members(tenant=tenant, group_id=group_id)
    member = next((member for member in members if member.pk == member_id), None)
    if member is None:
        raise NotFound("There is no such member of the group.")
    with transaction.atomic():
        if Ticket.objects.filter(pk=member_id, status=Status.INITIAL).delete()[0]:
            if len(members) > 1:
                _search_when_all_are_ready(Group.objects.get(pk=group_id), rules_of(member.version))
            return
        _group_cancel(members)


def group_remove(*, tenant: str, group_id: UUID) -> None:
    """Raises NotFound, AlreadyMatched."""
    members = group_members(tenant=tenant, group_id=group_id)
    with transaction.atomic():
        _group_cancel(members)


def _group_cancel(members: Sequence[Ticket]) -> None:
    if tickets_cancel(members, "member_left"):
        return
    match = Ticket.objects.select_related("match").get(pk=members[0].pk).match
    if match is not None and match.state == MatchState.FORMING and match_abandon(match, "member_left"):
        tickets_cancel(members, "member_left")
        return
    if Ticket.objects.filter(pk=members[0].pk).exclude(status=Status.CANCELLED).exists():
        raise AlreadyMatched


def _open_group(tenant: str, group_id: UUID) -> tuple[Group, list[Ticket]]:
    """Locked until the transaction ends. Raises NotFound, GroupClosed."""
    found = _locked_group(group_id)
    members = group_members(tenant=tenant, group_id=group_id)
    if found is None or any(member.status != Status.INITIAL for member in members):
        raise GroupClosed
    return found, members


def _locked_group(group_id: UUID) -> Group | None:
    group = Group.objects.select_for_update(no_key=True, of=("self",)).select_related("version__profile")
    return group.filter(pk=group_id).first()


def _join_new(group: Group, rules: Rules, member: Ticket, *, is_ready: bool) -> Ticket:
    group.save(force_insert=True)
    return _join(group, rules, member, is_ready=is_ready)


def _join(group: Group, rules: Rules, member: Ticket, *, is_ready: bool) -> Ticket:
    member.group, member.is_ready, member.status = group, is_ready, Status.INITIAL
    member.expires_at = timezone.now() + timedelta(seconds=rules.group_inactivity)
    member.save(force_insert=True)
    _search_when_all_are_ready(group, rules)
    member.refresh_from_db()
    return member


def _search_when_all_are_ready(group: Group, rules: Rules) -> None:
    """And otherwise the time of inactivity starts again."""
    now = timezone.now()
    members = Ticket.objects.filter(group=group, status=Status.INITIAL)
    if members.filter(is_ready=False).exists():
        members.update(expires_at=now + timedelta(seconds=rules.group_inactivity))
    else:
        expires_at = now + timedelta(seconds=rules.expiration)
        members.update(status=Status.SEARCHING, searching_since=now, expires_at=expires_at)


# -- backfills -------------------------------------------------------------------------------------


def backfill_create(
    requester: Requester, *, profile: str, attributes: Mapping[str, Any], tickets: Mapping[str, Mapping[str, Any]]
) -> Backfill:
    """`attributes` hold `assignment`, whose request_id is the relay session, and what the rules want to know that the
    players' own attributes in `tickets` do not say. A player's key may ask for the session of a match made here, with
    the `host_key` that the assignment of its host holds: nobody brings others into a session of its own choice. Takes
    the place of the session's open backfill. Raises Invalid, NotTheHost, SessionFull, AlreadyMatched."""
    version, rules = _active_version(requester.tenant, profile)
    assignment = attributes.get("assignment")
    if not isinstance(assignment, Mapping) or not _is_session_id(assignment.get("request_id")):
        raise invalid([Problem("attributes.assignment.request_id", "must be the id of the relay session")])
    session_id = assignment["request_id"]
    origin = match_of_session(tenant=requester.tenant, session_id=session_id)
    if not requester.is_backend:
        if origin is None or not is_host_key(assignment.get("host_key"), session_id):
            raise NotTheHost
        if origin.version.profile_id != version.profile_id:
            raise invalid([Problem("profile", f"the match is one of {origin.version.profile.name}")])
    backfill = Backfill(
        tenant=requester.tenant,
        version=version,
        session_id=session_id,
        attributes={**attributes, "assignment": {k: v for k, v in assignment.items() if k != "host_key"}},
        tickets=dict(tickets),
        expires_at=timezone.now() + BACKFILL_LIFETIME,
    )
    for player in backfill_players(backfill):
        if problems := attribute_problems(rules, player.attributes):
            raise invalid(problems, under="attributes")
    seated = players_of_session(origin)
    # A backend's list of who plays is believed; a host's is not.
    playing = len(tickets) if requester.is_backend and tickets else len(seated)
    if playing >= rules.max_players:
        raise SessionFull
    backfill.open_seats = rules.max_players - playing
    backfill.seated = sorted(seated | {str(each.get("player_id", name)) for name, each in tickets.items()})
    waiting = Backfill.objects.filter(tenant=requester.tenant, session_id=session_id)
    try:
        with transaction.atomic():
            waiting.filter(status=Status.SEARCHING).update(
                status=Status.CANCELLED, reason="replaced", remove_at=timezone.now() + timedelta(seconds=rules.removal)
            )
            backfill.save(force_insert=True)
    except IntegrityError:  # the open one has found a group, or another was made at the same moment
        raise AlreadyMatched("The session's open backfill has found a group, which is joining.") from None
    return backfill


def _is_session_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 20


def backfill_delete(*, backfill: Backfill) -> None:
    """Raises AlreadyMatched while a group is on its way into the match."""
    if not Backfill.objects.filter(pk=backfill.pk).exclude(status=Status.MATCH_FOUND).delete()[0]:
        raise AlreadyMatched
