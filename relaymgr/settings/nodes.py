"""Relay nodes and their telemetry. Times are in seconds."""

import os

from relaymgr.settings.environment import env

env.section("Nodes and telemetry", read_by="web, worker")
NODE_HEARTBEAT_INTERVAL = 5.0
NODE_MAX_CLOCK_SKEW = 5.0
NODE_PROBE_TIMEOUT = env.number(
    "CAUSEWAY_PROBE_TIMEOUT",
    1.0,
    0.01,
    10,
    "seconds a node may take to respond to a probe; each node is probed every 2 s",
)
NODE_DISTRUST_SECONDS = env.number(
    "CAUSEWAY_NODE_DISTRUST_SECONDS",
    86_400,
    60,
    31_536_000,
    "seconds for which the measurements of a node are ignored after they contradicted those of players or of most "
    "other nodes",
)
JOIN_KEY_LIFETIME = env.number(
    "CAUSEWAY_JOIN_KEY_LIFETIME", 86_400, 60, 31_536_000, "seconds for which a new join key is valid"
)
TOKEN_KEY_LIFETIME = env.number(
    "CAUSEWAY_TOKEN_KEY_LIFETIME",
    30 * 86_400,
    3_600,
    365 * 86_400,
    "seconds after which the key that encrypts a node's connect tokens is rotated",
)
# How long a retired token key still decrypts: longer than any session, and so any connect token, can last.
TOKEN_KEY_OVERLAP = 25 * 3_600.0
# Long, because sessions continue while the manager cannot reach their node.
NODE_LOST_AFTER = env.number(
    "CAUSEWAY_LOST_AFTER", 300, 1, 86_400, "seconds without a response from a node after which its sessions are lost"
)
# Samples are kept one by one, then aggregated by the minute, then by the hour.
SAMPLE_RETENTION = env.number(
    "CAUSEWAY_SAMPLE_RETENTION",
    3_600,
    60,
    31_536_000,
    "seconds for which each sample of telemetry is kept; then samples are aggregated by the minute",
)
MINUTE_RETENTION = env.number(
    "CAUSEWAY_MINUTE_RETENTION",
    86_400,
    60,
    31_536_000,
    "seconds for which aggregates of a minute are kept; then they are aggregated by the hour",
)
HOUR_RETENTION = env.number(
    "CAUSEWAY_HOUR_RETENTION", 90 * 86_400, 3_600, 10 * 31_536_000, "seconds for which aggregates of an hour are kept"
)
MAX_PREFIX_LEGS = env.whole(
    "CAUSEWAY_MAX_PREFIX_LEGS",
    500_000,
    100,
    100_000_000,
    "measurements between an address prefix and a node that are kept; the oldest are dropped first",
)
PREFIX_MIN_PLAYERS = env.whole(
    "CAUSEWAY_PREFIX_MIN_PLAYERS",
    3,
    1,
    9,
    "players of one address prefix who must have measured a node before other players of the prefix are placed by "
    "their measurements",
)
GEOIP_FILE = env.text(
    "CAUSEWAY_GEOIP_FILE",
    help="a city database of your own in MaxMind's format. Empty: only requests say where players are, and no location "
    "is guessed",
)
if GEOIP_FILE and not os.access(GEOIP_FILE, os.R_OK):
    env.fail("CAUSEWAY_GEOIP_FILE", "must be a readable file")
