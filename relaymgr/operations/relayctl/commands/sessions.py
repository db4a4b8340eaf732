"""Sessions: listing them, their details, and ending them or the access of single players."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from django.utils import timezone
from rich.console import RenderableType

from relaymgr.sessions.direct_paths.changes import direct_modes_change
from relaymgr.sessions.errors import SeatUnknown
from relaymgr.sessions.overview import SessionState, seats_without_secrets, session_grants, session_ids, sessions_all
from relaymgr.sessions.selectors import node_changes, unknown_since_of
from relaymgr.sessions.services import seat_revoke, session_delete
from relaymgr.telemetry.selectors import leg_sample_newest
from relaymgr.tenants.choices import DirectMode

from ..actions import audited, confirm
from ..filters import filters_check, session_get
from ..output import Document, Json, Yes, facts, printable, show, table

if TYPE_CHECKING:
    from relaymgr.sessions.models import RelaySession, Seat

NODE_CHANGES = 300
SessionId = Annotated[str, typer.Argument(help="The id of the session, such as 3960c873aafd-S.", metavar="SESSION")]


def _pairs(values: list[str]) -> list[str]:
    for value in values:
        if "=" not in value:
            raise typer.BadParameter("write key=value")
    return values


def sessions(
    state: Annotated[
        SessionState | None, typer.Option(help="Only sessions in this state. Default: live sessions.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Only sessions of this tenant.", show_default=False)] = "",
    location: Annotated[str, typer.Option(help="Only sessions at this location.", show_default=False)] = "",
    node: Annotated[str, typer.Option(help="Only sessions on this node.", show_default=False)] = "",
    metadata: Annotated[
        list[str],
        typer.Option(help="Only sessions with this metadata. Repeatable.", metavar="KEY=VALUE", callback=_pairs),
    ] = [],  # noqa: B006 - typer copies it
    limit: Annotated[int, typer.Option(help="At most N sessions.", min=1, max=10_000)] = 50,
    as_json: Json = False,
) -> None:
    """List sessions, newest first."""
    pairs = [(key, value) for key, _, value in (pair.partition("=") for pair in metadata)]
    filters_check(tenant=tenant, location=location, node=node)
    # The ids first, so that seats are counted for these sessions only.
    ids = session_ids(state=state or "", tenant=tenant, location=location, node=node, metadata=pairs, at_most=limit + 1)
    found = sessions_all().filter(pk__in=ids[:limit])
    document = {"sessions": [_document(session) for session in found], "has_more": len(ids) > limit}
    show(document, as_json, _render)


def session(session_id: SessionId, as_json: Json = False) -> None:
    """Show one session with its seats, the quality of their connections, and its timeline."""
    show(_detail(session_get(session_id)), as_json, _render_one)


def revoke(
    session_id: SessionId,
    seat: Annotated[int, typer.Argument(help="The number of the seat.", metavar="SEAT", min=0, max=254)],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Revoke a player's access. Once this returns, the node forwards no more packets of that seat."""
    found = session_get(session_id)
    row = found.seats.filter(number=seat).first()
    if row is None:
        raise SeatUnknown
    player = f", player {printable(row.player_id)}" if row.player_id else ""
    confirm(f"Revoke seat {seat}{player} of session {found}?", yes=yes)
    with audited("seat.revoke", str(row)):
        seat_revoke(tenant=found.tenant, session_id=found.pk, token=int(row.token))
    document = {"session": found.pk, "seat": seat, "revoked": True}
    show(document, as_json, lambda document: [f"Seat {seat} of {found} is revoked."])


