"""Matches, and the players of their sessions."""

from django.db.models import QuerySet

from web.errors import NotFound

from ..models import Match, MatchState


def match_get(*, tenant: str, match_id: str) -> Match:
    """Raises NotFound."""
    match = matches_of(tenant=tenant).filter(pk=match_id).first()
    if match is None:
        raise NotFound("There is no such match, or it was removed.")
    return match


def matches_of(*, tenant: str) -> QuerySet[Match]:
    return Match.objects.select_related("version__profile").filter(version__profile__tenant=tenant)


def match_of_session(*, tenant: str, session_id: str) -> Match | None:
    """The match that the session was created for."""
    made = Match.objects.select_related("version__profile").filter(session_id=session_id, origin=None, backfill=None)
    return made.filter(version__profile__tenant=tenant, state=MatchState.ASSIGNED).first()


def players_of_session(origin: Match | None) -> set[str]:
    """All players who received a seat in its session, by the match itself or by a backfill."""
    if origin is None:
        return set()
    matches = Match.objects.filter(session_id=origin.session_id, state=MatchState.ASSIGNED)
    return {player for seats in matches.values_list("seats", flat=True) for player in seats}


def team_ids_of(match: Match) -> dict[str, str]:
    """By player, for the players of its session who received their seats from matches of this matchmaker."""
    later = Match.objects.filter(origin=match.origin_id, state=MatchState.ASSIGNED) if match.origin_id else ()
    matches = [match, *([match.origin] if match.origin else []), *later]
    return {player: team for each in matches for player in each.seats if (team := each.team_id(player))}
