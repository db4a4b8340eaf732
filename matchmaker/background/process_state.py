"""What a matchmaker process stores about itself and about the manager, for the API and the console."""

import logging

from django.utils import timezone

from ..manager_client import Manager, ManagerRefused, ManagerUnreachable
from ..models import LocationSnapshot, Process

logger = logging.getLogger(__name__)


def locations_refresh(manager: Manager) -> bool:
    """Read the manager's locations and beacons. False: the manager does not answer."""
    try:
        beacons, locations = manager.beacons(), manager.locations()
    except (ManagerUnreachable, ManagerRefused, LookupError, TypeError) as error:
        logger.warning("the locations of the manager cannot be read: %s", error)
        return False
    LocationSnapshot.objects.update_or_create(
        pk=1, defaults={"beacons": beacons, "locations": locations, "fetched_at": timezone.now()}
    )
    return True


def process_heartbeat(process: Process, manager_reachable: bool) -> None:
    now = timezone.now()
    seen = {"name": process.name, "seen_at": now, "manager_reachable": manager_reachable}
    Process.objects.update_or_create(pk=process.pk, defaults=seen, create_defaults={**seen, "started_at": now})
