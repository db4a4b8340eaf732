from typing import Any

from django.core.management.base import BaseCommand, CommandError

from relaymgr.tenants.choices import DirectMode
from relaymgr.tenants.services import tenant_create
from web.audit.services import command_record
from web.errors import ApiError


class Command(BaseCommand):
    help = "Create a tenant. `manage.py api_key` creates keys for it."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("slug")
        parser.add_argument("--name", default="", help="full name; default: the slug")
        parser.add_argument(
            "--direct-mode", choices=DirectMode.values, default=DirectMode.RELAY_ONLY, help="default: relay_only"
        )

    def handle(self, *args: Any, slug: str, name: str, direct_mode: str, **options: Any) -> None:
        try:
            tenant_create(slug=slug, name=name, direct_mode=direct_mode)
        except ApiError as error:
            raise CommandError(error.sentence) from None
        command_record(action="tenant.create", target=slug, detail=f"direct mode {direct_mode}")
        self.stdout.write(slug)
