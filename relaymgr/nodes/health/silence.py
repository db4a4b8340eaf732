"""When a node's figures are no longer current. Pure.

A node answers a probe every 2 s. After three unanswered probes its figures (players, load, clock) are the last known
ones: every page, response and metric marks them as such, and none of them counts such a figure as current.
"""

from datetime import datetime, timedelta

from web.admin.age import age_s

SILENT_AFTER = timedelta(seconds=6)  # three probes


def silent_since(last_seen_at: datetime | None, now: datetime) -> datetime | None:
    """When the node last answered, if that is more than SILENT_AFTER ago. None: its figures are current, or it never
    answered."""
    if last_seen_at is None or age_s(last_seen_at, now) <= SILENT_AFTER.total_seconds():
        return None
    return last_seen_at
