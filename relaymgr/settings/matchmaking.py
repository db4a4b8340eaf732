"""The matchmaker's processes and its API."""

from relaymgr.settings.environment import env
from relaymgr.settings.storage import STATE_DIR

env.section("Matchmaker processes", read_by="matchmaker")
MATCHMAKER_MANAGER_URL_IS_SET = env.is_set("CAUSEWAY_MATCHMAKER_MANAGER_URL")
WEB_URL_FILE = STATE_DIR / "web.url"  # the address at which `manage.py up` started its web server
MATCHMAKER_MANAGER_URL = env.text(
    "CAUSEWAY_MATCHMAKER_MANAGER_URL", "http://127.0.0.1:8000", "where they reach the manager"
)
MATCHMAKER_KEY = env.secret(
    "CAUSEWAY_MATCHMAKER_KEY",
    "the key that they send to the manager: a service key (`manage.py service_key matchmaker`), which acts for every "
    "tenant, or the `relay` key of one tenant, for a matchmaker of that tenant alone",
)

env.section("Matchmaker API", read_by="web")
# By address, because all players of a studio share a key.
MATCHMAKER_REQUESTS_PER_MINUTE = env.whole(
    "CAUSEWAY_MATCHMAKER_REQUESTS_PER_MINUTE", 600, 1, 1_000_000, "requests from each address"
)
MATCHMAKER_TICKETS_PER_MINUTE = env.whole(
    "CAUSEWAY_MATCHMAKER_TICKETS_PER_MINUTE",
    1_200,
    1,
    1_000_000,
    "tickets that players of one address may create; each of them may be followed by two streams",
)
MATCHMAKER_MAX_TICKETS_PER_TENANT = env.whole(
    "CAUSEWAY_MATCHMAKER_MAX_TICKETS_PER_TENANT", 50_000, 1, 10_000_000, "active tickets of a tenant at one time"
)
MATCHMAKER_MAX_TICKETS_PER_ADDRESS = env.whole(
    "CAUSEWAY_MATCHMAKER_MAX_TICKETS_PER_ADDRESS",
    1_000,
    1,
    10_000_000,
    "active tickets of a tenant from one address at one time; those of a backend do not count",
)
MATCHMAKER_PLAYER_TICKET_SCOPE = env.choice(
    "CAUSEWAY_MATCHMAKER_PLAYER_TICKET_SCOPE",
    "tenant",
    ("tenant", "profile"),
    "where a player_id may have only one active ticket",
)
