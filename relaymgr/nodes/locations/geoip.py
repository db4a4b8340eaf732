"""The location of an address, from the operator's file in MaxMind's format (CAUSEWAY_GEOIP_FILE), if there is one."""

import functools
import logging
import math
from dataclasses import dataclass
from typing import Any, TypeGuard

import maxminddb
from django.conf import settings

logger = logging.getLogger(__name__)

# Assumed for a record without a radius, which may be the centre of a country.
UNSTATED_KM = 200.0


@dataclass(frozen=True, slots=True)
class GeoLocation:
    """Coordinates in degrees with their accuracy; names and codes as far as the file has them."""

    latitude: float
    longitude: float
    accuracy_km: float
    country: str = ""
    country_code: str = ""
    continent: str = ""
    continent_code: str = ""


def locate(address: str) -> GeoLocation | None:
    """None: there is no file, or it has no coordinates for the address."""
    reader = _reader(settings.GEOIP_FILE)
    if reader is None:
        return None
    try:
        record = reader.get(address)
    except ValueError:  # no address, or IPv6 in a file of IPv4
        return None
    return _geo_location(record) if isinstance(record, dict) else None


@functools.lru_cache(maxsize=1)
def _reader(path: str) -> maxminddb.Reader | None:
    """Opened once per process: a replaced file is read after a restart."""
    if not path:
        return None
    try:
        return maxminddb.open_database(path)
    except (OSError, maxminddb.InvalidDatabaseError) as error:
        logger.error("GeoIP is off: %s", type(error).__name__)
        return None


def _geo_location(record: dict[str, Any]) -> GeoLocation | None:
    place = record.get("location") or {}
    latitude, longitude = place.get("latitude"), place.get("longitude")
    if not (_is_within(latitude, 90) and _is_within(longitude, 180)):
        return None
    radius = place.get("accuracy_radius")
    return GeoLocation(
        float(latitude),
        float(longitude),
        float(radius) if _is_within(radius, 20_000) else UNSTATED_KM,
        country=_name(record, "country"),
        country_code=str((record.get("country") or {}).get("iso_code", "")),
        continent=_name(record, "continent"),
        continent_code=str((record.get("continent") or {}).get("code", "")),
    )


def _is_within(value: Any, limit: float) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) <= limit


def _name(record: dict[str, Any], kind: str) -> str:
    return str(((record.get(kind) or {}).get("names") or {}).get("en", ""))
