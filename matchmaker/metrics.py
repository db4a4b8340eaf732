"""What a matchmaker process counts, for Prometheus. Labels are profiles: never a player, ticket, match or address."""

from prometheus_client import Counter, Gauge, Histogram

BY_PROFILE = ("tenant", "profile")

waiting = Gauge("causeway_matchmaker_tickets_waiting", "Tickets that search.", BY_PROFILE)
matches = Counter("causeway_matchmaker_matches", "Matches formed by this process.", BY_PROFILE)
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
