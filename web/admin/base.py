"""Base classes for the console's pages: actions are confirmed first, and every change is recorded in the audit log.

An action is a method of an `AuditedAdmin` for one row, decorated with `confirmed_action` and named in `actions`. The
list offers it for many rows at once, the row's page for that row. Another page can link to it:
    {% url 'admin:nodes_relaynode_action' 'drain' %}?pk=7&next=/admin/
A user without the permission is not offered the action, and is refused. Its result is part of the audit entry.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import FieldError, PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import DataError, ProgrammingError
from django.db.models import DateTimeField, JSONField, Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import cached_property
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.text import capfirst
from rest_framework.exceptions import APIException

from web.admin.widgets import AnyAutocomplete, FilledJSON, NamedDateTime
from web.audit.services import action_record
from web.audit.via import Via
from web.errors import ApiError

logger = logging.getLogger(__name__)

MAX_ROWS = 500  # for one action; each row may need a call to a node
STOP_POLLING = 286  # the status that tells htmx to stop
LOOKUP_ERRORS = (ValueError, TypeError, IndexError, OverflowError, FieldError, DataError, ProgrammingError)
MAX_COUNTED = 10_000  # rows of a list; a longer list shows "more than", and a search finds the other rows


class Warned(str):
    """The message of an action that was carried out, but that needs the operator's attention."""


@dataclass(frozen=True)
class ConfirmedAction:
    """`do(page, request, row, **answers)` carries it out for one row and returns a message, or raises ApiError."""

    name: str
    label: str
    effect: str
    do: Callable[..., str]
    form: type[forms.Form]
    is_final: bool
    applies: Callable[[Any], bool]


