from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from relaymgr.nodes.keys import join_key_create
from relaymgr.nodes.models import Location
from relaymgr.nodes.states import MAX_JOIN_KEY_USES
from web.admin.wording import counted
from web.audit.services import command_record


class Command(BaseCommand):
    help = "Make a join key, with which a node may join at a location, and print it: the only time it can be seen."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("location", help="its slug")
        default = settings.JOIN_KEY_LIFETIME / 3600
        parser.add_argument("--hours", type=float, default=default, help="how long it may be used (%(default)g)")
        parser.add_argument("--uses", type=int, default=1, help="how many nodes may join with it (%(default)s)")

    def handle(self, *args: Any, location: str, hours: float, uses: int, **options: Any) -> None:
        found = Location.objects.filter(slug=location).first()
        if found is None:
            raise CommandError(f"There is no location {location}. Make it with: manage.py location_create {location}")
        if not 0 < hours <= 24 * 365:
            raise CommandError("--hours must be above 0, and at most a year.")
        if not 1 <= uses <= MAX_JOIN_KEY_USES:
            raise CommandError(f"--uses must be from 1 to {MAX_JOIN_KEY_USES}.")
        plain = join_key_create(location=found, lifetime=timedelta(hours=hours), uses=uses)
        detail = f"for {counted(hours, 'hour')}, {counted(uses, 'node')}"
        command_record(action="join_key.create", target=str(found), detail=detail)
        self.stdout.write(plain)
