"""Prometheus metrics of a matchmaker process. No label names a player, ticket, match or address.

The label `profile` is "tenant/name" for the first hundred profiles of the process and `other` for the rest, because
tenants create any number of profiles. Gauges that are read from the database have the same value in every process:
aggregate them with max.
"""

from prometheus_client import Counter, Gauge, Histogram

MAX_PROFILES = 100
OTHER = "other"
BY_PROFILE = ("profile",)

tickets = Gauge("causeway_matchmaker_tickets", "Tickets by status.", ("status",))
waiting = Gauge("causeway_matchmaker_tickets_waiting", "Tickets that are searching.", BY_PROFILE)
oldest = Gauge(
    "causeway_matchmaker_oldest_ticket_seconds", "How long the oldest ticket has been searching.", BY_PROFILE
)
matches = Counter("causeway_matchmaker_matches", "Matches formed by this process.", BY_PROFILE)
outcomes = Counter(
    "causeway_matchmaker_match_outcomes",
    "Outcomes of matches. failed: no session was created; abandoned: given up while it was unknown whether one was.",
    ("outcome",),
)
wait = Histogram(
    "causeway_matchmaker_time_to_match_seconds",
    "Average wait time of the tickets of a match.",
    BY_PROFILE,
    buckets=(0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600),
)
quality = Histogram(
    "causeway_matchmaker_match_quality",
    "Quality of matches. 1: the players do not differ; 0: they differ by all that the rules allow.",
    BY_PROFILE,
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
expired = Counter(
    "causeway_matchmaker_tickets_expired",
    "Tickets that expired without a match, counted by the process that cleaned them up.",
)
pass_seconds = Histogram(
    "causeway_matchmaker_pass_seconds",
    "Duration of a pass over a pool, including the database.",
    BY_PROFILE,
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15),
)
pass_failures = Counter(
    "causeway_matchmaker_pass_failures", "Failed passes. The version is then suspended for a while.", BY_PROFILE
)
suspended = Gauge("causeway_matchmaker_versions_suspended", "Profile versions suspended after failures.", BY_PROFILE)
unfinished = Counter(
    "causeway_matchmaker_passes_unfinished",
    "Passes that ran out of budget before the end of the pool.",
    BY_PROFILE,
)
pass_steps = Counter("causeway_matchmaker_pass_steps", "Steps of work done in passes.", BY_PROFILE)
manager_reachable = Gauge("causeway_matchmaker_manager_up", "1: the manager answered the last request.")
round_time = Gauge("causeway_matchmaker_last_round_timestamp_seconds", "When the last round over all pools ended.")

_profiles: set[str] = set()


def profile_label(tenant: str, name: str) -> str:
    label = f"{tenant}/{name}"
    if label not in _profiles and len(_profiles) >= MAX_PROFILES:
        return OTHER
    _profiles.add(label)
    return label
