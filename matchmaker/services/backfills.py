"""Backfills: a match in play asks for one more group."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from ..errors import AlreadyMatched, NotTheHost, SessionFull, invalid
from ..matching.attributes import attribute_problems
from ..matching.rules import Problem
from ..models import Backfill, Status
from ..proofs import is_host_key
from ..selectors.matches import match_of_session, players_of_session
from ..selectors.pool import backfill_players
from .tickets import Requester, require_active_version

BACKFILL_LIFETIME = timedelta(minutes=1)  # the game renews by making another; EDGEGAP.md 5.6 leaves the length open


def backfill_create(
    requester: Requester, *, profile: str, attributes: Mapping[str, Any], tickets: Mapping[str, Mapping[str, Any]]
) -> Backfill:
    """Replaces the open backfill of the session. `attributes` contain `assignment`, whose request_id is the id of the
    relay session, and the attributes that the rules need and the players' own ones in `tickets` lack. A player's key
    may request a backfill only for the session of a match, with the `host_key` from the assignment of its host, so that
    no player draws others into a session of its choice. Raises Invalid, NotTheHost, SessionFull, AlreadyMatched."""
    version, rules = require_active_version(requester.tenant, profile)
    assignment = attributes.get("assignment")
    if not isinstance(assignment, Mapping) or not _is_session_id(assignment.get("request_id")):
        raise invalid([Problem("attributes.assignment.request_id", "must be the id of the relay session")])
    session_id = assignment["request_id"]
    origin = match_of_session(tenant=requester.tenant, session_id=session_id)
    if not requester.is_backend:
        if origin is None or not is_host_key(assignment.get("host_key"), session_id):
            raise NotTheHost
        if origin.version.profile_id != version.profile_id:
            raise invalid([Problem("profile", f"the match belongs to {origin.version.profile.name}")])
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
    # The list of players is trusted when a backend sends it, and not when a host does.
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
    except IntegrityError:  # the open backfill has found a group, or another one was created at the same time
        raise AlreadyMatched("The open backfill of the session has found a group, which is joining.") from None
    return backfill


def _is_session_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 20


def backfill_delete(*, backfill: Backfill) -> None:
    """Raises AlreadyMatched while a group is joining the match."""
    if not Backfill.objects.filter(pk=backfill.pk).exclude(status=Status.MATCH_FOUND).delete()[0]:
        raise AlreadyMatched
