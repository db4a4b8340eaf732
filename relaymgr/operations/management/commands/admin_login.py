import secrets
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from relaymgr.operations.roles import ADMINISTRATOR, ROLES
from web.audit.services import command_record
from web.database.model_checks import check_fields
from web.errors import ApiError


class Command(BaseCommand):
    help = (
        "Create a user of the console, or set a new password. The password is printed once and stored as a hash only."
    )

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("username", nargs="?", default="admin")
        parser.add_argument(
            "--role", choices=ROLES, help=f"default: {ADMINISTRATOR} for a new user, otherwise unchanged"
        )

    @transaction.atomic
    def handle(self, *args: Any, username: str, role: str | None, **options: Any) -> None:
        try:
            check_fields(User(username=username, password="!"))  # noqa: S106 - no password: set below
        except ApiError as error:
            raise CommandError(error.sentence) from None
        user, is_new = User.objects.get_or_create(username=username, defaults={"is_staff": True})
        password = secrets.token_urlsafe(12)
        user.set_password(password)
        if role or is_new:
            role = role or ADMINISTRATOR
            user.is_staff, user.is_active, user.is_superuser = True, True, False
            user.groups.set([Group.objects.get(name=role)])
        user.save()
        command_record(action="user.role_grant", target=username, detail=f"new password, role {role or 'unchanged'}")
        self.stdout.write(f"{username} {password}")
