"""Routes below the matchmaker's base URL. No trailing slashes and no redirects (EDGEGAP.md R13)."""

from django.urls import path, register_converter
from django.urls.converters import StringConverter
from drf_spectacular.views import SpectacularJSONAPIView

from .apis import backfills, beacons, events, groups, inspection, monitor, profiles, tickets
from .matching.profile_parser import NAME


class IdConverter(StringConverter):
    regex = "[0-9a-v]{20}"


class NameConverter(StringConverter):
    regex = NAME


register_converter(IdConverter, "id")
register_converter(NameConverter, "name")

urlpatterns = [
    path("monitor", monitor.MatchmakerMonitorApi.as_view()),
    path("locations/beacons", beacons.BeaconsApi.as_view()),
    path("tickets", tickets.TicketsApi.as_view()),
    path("tickets/<id:ticket_id>", tickets.TicketApi.as_view()),
    path("tickets/<id:ticket_id>/explanation", tickets.TicketExplanationApi.as_view()),
    path("tickets/<id:ticket_id>/events", events.TicketEventsApi.as_view()),
    path("group-tickets", tickets.GroupTicketsApi.as_view()),
    path("groups", groups.GroupsApi.as_view()),
    path("groups/<uuid:group_id>", groups.GroupApi.as_view()),
    path("groups/<uuid:group_id>/members", groups.MembersApi.as_view()),
    path("groups/<uuid:group_id>/members/<id:member_id>", groups.MemberApi.as_view()),
    path("backfills", backfills.BackfillsApi.as_view()),
    path("backfills/<uuid:backfill_id>", backfills.BackfillApi.as_view()),
    path("profiles", profiles.ProfilesApi.as_view()),
    path("profiles:validate", profiles.ProfileValidateApi.as_view()),
    path("profiles:import", profiles.ProfilesImportApi.as_view()),
    path("profiles/<name:name>", profiles.ProfileApi.as_view()),
    path("profiles/<name:name>/diff", profiles.ProfileDiffApi.as_view()),
    path("profiles/<name:name>/rollback", profiles.ProfileRollbackApi.as_view()),
    path("profiles/<name:name>/versions", profiles.VersionsApi.as_view()),
    path("profiles/<name:name>/versions/<int:number>", profiles.VersionApi.as_view()),
    path("profiles/<name:name>/versions/<int:number>/activate", profiles.VersionActivateApi.as_view()),
    path("inspect/tickets", inspection.InspectTicketsApi.as_view()),
    path("inspect/matches", inspection.InspectMatchesApi.as_view()),
    path("inspect/matches/<id:match_id>", inspection.InspectMatchApi.as_view()),
    path("swagger/v1/swagger.json", SpectacularJSONAPIView.as_view(urlconf="matchmaker.urls")),
]
