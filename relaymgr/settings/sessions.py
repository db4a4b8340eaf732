"""Sessions, webhooks, and how long data about players and operators is kept (docs/data-protection.md)."""

from relaymgr.settings.environment import env

# For how many seconds a session's creation may use nodes, rules and keys, and a player's call its key, as they were
# read from the database by an earlier call (web/ttl_cache.py).
LOOKUP_CACHE_SECONDS = 1.0

env.section("Sessions", read_by="web, worker")
GRANT_TIMEOUT = env.number(
    "CAUSEWAY_GRANT_TIMEOUT",
    1,
    0.01,
    10,
    "seconds a node may take to confirm a session before the next node is asked",
)
SIGNED_MEASUREMENTS_ONLY = env.flag(
    "CAUSEWAY_SIGNED_MEASUREMENTS_ONLY",
    False,
    "use only round-trip times that nodes have signed (PROTOCOL.md 11.1), and not those that players or games report",
)
STANDBY_WAIT = 0.25  # seconds for which a session that is ready waits for its standby relay to confirm
_PLAYER, _SESSION = "of one player, the default and the maximum; 0: no limit", "of a whole session; 0: no limit"
SEAT_LIMITS = {
    "packets": env.whole("CAUSEWAY_SEAT_PACKETS_PER_SECOND", 2_000, 0, 2**31, f"packets per second {_PLAYER}"),
    "bytes": env.whole("CAUSEWAY_SEAT_BYTES_PER_SECOND", 1_000_000, 0, 2**31, f"bytes per second {_PLAYER}"),
}
SESSION_LIMITS = {
    "packets": env.whole("CAUSEWAY_SESSION_PACKETS_PER_SECOND", 20_000, 0, 2**31, f"packets per second {_SESSION}"),
    "bytes": env.whole("CAUSEWAY_SESSION_BYTES_PER_SECOND", 8_000_000, 0, 2**31, f"bytes per second {_SESSION}"),
}
SESSION_RETENTION_DAYS = env.number(
    "CAUSEWAY_SESSION_RETENTION_DAYS", 7, 0.01, 3_650, "days for which ended sessions can be read"
)

env.section("Data protection", read_by="web, worker, matchmaker")
AUDIT_RETENTION_DAYS = env.number(
    "CAUSEWAY_AUDIT_RETENTION_DAYS", 365, 1, 36_500, "days for which the audit log is kept"
)
NODE_CHANGE_RETENTION_DAYS = env.number(
    "CAUSEWAY_NODE_CHANGE_RETENTION_DAYS", 30, 0.01, 3_650, "days for which state changes of nodes are kept"
)
PREFIX_RETENTION_DAYS = env.number(
    "CAUSEWAY_PREFIX_RETENTION_DAYS",
    7,
    0.01,
    7,
    "days for which round-trip times of address prefixes (/24, /48) are kept; placement uses none older than 7 days",
)
WEBHOOK_PAYLOAD_RETENTION_HOURS = env.number(
    "CAUSEWAY_WEBHOOK_PAYLOAD_RETENTION_HOURS",
    24,
    1,
    24 * 365,
    "hours for which the body of an abandoned webhook is kept, so that it can be sent again; the next housekeeping run "
    "deletes that of a delivered one",
)
IDEMPOTENCY_RETENTION_HOURS = env.number(
    "CAUSEWAY_IDEMPOTENCY_RETENTION_HOURS",
    24,
    1,
    24 * 30,
    "hours for which an `Idempotency-Key` gets the same response",
)
MATCH_RETENTION_HOURS = max(
    IDEMPOTENCY_RETENTION_HOURS,
    env.number(
        "CAUSEWAY_MATCH_RETENTION_HOURS",
        24,
        1,
        24 * 365,
        "hours for which the matchmaker keeps matches that have ended; at least `CAUSEWAY_IDEMPOTENCY_RETENTION_HOURS`",
    ),
)

env.section("Webhooks", read_by="worker")
WEBHOOK_CONCURRENCY = env.whole(
    "CAUSEWAY_WEBHOOK_CONCURRENCY", 128, 4, 1_000, "maximum number of attempts that one worker process has in flight"
)
WEBHOOK_CONCURRENCY_PER_TENANT = env.whole(
    "CAUSEWAY_WEBHOOK_CONCURRENCY_PER_TENANT",
    16,
    1,
    1_000,
    "maximum of these for one tenant; never more than a quarter of what is free",
)
WEBHOOK_CONCURRENCY_PER_HOST = env.whole(
    "CAUSEWAY_WEBHOOK_CONCURRENCY_PER_HOST", 8, 1, 1_000, "maximum of these to one host of a tenant"
)
WEBHOOK_QUEUE_MAX = env.whole(
    "CAUSEWAY_WEBHOOK_QUEUE_MAX",
    10_000,
    10,
    10_000_000,
    "deliveries of one tenant that may wait; beyond that, joins and leaves of players are dropped first",
)
