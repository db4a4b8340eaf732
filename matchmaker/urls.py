"""Routes below the matchmaker's base URL. No trailing slashes and no redirects (EDGEGAP.md R13)."""

from django.urls import path, register_converter
from django.urls.converters import StringConverter
from drf_spectacular.views import SpectacularJSONAPIView

from . import apis, profile_apis
from .events import TicketEventsApi
from .matching.profile_parser import NAME


class IdConverter(StringConverter):
    regex = "[0-9a-v]{20}"


class NameConverter(StringConverter):
    regex = NAME


register_converter(IdConverter, "id")
register_converter(NameConverter, "name")

urlpatterns = [
    path("monitor", apis.MatchmakerMonitorApi.as_view()),
    path("locations/beacons", apis.BeaconsApi.as_view()),
    path("tickets", apis.TicketsApi.as_view()),
    path("tickets/<id:ticket_id>", apis.TicketApi.as_view()),
    path("tickets/<id:ticket_id>/explanation", apis.TicketExplanationApi.as_view()),
    path("tickets/<id:ticket_id>/events", TicketEventsApi.as_view()),
    path("group-tickets", apis.GroupTicketsApi.as_view()),
    path("groups", apis.GroupsApi.as_view()),
    path("groups/<uuid:group_id>", apis.GroupApi.as_view()),
    path("groups/<uuid:group_id>/members", apis.MembersApi.as_view()),
    path("groups/<uuid:group_id>/members/<id:member_id>", apis.MemberApi.as_view()),
    path("backfills", apis.BackfillsApi.as_view()),
    path("backfills/<uuid:backfill_id>", apis.BackfillApi.as_view()),
    path("profiles", profile_apis.ProfilesApi.as_view()),
    path("profiles:validate", profile_apis.ProfileValidateApi.as_view()),
    path("profiles:import", profile_apis.ProfilesImportApi.as_view()),
    path("profiles/<name:name>", profile_apis.ProfileApi.as_view()),
    path("profiles/<name:name>/diff", profile_apis.ProfileDiffApi.as_view()),
    path("profiles/<name:name>/rollback", profile_apis.ProfileRollbackApi.as_view()),
    path("profiles/<name:name>/versions", profile_apis.VersionsApi.as_view()),
    path("profiles/<name:name>/versions/<int:number>", profile_apis.VersionApi.as_view()),
    path("profiles/<name:name>/versions/<int:number>/activate", profile_apis.VersionActivateApi.as_view()),
    path("inspect/tickets", profile_apis.InspectTicketsApi.as_view()),
    path("inspect/matches", profile_apis.InspectMatchesApi.as_view()),
    path("inspect/matches/<id:match_id>", profile_apis.InspectMatchApi.as_view()),
    path("swagger/v1/swagger.json", SpectacularJSONAPIView.as_view(urlconf="matchmaker.urls")),
]
