"""The page of a seat: that of sessions/admin.py, extended by export and erasure of the player's data in all apps."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path

from relaymgr.operations.player_data import Player, player_erase, player_export
from relaymgr.sessions.admin import SeatAdmin
from relaymgr.sessions.models import Seat
from web.admin.base import confirmed_action
from web.admin.wording import counted
from web.audit.via import Via
from web.errors import Conflict

admin.site.unregister(Seat)


@admin.register(Seat)
class SeatPageAdmin(SeatAdmin):
    change_form_template = "operations/seat.html"
    actions = (*SeatAdmin.actions, "erase_player")

    def get_urls(self) -> list[URLPattern]:
        export = self.admin_site.admin_view(self.export_view)
        return [path("<int:pk>/export", export, name="relay_sessions_seat_export"), *super().get_urls()]

    def page_context(self, request: HttpRequest, row: Seat) -> dict[str, Any]:
        return {"may_export": self.has_erase_permission(request) and _player(row) is not None}

    def has_erase_permission(self, request: HttpRequest) -> bool:
        """Also for the export: both concern all data of a player."""
        return request.user.has_perm("relay_sessions.delete_seat")

    def export_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if request.method != "POST" or not self.has_erase_permission(request):
            raise PermissionDenied
        seat = Seat.objects.select_related("session__tenant").filter(pk=pk).first()
        player = _player(seat) if seat else None
        if seat is None or player is None:
            raise Http404
        actor = request.user.get_username()
        found = player_export(tenant=seat.session.tenant, player=player, via=Via.ADMIN, actor=actor)
        headers = {"Content-Disposition": 'attachment; filename="player.json"'}
        return JsonResponse(found, headers=headers, json_dumps_params={"indent": 2})

    @confirmed_action(
        "Erase player",
        effect="All stored data of this player of the tenant is deleted, in every session and in the matchmaker: id, "
        "address, coordinates, measurements. In live sessions the player stays connected, unnamed.",
        permission="erase",
        is_final=True,
        applies=lambda seat: _player(seat) is not None,
    )
    def erase_player(self, request: HttpRequest, seat: Seat) -> str:
        player = _player(seat)
        if player is None:
            raise Conflict("The seat has neither a player id nor an address.")
        actor = request.user.get_username()
        found = player_erase(tenant=seat.session.tenant, player=player, via=Via.ADMIN, actor=actor)
        seats, rows = counted(found["seats"], "seat"), counted(found["matchmaker_rows"], "matchmaker row")
        return f"The data of the player of {seat} is erased: {seats}, {rows}."


def _player(seat: Seat) -> Player | None:
    """By its id, else by its address."""
    if seat.player_id:
        return Player(player_id=seat.player_id)
    return Player(ip=seat.ip) if seat.ip else None
