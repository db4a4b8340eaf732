"""Places where nodes stand, and the keys with which nodes join there."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Annotated, Any, cast

import typer
from django.conf import settings
from django.db.models import Count, Q, Sum
from rich.console import RenderableType

from relaymgr.nodes.models import MAX_USES, Location
from relaymgr.nodes.selectors import locations_with_nodes
from relaymgr.nodes.services import join_key_create
from web.admin.wording import counted
from web.errors import Invalid

from ..actions import recorded
from ..filters import LocationUnknown
from ..output import Document, Json, show, table

MAX_HOURS = 24 * 365


def locations(as_json: Json = False) -> None:
    """The locations, and how many nodes and free seats each has."""
    ready = Q(nodes__state="ready", nodes__is_draining=False, nodes__is_stopping=False)
    found = (
        locations_with_nodes()
        .annotate(
            nodes_all=Count("nodes", distinct=True),
            free=Sum("nodes__workers__free_seats", filter=ready, default=0),
        )
        .order_by("slug")
    )
    document = {
        "locations": [
            {
                "name": location.slug,
                "city": location.city,
                "country": location.country,
                "country_code": location.country_code,
                "continent": location.continent,
                "latitude": location.latitude,
                "longitude": location.longitude,
                "tags": location.tags,
                "nodes": location.nodes_all,
                "nodes_ready": location.nodes_ready,
                "free_seats": location.free,
            }
            for location in cast(Iterable[Any], found)
        ]
    }
    show(document, as_json, _render)


def join_key(
    location: Annotated[str, typer.Argument(help="Where the node will stand.", metavar="LOCATION")],
    hours: Annotated[float, typer.Option(help="How long the key may be used.")] = settings.JOIN_KEY_LIFETIME / 3600,
    uses: Annotated[int, typer.Option(help="How many nodes may join with it.")] = 1,
    as_json: Json = False,
) -> None:
    """Make a key with which a node may join at a location. It is printed once, alone on its line."""
    found = Location.objects.filter(slug=location).first()
    if found is None:
        raise LocationUnknown
    if not 0 < hours <= MAX_HOURS:
        raise Invalid.field("hours", "Choose a number above 0 and at most a year.")
    if not 1 <= uses <= MAX_USES:
        raise Invalid.field("uses", f"Choose a number from 1 to {MAX_USES}.")
    with recorded("join_key.create", location, f"for {counted(hours, 'hour')}, {counted(uses, 'node')}"):
        plain = join_key_create(location=found, lifetime=timedelta(hours=hours), uses=uses)
    show({"location": location, "join_key": plain, "hours": hours, "uses": uses}, as_json, lambda document: [plain])


def _render(document: Document) -> Iterator[RenderableType]:
    columns = (
        "location",
        "city",
        "country",
        "continent",
        "latitude",
        "longitude",
        "tags",
        "nodes",
        "ready",
        "free seats",
    )
    names = (
        "name",
        "city",
        "country",
        "continent",
        "latitude",
        "longitude",
        "tags",
        "nodes",
        "nodes_ready",
        "free_seats",
    )
    rows = ([location[name] for name in names] for location in document["locations"])
    yield table(columns, rows, numbers=("latitude", "longitude", "nodes", "ready", "free seats"))
