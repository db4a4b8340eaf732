"""The age of a point in time, with clocks that may have been stepped. Pure."""

from datetime import datetime

CLOCKS_AGREE_S = 2.0  # the normal difference between two machines


def age_s(at: datetime, now: datetime) -> float:
    """Seconds since `at`. A time in the future means that a clock was stepped back or is wrong. Beyond the normal
    difference between two clocks, its distance from now counts as its age."""
    age = (now - at).total_seconds()
    return -age if age < -CLOCKS_AGREE_S else max(0.0, age)
