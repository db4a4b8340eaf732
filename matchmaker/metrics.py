"""What a matchmaker process counts, for Prometheus. Never a player, ticket, match or address.

`profile` is "tenant/name" for the first hundred that the process meets, and `other` for the rest: studios make
profiles as they like. What is read from the database is the same in every process: take the maximum over them.
"""

from prometheus_client import Counter, Gauge, Histogram

MAX_PROFILES = 100
OTHER = "other"
BY_PROFILE = ("profile",)

tickets = Gauge("causeway_matchmaker_tickets", "Tickets there are, by status.", ("status",))
waiting = Gauge("causeway_matchmaker_tickets_waiting", "Tickets that search.", BY_PROFILE)
oldest = Gauge("causeway_matchmaker_oldest_ticket_seconds", "How long the first of them has searched.", BY_PROFILE)
matches = Counter("causeway_matchmaker_matches", "Matches formed by this process.", BY_PROFILE)
outcomes = Counter(
    "causeway_matchmaker_outcomes",
    "What became of matches. failed: no session; abandoned: given up while nobody knew whether there was one.",
    ("outcome",),
)
wait = Histogram(
    "causeway_matchmaker_time_to_match_seconds",
    "How long the tickets of a match had waited, on average.",
    BY_PROFILE,
    buckets=(0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600),
)
quality = Histogram(
    "causeway_matchmaker_match_quality",
    "1: nothing apart; 0: as far apart as is allowed.",
    BY_PROFILE,
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
expired = Counter("causeway_matchmaker_tickets_expired", "Tickets nobody was found for; counted by who sweeps.")
pass_seconds = Histogram(
    "causeway_matchmaker_pass_seconds",
    "One pass over a pool, with reading and writing.",
    BY_PROFILE,
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15),
)
pass_failures = Counter(
    "causeway_matchmaker_pass_failures", "Passes that failed; the version is then set aside for a while.", BY_PROFILE
)
set_aside = Gauge("causeway_matchmaker_versions_set_aside", "Versions set aside after failures.", BY_PROFILE)
unfinished = Counter(
    "causeway_matchmaker_passes_unfinished",
    "Passes that used up their budget before they had seen the pool.",
    BY_PROFILE,
)
pass_steps = Counter("causeway_matchmaker_pass_steps", "Work done in passes, in steps.", BY_PROFILE)
manager_answers = Gauge("causeway_matchmaker_manager_up", "1: the manager answered when it was last asked.")
round_time = Gauge("causeway_matchmaker_last_round_timestamp_seconds", "When the last round over all pools was done.")

_profiles: set[str] = set()


def profile_label(tenant: str, name: str) -> str:
    label = f"{tenant}/{name}"
    if label not in _profiles and len(_profiles) >= MAX_PROFILES:
        return OTHER
    _profiles.add(label)
    return label