def direct_mode(
    session_id: SessionId,
    mode: Annotated[DirectMode, typer.Argument(help="relay_only, ask or direct.", metavar="MODE")],
    seat: Annotated[int | None, typer.Option(help="Only for the player with this seat number.", min=0, max=254)] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Change the direct mode of a session or of one seat. Once this returns, the node applies it and has notified the
    players. The strictest of tenant, session and seat holds."""
    found = session_get(session_id)
    whose = f"session {found}" if seat is None else f"seat {seat} of session {found}"
    confirm(f"Set the direct mode of {whose} to {mode.value}?", yes=yes)
    requested: dict[str, Any] = {"direct_mode": mode.value} if seat is None else {"seats": {seat: mode.value}}
    with audited("session.direct_mode", str(found) if seat is None else f"{found}/{seat}", mode.value):
        changed = direct_modes_change(tenant=found.tenant, session_id=found.pk, **requested)
    modes = {each.number: each.direct_mode for each in changed.active_seats}
    applied = changed.direct_mode if seat is None else modes[seat]
    document = {"session": found.pk, "seat": seat, "direct_mode": applied}
    show(document, as_json, lambda document: [f"The direct mode of {whose} is {applied}."])


def delete(session_id: SessionId, yes: Yes = False, as_json: Json = False) -> None:
    """End a session. Once this returns, the node forwards no more of its packets."""
    found = session_get(session_id)
    connected = found.seats.filter(is_connected=True, revoked_at=None).count() if found.is_ready else 0
    since = unknown_since_of(found, timezone.now())
    when = f"were connected when its node was last seen, at {since:%H:%M:%S} UTC" if since else "are connected"
    confirm(f"End session {found} of {found.tenant}? Players that {when}: {connected}.", yes=yes)
    with audited("session.delete", str(found)):
        session_delete(tenant=found.tenant, session_id=found.pk)
    show({"session": found.pk, "deleted": True}, as_json, lambda document: [f"{found} is deleted."])


def _document(session: Any) -> Document:
    node = session.worker.node if session.worker else None
    return {
        "id": session.pk,
        "tenant": session.tenant.slug,
        "state": session.state,
        "location": node.location.slug if node else None,
        "node": node.name if node else None,
        "worker": session.worker.index if session.worker else None,
        "seats": session.seats_held,
        "connected": session.seats_connected if session.is_ready else 0,
        "unknown_since": unknown_since_of(session, timezone.now()),
        "created_at": session.created_at,
        "ready_at": session.ready_at,
        "expires_at": session.expires_at,
        "ended_at": session.ended_at,
        "end_reason": session.end_reason,
        "metadata": session.metadata,
    }


def _detail(session: "RelaySession") -> Document:
    return _document(session) | {
        "topology": session.topology,
        "objective": session.objective,
        "dialects": session.dialects,
        "direct_mode": session.direct_mode,
        "direct_grace": session.direct_grace,
        "idle_timeout": session.idle_timeout,
        "filters": session.filters,
        "constraints": session.constraints,
        "better_relay": session.better_relay or None,
        "players": [
            _seat(seat, is_known=unknown_since_of(session, timezone.now()) is None)
            for seat in seats_without_secrets(session)
        ],
        "timeline": _timeline(session),
        "grants": [
            {
                "node": grant.worker.node.name,
                "wanted": grant.wanted,
                "revision": grant.revision,
                "confirmed": grant.confirmed,
                "seats_reserved": grant.seats_reserved,
            }
            for grant in session_grants(session)
        ],
    }


def _timeline(session: "RelaySession") -> list[Document]:
    """Its events, and the state changes of its node meanwhile (kind `node_lost`, `node_ready`, ...)."""
    lines: list[Document] = [
        {"at": event.at, "kind": event.kind, "seat": event.seat, "reason": event.reason}
        for event in session.events.all()
    ]
    lines += [
        {"at": change.at, "kind": f"node_{change.after}", "seat": None, "reason": f"{change.node}: {change.reason}"}
        for change in node_changes(session)[:NODE_CHANGES]
    ]
    return sorted(lines, key=lambda line: line["at"])


def _seat(seat: "Seat", *, is_known: bool) -> Document:
    sample = leg_sample_newest(session_id=seat.session_id, seat=seat.number)
    return {
        "seat": seat.number,
        "player_id": seat.player_id,
        "ip": seat.ip,
        "connected": seat.is_connected if is_known or seat.revoked_at else None,
        "dialect": seat.dialect,
        "direct_mode": seat.direct_mode,
        "revoked_at": seat.revoked_at,
        "quality": {"at": sample.at, "rtt_ms": sample.rtt_ms, "jitter_ms": sample.jitter_ms, "loss": sample.loss}
        if sample
        else None,
    }


def _render(document: Document) -> Iterator[RenderableType]:
    columns = (
        "session",
        "tenant",
        "state",
        "location",
        "node",
        "seats",
        "connected",
        "created",
        "ends",
        "end reason",
        "metadata",
    )
    names = ("id", "tenant", "state", "location", "node", "seats", "connected", "created_at")
    shown = ({**each, "connected": _connected(each)} for each in document["sessions"])
    rows = (
        [*(each[name] for name in names), each["ended_at"] or each["expires_at"], each["end_reason"], each["metadata"]]
        for each in shown
    )
    yield table(columns, rows, numbers=("seats", "connected"))
    if document["has_more"]:
        yield "There are more sessions. Raise --limit to see them."


def _connected(session: Document) -> str:
    return f"{session['connected']}" + (" (last known)" if session["unknown_since"] else "")


def _render_one(session: Document) -> Iterator[RenderableType]:
    where = f"{session['node']}/{session['worker']} at {session['location']}" if session["node"] else None
    yield facts(
        [
            ("session", session["id"]),
            ("tenant", session["tenant"]),
            ("state", session["state"]),
            ("node", where),
            *([("players unknown since", session["unknown_since"])] if session["unknown_since"] else []),
            ("created", session["created_at"]),
            ("ended" if session["ended_at"] else "ends", session["ended_at"] or session["expires_at"]),
            ("end reason", session["end_reason"]),
            ("topology", f"{session['topology']}, objective {session['objective']}"),
            ("dialects", session["dialects"]),
            ("direct mode", session["direct_mode"]),
            ("metadata", session["metadata"]),
            *([("better node", f"{session['better_relay']['node']}")] if session["better_relay"] else []),
        ]
    )
    yield ""
    columns = (
        "seat",
        "player",
        "address",
        "connected",
        "dialect",
        "RTT ms",
        "jitter ms",
        "loss",
        "measured",
        "revoked",
    )
    yield table(columns, map(_seat_row, session["players"]), numbers=("seat", "RTT ms", "jitter ms", "loss"))
    yield ""
    started = session["created_at"]
    rows = (
        (
            event["at"].isoformat(timespec="milliseconds"),
            f"+{(event['at'] - started).total_seconds():.3f} s",
            event["kind"],
        )
        + (event["seat"], event["reason"])
        for event in session["timeline"]
    )
    yield table(("time", "offset", "event", "seat", "reason"), rows, numbers=("offset", "seat"))
    unconfirmed = [grant["node"] for grant in session["grants"] if grant["confirmed"] < grant["revision"]]
    if unconfirmed:
        yield ""
        yield f"Not confirmed yet by: {', '.join(unconfirmed)}."


def _seat_row(seat: Document) -> list[Any]:
    quality = seat["quality"] or {}
    return [
        *(seat[name] for name in ("seat", "player_id", "ip")),
        "unknown" if seat["connected"] is None else seat["connected"],
        seat["dialect"],
        *(quality.get(name) for name in ("rtt_ms", "jitter_ms", "loss", "at")),
        seat["revoked_at"],
    ]
