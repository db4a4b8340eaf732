"""Groups whose members join one by one, and search together when all are ready (EDGEGAP.md 5.2)."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from web.errors import NotFound

from ..background.session_assignment import match_abandon
from ..errors import AlreadyMatched, GroupClosed, GroupFull, invalid
from ..matching.attributes import group_problems
from ..matching.rules import Problem, Rules
from ..models import Group, MatchState, Status, Ticket
from ..selectors.profiles import rules_of
from ..selectors.tickets import group_members
from .quotas import places
from .tickets import Player, Requester, created_before, insert_once, new_ticket, require_active_version, tickets_cancel


def group_create(requester: Requester, player: Player, *, is_ready: bool) -> Ticket:
    """A group and its first member. Raises the errors of `ticket_create`."""
    if earlier := created_before(requester):
        return earlier[0]
    version, rules = require_active_version(requester.tenant, player.profile)
    member = new_ticket(requester, version, rules, player, requester.key)
    with places(requester.tenant, requester.network, 1):
        group = Group(version=version)
        return insert_once(requester, lambda: [_join_new(group, rules, member, is_ready=is_ready)])[0]


def member_add(requester: Requester, player: Player, *, group_id: UUID, is_ready: bool) -> Ticket:
    """Raises as `ticket_create`, and NotFound, GroupFull, GroupClosed (EDGEGAP.md M11: a group that searches is
    closed)."""
    if earlier := created_before(requester):
        return earlier[0]

    def insert() -> list[Ticket]:
        group, members = _open_group(requester.tenant, group_id)
        rules = rules_of(group.version)
        if group.version.profile.name != player.profile:
            raise invalid([Problem("profile", f"the group is made for {group.version.profile.name}")])
        if len(members) >= rules.max_group:
            raise GroupFull
        member = new_ticket(requester, group.version, rules, player, requester.key)
        if problems := group_problems(rules, [*(each.attributes for each in members), member.attributes]):
            raise invalid(problems, under="attributes")
        return [_join(group, rules, member, is_ready=is_ready)]

    with places(requester.tenant, requester.network, 1):
        return insert_once(requester, insert)[0]


def member_ready(*, tenant: str, group_id: UUID, member_id: str, is_ready: bool) -> Ticket:
    """A repeated call succeeds as the first one did, even when the group is searching by then. Raises NotFound,
    GroupClosed."""
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
    """Before the search, the member leaves. While the group is searching, or matched and not yet assigned, the whole
    group is cancelled (EDGEGAP.md M11), and the other tickets of its match search again. Raises NotFound,
    AlreadyMatched."""
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
    """Otherwise the period of inactivity starts again."""
    now = timezone.now()
    members = Ticket.objects.filter(group=group, status=Status.INITIAL)
    if members.filter(is_ready=False).exists():
        members.update(expires_at=now + timedelta(seconds=rules.group_inactivity))
    else:
        expires_at = now + timedelta(seconds=rules.expiration)
        members.update(status=Status.SEARCHING, searching_since=now, expires_at=expires_at)
