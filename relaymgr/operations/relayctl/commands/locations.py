"""Locations, and the keys with which nodes join them."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Annotated, Any, cast

import typer
from django.conf import settings
from rich.console import RenderableType

from relaymgr.nodes.keys import join_key_create
from relaymgr.nodes.selectors import locations_with_capacity
from relaymgr.nodes.states import MAX_JOIN_KEY_USES
from web.admin.wording import counted
from web.errors import Invalid

from ..actions import audited
from ..filters import location_get
from ..output import Document, Json, show, table

MAX_HOURS = 24 * 365


def locations(as_json: Json = False) -> None:
    """List the locations with their nodes and free seats."""
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
                "free_seats": location.free_seats,
            }
            for location in cast(Iterable[Any], locations_with_capacity())
        ]
    }
    show(document, as_json, _render)


def join_key(
    location: Annotated[str, typer.Argument(help="The location that the node joins.", metavar="LOCATION")],
    hours: Annotated[float, typer.Option(help="The key expires after N hours.")] = settings.JOIN_KEY_LIFETIME / 3600,
    uses: Annotated[int, typer.Option(help="Up to N nodes may join with the key.")] = 1,
    as_json: Json = False,
) -> None:
    """Create a key with which a node joins a location. It is shown once, alone on standard output."""
    found = location_get(location)
    if not 0 < hours <= MAX_HOURS:
        raise Invalid.field("hours", "Choose a number above 0 and at most a year.")
    if not 1 <= uses <= MAX_JOIN_KEY_USES:
        raise Invalid.field("uses", f"Choose a number from 1 to {MAX_JOIN_KEY_USES}.")
    with audited("join_key.create", location, f"for {counted(hours, 'hour')}, {counted(uses, 'node')}"):
        plain = join_key_create(location=found, lifetime=timedelta(hours=hours), uses=uses)
    show({"location": location, "join_key": plain, "hours": hours, "uses": uses}, as_json, lambda document: [plain])


COLUMNS = {
    "name": "location",
    "city": "city",
    "country": "country",
    "continent": "continent",
    "latitude": "latitude",
    "longitude": "longitude",
    "tags": "tags",
    "nodes": "nodes",
    "nodes_ready": "ready",
    "free_seats": "free seats",
}


def _render(document: Document) -> Iterator[RenderableType]:
    rows = ([location[name] for name in COLUMNS] for location in document["locations"])
    yield table(COLUMNS.values(), rows, numbers=("latitude", "longitude", "nodes", "ready", "free seats"))
