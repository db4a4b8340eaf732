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
        "Let a person into the admin, or give one a new password. The password is printed once and kept only as a hash."
    )

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("username", nargs="?", default="admin")
        parser.add_argument(
            "--role", choices=ROLES, help=f"default: {ADMINISTRATOR} for who is new, else the one there is"
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
        command_record(action="user.login", target=username, detail=f"new password, role {role or 'as before'}")
        self.stdout.write(f"{username} {password}")
