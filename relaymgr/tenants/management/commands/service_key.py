from typing import Any

from django.core.management.base import BaseCommand, CommandError

from relaymgr.tenants.services import service_key_create
from web.audit.services import command_record
from web.errors import ApiError


class Command(BaseCommand):
    help = "Create the key of a service that acts for every tenant, and print it. It is not shown again."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("name", help="for example matchmaker; earlier keys of this name are revoked")

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        try:
            plain = service_key_create(name=name)
        except ApiError as error:
            raise CommandError(error.sentence) from None
        command_record(action="service_key.create", target=name, detail="earlier keys of this name are revoked")
        self.stdout.write(plain)