def confirmed_action(
    label: str,
    *,
    effect: str,
    permission: str,
    form: type[forms.Form] = forms.Form,
    is_final: bool = False,
    applies: Callable[[Any], bool] = lambda row: True,
) -> Callable[[Callable[..., str]], Callable[..., Any]]:
    """Makes a method an action that is confirmed first. `effect`: what will happen, shown on the confirmation page.
    `permission`: as in `admin.action`. `form`: its parameters. `is_final`: it cannot be undone. `applies`: whether
    the page of a row offers it."""

    def mark(method: Callable[..., str]) -> Callable[..., Any]:
        @admin.action(description=label, permissions=[permission])
        def action(page: AuditedAdmin, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
            if rows.count() <= MAX_ROWS:
                return page.confirm(request, marked, rows, next_url=request.get_full_path())
            messages.error(request, f"Too many rows are selected. Select at most {MAX_ROWS}.")
            return None

        marked = ConfirmedAction(method.__name__, label, effect, method, form, is_final, applies)
        action.__name__ = method.__name__
        action.confirmed_action = marked  # type: ignore[attr-defined]
        return action

    return mark


class AuditedAdmin(admin.ModelAdmin):
    """Records every action and every saved form in the audit log."""

    formfield_overrides = {DateTimeField: {"widget": NamedDateTime}}
    entity = ""  # in the audit log, as in `<entity>.<verb>`; by default the model's name

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_action"
        view = self.admin_site.admin_view(self.action_view)
        return [path("actions/<slug:name>", view, name=name), *super().get_urls()]

    def confirmed_actions(self, request: HttpRequest) -> dict[str, ConfirmedAction]:
        """The actions that this user may carry out here."""
        offered = {
            name: getattr(entry[0], "confirmed_action", None)
            for name, entry in self.get_actions(request).items()
            if entry
        }
        return {name: found for name, found in offered.items() if found}

    def row_facts(self, row: Any) -> str:
        """What an operator should know about a row before confirming an action."""
        return ""

    def page_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Additional context for the template of the row's page."""
        return {}

    def action_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """GET shows the confirmation page, POST carries the action out."""
        found = self.confirmed_actions(request).get(name)
        if found is None:
            raise PermissionDenied
        given = request.POST if request.method == "POST" else request.GET
        try:
            rows = self.get_queryset(request).filter(pk__in=given.getlist("pk")[:MAX_ROWS]).order_by("pk")
            if not rows:
                raise Http404
        except (ValueError, OverflowError, ValidationError, DataError):
            raise Http404 from None
        next_url = self._next_url(request, given.get("next", ""))
        form = found.form(request.POST or None)
        if request.method != "POST" or not form.is_valid():
            return self.confirm(request, found, rows, next_url=next_url, form=form)
        for row in rows:
            self._run(request, found, row, form.cleaned_data)
        return HttpResponseRedirect(next_url)

    def confirm(
        self,
        request: HttpRequest,
        found: ConfirmedAction,
        rows: QuerySet[Any],
        *,
        next_url: str,
        form: forms.Form | None = None,
    ) -> HttpResponse:
        """The confirmation page: what will happen, and to which rows."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": found.label,
            "action": found,
            "action_url": self._action_url(found),
            "rows": [(row, self.row_facts(row)) for row in rows],
            "form": form or found.form(),
            "next_url": next_url,
        }
        return TemplateResponse(request, "admin/confirm_action.html", context)

    def _run(self, request: HttpRequest, found: ConfirmedAction, row: Model, answers: dict[str, Any]) -> None:
        """A failure for one row does not stop the others."""
        target = str(row)
        try:
            message, level = found.do(self, request, row, **answers), messages.SUCCESS
        except (ApiError, APIException) as error:
            sentence = error.sentence if isinstance(error, ApiError) else str(error.detail)
            message, level = f"{target}: {sentence}", messages.ERROR
        if isinstance(message, Warned):
            level = messages.WARNING
        self._record(request, found.name, target, message, succeeded=level != messages.ERROR)
        messages.add_message(request, level, message)

    def _action_url(self, found: ConfirmedAction) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_action", args=[found.name])

    def _next_url(self, request: HttpRequest, wanted: str) -> str:
        if wanted and url_has_allowed_host_and_scheme(wanted, {request.get_host()}, request.is_secure()):
            return wanted
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        title = {"title": capfirst(self.opts.verbose_name_plural)}
        return super().changelist_view(request, title | (extra_context or {}))

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if isinstance(db_field, JSONField) and not db_field.null:
            kwargs["form_class"] = FilledJSON
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs["widget"] = AnyAutocomplete(db_field, self.admin_site, using=kwargs.get("using"))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """An unusable query string shows the list with a note. Django answers 500 to many of them, and values that
        PostgreSQL refuses, such as a NUL, reach the database."""
        try:
            return super().get_changelist_instance(request)
        except LOOKUP_ERRORS as error:
            if not request.GET:
                raise
            logger.info("unusable query for a list: %s", type(error).__name__)
            raise IncorrectLookupParameters from error

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        """An action for primary keys that cannot exist is refused; Django answers 500."""
        chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)[:MAX_ROWS]
        try:
            queryset.filter(pk__in=chosen).exists()
        except (ValueError, OverflowError, ValidationError, DataError):
            messages.error(request, "There are no such rows. Select rows of the list.")
            return HttpResponseRedirect(request.get_full_path())
        return super().response_action(request, queryset, *args, **kwargs)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Also None for an id that the database refuses."""
        try:
            return super().get_object(request, object_id, from_field)
        except (DataError, OverflowError, UnicodeError):
            return None

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        row = kwargs.get("obj")
        offered = self.confirmed_actions(request).values() if row else ()
        query = urlencode({"pk": row.pk, "next": request.path}) if row else ""
        links = [(found, f"{self._action_url(found)}?{query}") for found in offered if found.applies(row)]
        if row:
            context |= {"title": f"{capfirst(self.opts.verbose_name)} {row}", "subtitle": None, "row_actions": links}
            context |= self.page_context(request, row)
        return super().render_change_form(request, context, *args, **kwargs)

    # Saved forms: whatever Django records in its own log is also recorded in the audit log.

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        self._record(request, "add", str(obj))
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        entry = super().log_change(request, obj, message)
        self._record(request, "change", str(obj), entry.get_change_message())
        return entry

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        for row in queryset:
            self._record(request, "delete", str(row))
        return super().log_deletions(request, queryset)

    def _record(self, request: HttpRequest, verb: str, target: str, detail: str = "", succeeded: bool = True) -> None:
        entity = self.entity or str(self.opts.verbose_name).lower().replace(" ", "_")
        action_record(
            via=Via.ADMIN,
            actor=request.user.get_username(),
            action=f"{entity}.{verb}",
            target=target,
            detail=detail,
            succeeded=succeeded,
        )


class NoDeleteAdmin(AuditedAdmin):
    """Rows that an action retires and that are never deleted, because other rows refer to them."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class BoundedPaginator(Paginator):
    """Counts at most MAX_COUNTED rows."""

    @cached_property
    def count(self) -> int:
        return cast(QuerySet[Any], self.object_list).order_by()[:MAX_COUNTED].count()


class ReadOnlyAdmin(NoDeleteAdmin):
    """Rows that only the system writes. Tables may be large, so no page counts them."""

    show_full_result_count = False
    paginator = BoundedPaginator

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def live_part(request: HttpRequest, template: str, page: Any, *, is_live: bool) -> HttpResponse:
    """The part of a row's page that refreshes itself (templates/admin/live.html), until `is_live` is false."""
    return TemplateResponse(request, template, {"page": page}, status=200 if is_live else STOP_POLLING)


def show_once(request: HttpRequest, what: str, plain: str) -> None:
    """Shows an operator a new key. The key appears in this message only."""
    messages.warning(request, f"{what}: {plain} (copy it now, it is not shown again)")
