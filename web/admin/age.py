"""How long ago something was, where clocks may have been stepped. Pure."""

from datetime import datetime

CLOCKS_AGREE_S = 2.0  # between two machines, or two moments of one


def age_s(at: datetime, now: datetime) -> float:
    """Seconds since `at`. A time in the future is not fresh: a clock was stepped back, or is wrong, and nothing is
    known of the time since. Beyond what clocks may differ by, its distance counts as its age."""
    age = (now - at).total_seconds()
    return -age if age < -CLOCKS_AGREE_S else max(0.0, age)
