from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from relaymgr.nodes.models import Location
from web.audit.services import command_record


class Command(BaseCommand):
    help = "Make a location where nodes may stand. `manage.py join_key` lets nodes join there."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("slug")
        parser.add_argument("--city", required=True)
        parser.add_argument("--country", required=True)
        parser.add_argument("--country-code", required=True, help="ISO 3166-1 alpha-2, for instance DE")
        parser.add_argument("--continent", required=True)
        parser.add_argument("--region", default="", help="state or other administrative division")
        parser.add_argument("--timezone", default="UTC")
        parser.add_argument("--latitude", type=float, required=True)
        parser.add_argument("--longitude", type=float, required=True)
        parser.add_argument("--tag", action="append", default=[], help="for filters; may be given several times")

    def handle(self, *args: Any, **options: Any) -> None:
        names = ("slug", "city", "country", "country_code", "continent", "region", "timezone", "latitude", "longitude")
        location = Location(**{name: options[name] for name in names}, tags=options["tag"])
        try:
            location.full_clean()
        except ValidationError as error:
            problems = (f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items())
            raise CommandError(" ".join(problems)) from None
        location.save()
        command_record(action="location.create", target=location.slug)
        self.stdout.write(location.slug)
