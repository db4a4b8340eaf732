"""How often a seat's joins, moves and leaves are reported: in the session's timeline and by webhook.

The first few are reported one by one. Of a seat that goes on to change they are counted, and its last state is
reported now and then, so that no player fills the timeline or holds up the webhooks of others.
"""

from datetime import datetime, timedelta

from .models import Seat

INTERVAL = timedelta(seconds=10)
BURST = 4  # reports one by one, before there is one each INTERVAL
FIELDS = ("is_connected", "dialect", "reported_connected", "report_after", "unreported_changes")


def report_take(seat: Seat, now: datetime) -> int:
    """How many changes a report made now stands for; 0: this change is counted and waits for a later report."""
    report_after = max(seat.report_after or now, now) + INTERVAL
    if report_after > now + BURST * INTERVAL:
        seat.unreported_changes += 1
        return 0
    changes, seat.unreported_changes, seat.report_after = seat.unreported_changes + 1, 0, report_after
    return changes


def reports_due_before(now: datetime) -> datetime:
    """Seats with changes that wait may be reported when their `report_after` is no later."""
    return now + (BURST - 1) * INTERVAL


def report_waiting(seat: Seat, now: datetime) -> int:
    """How many changes that waited are reported now, of a seat that is due."""
    changes, seat.unreported_changes = seat.unreported_changes, 0
    seat.report_after = max(seat.report_after or now, now) + INTERVAL
    return changes
