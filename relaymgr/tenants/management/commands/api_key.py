from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from relaymgr.tenants.choices import DirectMode
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import TENANT_SCOPES, api_key_create, tenant_create
from web.audit.services import command_record, machine_user
from web.errors import ApiError


class Command(BaseCommand):
    help = "Create an API key for a tenant and print it. It is not shown again."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("tenant", help="its slug")
        parser.add_argument("--create-tenant", action="store_true", help="create the tenant if it does not exist")
        parser.add_argument(
            "--direct-mode",
            choices=DirectMode.values,
            default=DirectMode.RELAY_ONLY,
            help="of a tenant that is created; default: relay_only",
        )
        parser.add_argument("--name", default="", help="default: its scopes, its creator, and the time")
        parser.add_argument(
            "--scope", action="append", choices=[scope.value for scope in TENANT_SCOPES], help="default: relay"
        )

    def handle(self, *args: Any, tenant: str, name: str, scope: list[str] | None, **options: Any) -> None:
        found = Tenant.objects.filter(slug=tenant).first()
        if found is None and not options["create_tenant"]:
            raise CommandError(f"There is no tenant {tenant}. Create it with --create-tenant.")
        scopes = scope or ["relay"]
        name = name or f"{' '.join(scopes)}, by {machine_user()}, {timezone.now():%Y-%m-%d %H:%M}"[:100]
        try:
            if found is None:
                found = tenant_create(slug=tenant, direct_mode=options["direct_mode"])
                command_record(action="tenant.create", target=tenant, detail=f"direct mode {found.direct_mode}")
            key, plain = api_key_create(tenant=found, name=name, scopes=scopes)
        except ApiError as error:
            raise CommandError(error.sentence) from None
        command_record(action="api_key.create", target=str(key), detail=f"{found}: {', '.join(key.scopes)}")
        self.stdout.write(plain)
