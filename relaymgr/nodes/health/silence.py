"""When what is known of a node is no longer current. Pure.

A node answers a probe every 2 s. After three that it did not answer, its figures (players, load, clock) are the last
known ones: every page, answer and metric says so, and none of them counts such a figure as a current one.
"""

from datetime import datetime, timedelta

from web.admin.age import age_s

SILENT_AFTER = timedelta(seconds=6)  # three probes


def silent_since(last_seen_at: datetime | None, now: datetime) -> datetime | None:
    """When the node last answered, if that is too long ago. None: its figures are current, or it never answered."""
    if last_seen_at is None or age_s(last_seen_at, now) <= SILENT_AFTER.total_seconds():
        return None
    return last_seen_at
