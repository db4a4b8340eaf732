"""For operators: what waits, what was matched, and profiles with their versions. Players' tokens are never shown."""

from typing import Any, cast

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.validators import RegexValidator
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html_join

from web.admin.base import ReadOnlyAdmin, confirmed_action, live_part

from .admin_page import match_page, ticket_page
from .matching.profile_parser import ProfileInvalid, differences, parse
from .models import Backfill, Match, Process, Profile, ProfileVersion, Ticket
from .services.profiles import profile_activate, profile_rollback, profile_version_create, version_retry


class ReadOnly(ReadOnlyAdmin):
    """Rows that the matchmaker alone writes."""

    def has_activate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("matchmaker.change_profile")


@admin.register(Profile)
class ProfileAdmin(ReadOnly):
    list_display = ("name", "tenant", "active")
    list_filter = ("tenant",)
    search_fields = ("name", "tenant")
    list_select_related = ("active__profile",)
    actions = ("roll_back",)

    @confirmed_action(
        "Roll back",
        effect="The version that was active before is active again: new tickets are matched by it.",
        permission="activate",
    )
    def roll_back(self, request: HttpRequest, profile: Profile) -> str:
        return f"{profile_rollback(tenant=profile.tenant, name=profile.name)} is active."


class VersionForm(forms.ModelForm):
    """A new version. Versions never change: every change creates another version."""

    tenant = forms.SlugField(max_length=50, help_text="Its slug.")
    name = forms.CharField(
        max_length=64,
        validators=[RegexValidator(r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z")],
        help_text="The name of the profile. A new name creates a new profile.",
    )
    activate = forms.BooleanField(required=False)

    class Meta:
        model = ProfileVersion
        fields = ("config", "note")

    field_order = ("tenant", "name", "config", "note", "activate")

    def clean_config(self) -> Any:
        try:
            parse(self.cleaned_data["config"])
        except ProfileInvalid as error:
            raise ValidationError([f"{problem.path}: {problem.reason}" for problem in error.problems]) from None
        return self.cleaned_data["config"]


class SuspendedFilter(admin.SimpleListFilter):
    title, parameter_name = "passes", "passes"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("suspended", "suspended after failures")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ProfileVersion]) -> QuerySet[ProfileVersion]:
        if self.value() == "suspended":
            return queryset.filter(pass_state__suspended_until__isnull=False)
        return queryset


@admin.register(ProfileVersion)
class ProfileVersionAdmin(ReadOnly):
    list_display = ("__str__", "note", "created_at", "activated_at", "passes")
    list_filter = ("profile__tenant", SuspendedFilter)
    search_fields = ("profile__name", "note")
    list_select_related = ("profile", "pass_state")
    actions = ("activate", "try_again")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_activate_permission(request)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **kwargs) if obj else VersionForm

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        shown = (
            "profile",
            "number",
            "note",
            "created_at",
            "activated_at",
            "passes",
            "config",
            "against_the_active_one",
        )
        return shown if obj else list(VersionForm.base_fields)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        made = profile_version_create(**form.cleaned_data)
        # The admin logs and shows the row that the service created.
        obj.__dict__.update(made.__dict__)

    @admin.display(description="differences from the active version")
    def against_the_active_one(self, version: ProfileVersion) -> str:
        active = version.profile.active
        rows = list(differences(active.config, version.config)) if active else []
        return format_html_join("\n", "<div>{}: {} &rarr; {}</div>", rows) if rows else "none"

    @admin.display(description="last pass")
    def passes(self, version: ProfileVersion) -> str:
        state = getattr(version, "pass_state", None)
        if state is None:
            return "none yet"
        if state.suspended_until:
            return f"suspended after {state.failures} failures: {state.error}"
        return f"{state.waiting_tickets} waiting, {1000 * state.duration:.0f} ms" if state.passed_at else "none yet"

    @confirmed_action(
        "Try again now",
        effect="A version that was suspended after failures is matched again at once.",
        permission="activate",
        applies=lambda version: bool(getattr(version, "pass_state", None) and version.pass_state.suspended_until),
    )
    def try_again(self, request: HttpRequest, version: ProfileVersion) -> str:
        version_retry(version)
        return f"{version} is matched again."

    @confirmed_action("Make active", effect="New tickets are matched by this version.", permission="activate")
    def activate(self, request: HttpRequest, version: ProfileVersion) -> str:
        profile = version.profile
        profile_activate(tenant=profile.tenant, name=profile.name, number=version.number)
        return f"{version} is active."


class TicketList(ChangeList):
    def url_for_result(self, result: Model) -> str:
        return reverse("admin:matchmaker_ticket_change", args=[cast(Ticket, result).player_id])


@admin.register(Ticket)
class TicketAdmin(ReadOnly):
    """By player id: the id of a ticket gives access to its assignment, and is not shown."""

    list_display = ("player_id", "tenant", "version", "status", "reason", "created_at", "failures")
    list_filter = ("status", "tenant")
    search_fields = ("player_id", "match__id")
    list_select_related = ("version__profile",)
    date_hierarchy = "created_at"
    change_form_template = "matchmaker/ticket.html"
    fields = (
        ("player_id", "tenant", "player_ip"),
        ("created_at", "searching_since", "search_after"),
        ("expires_at", "remove_at"),
        ("attributes", "network_measurements"),
    )

    def get_urls(self) -> list[URLPattern]:
        now = self.admin_site.admin_view(self.now_view)
        return [path("<str:player_id>/now", now, name="matchmaker_ticket_now"), *super().get_urls()]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return TicketList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Ticket | None:
        rows = self.get_queryset(request).select_related("match", "version__profile").defer("assignment")
        return rows.filter(player_id=object_id).first()

    def page_context(self, request: HttpRequest, row: Ticket) -> dict[str, Any]:
        return {"page": ticket_page(row)}

    def now_view(self, request: HttpRequest, player_id: str) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        ticket = self.get_object(request, player_id)
        if ticket is None:
            raise Http404
        page = ticket_page(ticket)
        return live_part(request, "matchmaker/ticket_now.html", page, is_live=page.is_waiting)


@admin.register(Match)
class MatchAdmin(ReadOnly):
    list_display = (
        "id",
        "version",
        "state",
        "session_id",
        "location",
        "quality",
        "is_full",
        "average_wait_time",
        "created_at",
    )
    list_filter = ("state", "is_full", "version__profile__tenant")
    search_fields = ("id", "session_id")
    list_select_related = ("version__profile",)
    date_hierarchy = "created_at"
    change_form_template = "matchmaker/match.html"
    fields = (
        ("id", "version", "backfill"),
        ("created_at", "assigned_at"),
        ("attempts", "next_attempt_at", "last_error"),
        ("request",),
    )

    def page_context(self, request: HttpRequest, row: Match) -> dict[str, Any]:
        return {"page": match_page(row)}


@admin.register(Backfill)
class BackfillAdmin(ReadOnly):
    list_display = ("id", "tenant", "version", "status", "created_at", "expires_at")
    list_filter = ("status", "tenant")
    search_fields = ("id",)
    list_select_related = ("version__profile",)


@admin.register(Process)
class ProcessAdmin(ReadOnly):
    list_display = ("name", "started_at", "seen_at", "manager_reachable")
