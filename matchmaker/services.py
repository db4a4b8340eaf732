"""Writes that callers ask for: profiles, tickets, groups, backfills. What happens by itself is in `life`."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from web.input_warnings import unknown_names, warn

from . import selectors
from .errors import AlreadyMatched, GroupClosed, GroupFull, NoEarlierVersion, NotFound, invalid
from .life import match_abandon
from .models import Backfill, Group, Match, MatchState, Profile, ProfileVersion, Status, Ticket
from .profiles import Problem, ProfileInvalid, attribute_problems, group_problems, parse, with_unmeasured
from .profiles import Profile as Rules
from .selectors import backfill_players, group_members, profile_get, rules_of, version_get

BACKFILL_LIFETIME = timedelta(minutes=1)  # the game renews by making another; spec 5.6 leaves the length open

# -- profiles --------------------------------------------------------------------------------------


def profile_version_create(
    *, tenant: str, name: str, config: Any, note: str = "", activate: bool = False
) -> ProfileVersion:
    """The next version, of a new profile if there is none of that name. Raises ValidationError, problems by path."""
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


def profile_activate(*, tenant: str, name: str, number: int) -> ProfileVersion:
    """From now on tickets are made under this version; those who wait and fit it move over. Raises NotFound."""
    profile = profile_get(tenant=tenant, name=name)
    version = version_get(profile=profile, number=number)
    with transaction.atomic():
        _activate(profile, version)
    return version


def profile_rollback(*, tenant: str, name: str) -> ProfileVersion:
    """Back to the version that was activated before the active one. Raises NotFound, NoEarlierVersion."""
    profile = profile_get(tenant=tenant, name=name)
    earlier = ProfileVersion.objects.filter(profile=profile).order_by("-activated_at")
    active = profile.active
    version = earlier.filter(activated_at__lt=active.activated_at).first() if active else None
    if version is None:
        raise NoEarlierVersion
    with transaction.atomic():
        Profile.objects.filter(pk=profile.pk).update(active=version)
        _move_waiting(profile, version)
    return version


def _activate(profile: Profile, version: ProfileVersion) -> None:
    ProfileVersion.objects.filter(pk=version.pk).update(activated_at=timezone.now())
    Profile.objects.filter(pk=profile.pk).update(active=version)
    _move_waiting(profile, version)


def _move_waiting(profile: Profile, version: ProfileVersion) -> None:
    """Tickets with other attributes than the version wants play out their time under the one they were made for."""
    rules = rules_of(version)
    waiting = Ticket.objects.filter(version__profile=profile, status__in=(Status.INITIAL, Status.SEARCHING))
    fitting: dict[Any, list[str]] = {}
    for ticket_id, group, attributes in waiting.values_list("pk", "group_id", "attributes"):
        fitting.setdefault(group or ticket_id, []).append("" if attribute_problems(rules, attributes) else ticket_id)
    moved = [ticket for members in fitting.values() if all(members) for ticket in members]
    for start in range(0, len(moved), 500):
        chosen = Ticket.objects.filter(pk__in=moved[start : start + 500], status__in=(Status.INITIAL, Status.SEARCHING))
        chosen.update(version=version)
        Group.objects.filter(members__in=chosen).update(version=version)


def _active_version(tenant: str, name: str) -> tuple[ProfileVersion, Rules]:
    """What a new ticket is made under. Raises ValidationError (M12: an unknown profile is 400)."""
    profile = Profile.objects.select_related("active").filter(tenant=tenant, name=name).first()
    if profile is None or profile.active is None:
        raise invalid([Problem("profile", f"there is no active profile {name}")])
    return profile.active, rules_of(profile.active)


# -- tickets ---------------------------------------------------------------------------------------


def ticket_create(
    *, tenant: str, profile: str, attributes: Mapping[str, Any], player_ip: str, whereabouts: Mapping[str, Any]
) -> Ticket:
    """A ticket that searches. Raises ValidationError."""
    version, rules = _active_version(tenant, profile)
    attributes = _checked_attributes(rules, attributes)
    return _searching(_ticket(tenant, version, attributes, player_ip, whereabouts), rules, timezone.now())


def tickets_create_together(*, tenant: str, players: Sequence[dict[str, Any]]) -> list[Ticket]:
    """A group that searches at once. `players`: profile, attributes, player_ip and whereabouts of each, in this order.

    Raises ValidationError: nothing is made then."""
    names = {player["profile"] for player in players}
    if len(names) > 1:
        raise invalid([Problem("player_tickets", "name different profiles")])
    version, rules = _active_version(tenant, names.pop())
    if len(players) > rules.max_group:
        raise invalid([Problem("player_tickets", f"a team of this profile has at most {rules.max_group} players")])
    players = [
        {
            **player,
            "attributes": _checked_attributes(rules, player["attributes"], f"player_tickets[{index}].attributes"),
        }
        for index, player in enumerate(players)
    ]
    if problems := group_problems(rules, [player["attributes"] for player in players]):
        raise invalid(problems, under="player_tickets")
    now = timezone.now()
    with transaction.atomic():
        group = Group.objects.create(version=version)
        tickets = [
            _ticket(tenant, version, player["attributes"], player["player_ip"], player["whereabouts"])
            for player in players
        ]
        return [_searching(ticket, rules, now, group) for ticket in tickets]


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


def _checked_attributes(rules: Rules, attributes: Mapping[str, Any], under: str = "attributes") -> Mapping[str, Any]:
    """As they are kept: with what the profile says of a player who measured nothing."""
    if rules.unmeasured is not None:
        attributes = with_unmeasured(rules, attributes, selectors.fleet_names().slugs_by_city)
    if problems := attribute_problems(rules, attributes):
        raise invalid(problems, under=under)
    if rules.latencies and (known := selectors.fleet_names().slugs_by_city.keys()):
        path = f"{under}.{rules.latencies}.{{name}}"
        warn(unknown_names(attributes[rules.latencies], frozenset(known), path, "beacon", "beacon_unknown"))
    return attributes


def _ticket(
    tenant: str, version: ProfileVersion, attributes: Mapping[str, Any], player_ip: str, whereabouts: Mapping[str, Any]
) -> Ticket:
    return Ticket(
        tenant=tenant,
        version=version,
        attributes=dict(attributes),
        player_ip=player_ip,
        whereabouts=dict(whereabouts),
    )


def _searching(ticket: Ticket, rules: Rules, now: datetime, group: Group | None = None) -> Ticket:
    ticket.group, ticket.status = group, Status.SEARCHING
    ticket.searching_since, ticket.expires_at = now, now + timedelta(seconds=rules.expiration)
    ticket.save(force_insert=True)
    return ticket


# -- groups ----------------------------------------------------------------------------------------


def group_create(
    *,
    tenant: str,
    profile: str,
    attributes: Mapping[str, Any],
    player_ip: str,
    whereabouts: Mapping[str, Any],
    is_ready: bool,
) -> Ticket:
    """A group of one: its first member. It searches when all are ready (compat spec 5.2). Raises ValidationError."""
    version, rules = _active_version(tenant, profile)
    attributes = _checked_attributes(rules, attributes)
    with transaction.atomic():
        group = Group.objects.create(version=version)
        return _join(group, rules, _ticket(tenant, version, attributes, player_ip, whereabouts), is_ready)


def member_add(
    *,
    tenant: str,
    group_id: UUID,
    profile: str,
    attributes: Mapping[str, Any],
    player_ip: str,
    whereabouts: Mapping[str, Any],
    is_ready: bool,
) -> Ticket:
    """Raises NotFound, ValidationError, GroupClosed (M11: nobody joins one that searches), GroupFull."""
    with transaction.atomic():
        group, members = _open_group(tenant, group_id)
        rules = rules_of(group.version)
        if group.version.profile.name != profile:
            raise invalid([Problem("profile", f"the group is made for {group.version.profile.name}")])
        if len(members) >= rules.max_group:
            raise GroupFull
        attributes = _checked_attributes(rules, attributes)
        if problems := group_problems(rules, [*(member.attributes for member in members), attributes]):
            raise invalid(problems, under="attributes")
        return _join(group, rules, _ticket(tenant, group.version, attributes, player_ip, whereabouts), is_ready)


def member_ready(*, tenant: str, group_id: UUID, member_id: str, is_ready: bool) -> Ticket:
    """Raises NotFound, GroupClosed."""
    with transaction.atomic():
        group, members = _open_group(tenant, group_id)
        member = next((member for member in members if member.pk == member_id), None)
        if member is None:
            raise NotFound("There is no such member of the group.")
        Ticket.objects.filter(pk=member_id).update(is_ready=is_ready)
        _search_when_all_are_ready(group, rules_of(group.version))
    return Ticket.objects.select_related("match", "version__profile").get(pk=member_id)


def member_remove(*, tenant: str, group_id: UUID, member_id: str) -> None:
    """Before the search: that member leaves. While it searches, or is matched and not yet assigned: the whole group is
    cancelled (M11), and the others of its match search on. Raises NotFound, AlreadyMatched."""
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
    if tickets_cancel(members, "left"):
        return
    match = Ticket.objects.select_related("match").get(pk=members[0].pk).match
    if match is not None and match.state == MatchState.FORMING and match_abandon(match, "left"):
        tickets_cancel(members, "left")
        return
    if Ticket.objects.filter(pk=members[0].pk).exclude(status=Status.CANCELLED).exists():
        raise AlreadyMatched


def _open_group(tenant: str, group_id: UUID) -> tuple[Group, list[Ticket]]:
    """Locked until the transaction ends. Raises NotFound, GroupClosed."""
    group = Group.objects.select_for_update(no_key=True, of=("self",)).select_related("version__profile")
    found = group.filter(pk=group_id).first()
    members = group_members(tenant=tenant, group_id=group_id)
    if found is None or any(member.status != Status.INITIAL for member in members):
        raise GroupClosed
    return found, members


def _join(group: Group, rules: Rules, member: Ticket, is_ready: bool) -> Ticket:
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
    *,
    tenant: str,
    profile: str,
    attributes: Mapping[str, Any],
    tickets: Mapping[str, Mapping[str, Any]],
    any_session: bool,
) -> Backfill:
    """`attributes` hold `assignment`, whose request_id is the relay session, and what the rules want to know that the
    players' own attributes in `tickets` do not say. Without `any_session` it must be one of a match made here: a
    player's key is not to bring others into a session of the player's choice. Raises ValidationError."""
    version, rules = _active_version(tenant, profile)
    assignment = attributes.get("assignment")
    if not isinstance(assignment, Mapping) or not isinstance(assignment.get("request_id"), str):
        raise invalid([Problem("attributes.assignment.request_id", "must be the id of the relay session")])
    here = Match.objects.filter(version__profile__tenant=tenant, session_id=assignment["request_id"])
    if not any_session and not here.filter(state=MatchState.ASSIGNED).exists():
        raise invalid([Problem("attributes.assignment.request_id", "is no session of a match made here")])
    backfill = Backfill(
        tenant=tenant,
        version=version,
        attributes=dict(attributes),
        tickets=dict(tickets),
        expires_at=timezone.now() + BACKFILL_LIFETIME,
    )
    for player in backfill_players(backfill):
        _checked_attributes(rules, player.attributes)
    backfill.save(force_insert=True)
    return backfill


def backfill_delete(*, backfill: Backfill) -> None:
    """Raises AlreadyMatched while a group is on its way into the match."""
    if not Backfill.objects.filter(pk=backfill.pk).exclude(status=Status.MATCH_FOUND).delete()[0]:
        raise AlreadyMatched
