"""The roles of the console's users. A user has a role by being in its group.

| role | may |
|---|---|
| viewer | see everything except users, change nothing |
| operator | also drain nodes, end sessions, revoke seats, retry webhooks, close circuits, ban, set tags and prices |
| administrator | also remove nodes, export and erase a player's data, manage keys, tenants, profiles and users |

A secret is shown once, to the user who created it.
"""

from typing import Any

from django.contrib.auth.models import Group, Permission
from django.db.models import Q, QuerySet

VIEWER, OPERATOR, ADMINISTRATOR = ROLES = ("viewer", "operator", "administrator")

APPS = ("audit", "tenants", "nodes", "telemetry", "relay_sessions", "matchmaker")
OPERATES = (
    ("nodes", "change_relaynode"),
    ("nodes", "change_location"),
    ("nodes", "delete_nodeincident"),
    ("relay_sessions", "change_relaysession"),
    ("relay_sessions", "add_placementrule"),
    ("relay_sessions", "change_placementrule"),
    ("relay_sessions", "delete_placementrule"),
)


def roles_make(using: str = "default", **signal: Any) -> None:
    """After each migration: creates the three groups with exactly these permissions. Other groups are left alone."""
    for name in ROLES:
        group, _ = Group.objects.using(using).get_or_create(name=name)
        group.permissions.set(_permissions(name, using))


def _permissions(role: str, using: str) -> QuerySet[Permission]:
    seen = Q(content_type__app_label__in=APPS, codename__startswith="view_")
    operated = Q()
    for app, codename in OPERATES:
        operated |= Q(content_type__app_label=app, codename=codename)
    everything = Q(content_type__app_label__in=APPS) | Q(content_type__app_label="auth", content_type__model="user")
    everything |= Q(content_type__app_label="auth", codename="view_group")
    wanted = {VIEWER: seen, OPERATOR: seen | operated, ADMINISTRATOR: everything}[role]
    return Permission.objects.using(using).filter(wanted)
