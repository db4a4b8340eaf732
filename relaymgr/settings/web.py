"""How clients reach the web process, and what it allows each of them to hold."""

from relaymgr.settings.environment import env

env.section("Web", read_by="web")
DEBUG = env.flag("CAUSEWAY_DEBUG", False, "Django's debug pages; never where other people can reach them")
ALLOWED_HOSTS = env.words(
    "ALLOWED_HOSTS",
    "localhost,127.0.0.1,[::1]",
    "names and addresses under which games and nodes call the API; under any other the response is 400 `host_unknown`. "
    "Required in production",
)
ALLOWED_HOSTS_ARE_NAMED = env.is_set("ALLOWED_HOSTS")
TRUSTED_PROXIES = env.networks(
    "CAUSEWAY_TRUSTED_PROXIES",
    "networks of proxies, such as `10.0.0.0/8`, whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted",
)
HTTPS = env.flag(
    "CAUSEWAY_HTTPS",
    False,
    "players and operators use HTTPS, through a proxy: cookies are sent over HTTPS only. In production with a public "
    "host it must be set, to on or off",
)
HTTPS_IS_DECIDED = env.is_set("CAUSEWAY_HTTPS")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_TRUSTED_ORIGINS = env.words(
    "CAUSEWAY_CSRF_TRUSTED_ORIGINS", help="`https://relays.example.com`, when the proxy changes the host name"
)
SESSION_COOKIE_AGE = 12 * 3_600
HSTS_SECONDS = env.whole(
    "CAUSEWAY_HSTS_SECONDS",
    31_536_000,
    0,
    63_072_000,
    "seconds for which browsers that have reached the manager by HTTPS refuse plain HTTP",
)
SECURE_HSTS_SECONDS = HSTS_SECONDS if HTTPS else 0
if HTTPS and TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Part of every link, including those in webhooks.
FORCE_SCRIPT_NAME = (
    env.text(
        "CAUSEWAY_ROOT_PATH", help="`/causeway` where a proxy serves the manager below that path and removes it"
    ).rstrip("/")
    or None
)
if FORCE_SCRIPT_NAME and not FORCE_SCRIPT_NAME.startswith("/"):
    env.fail("CAUSEWAY_ROOT_PATH", "must be a path such as /causeway")

MAX_BODY_BYTES = DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000_000
MAX_BODY_BYTES_WITHOUT_KEY = 64_000  # for the forms of the console
BODY_TIMEOUT = env.number(
    "CAUSEWAY_BODY_TIMEOUT", 15, 0.1, 600, "seconds in which a request's body must arrive; else the response is 408"
)
CLIENT_TIMEOUT = env.number(
    "CAUSEWAY_CLIENT_TIMEOUT",
    20,
    0.1,
    600,
    "seconds in which a client must send a request's headers, and read what is sent to it; else its connection is "
    "closed",
)
BODY_BYTES_IN_FLIGHT = env.whole(
    "CAUSEWAY_BODY_BYTES_IN_FLIGHT",
    64_000_000,
    1_000_000,
    100_000_000_000,
    "bytes of bodies, and of responses, that one process holds for slow clients: at most a quarter of it for one "
    "tenant, an eighth for one of its addresses, a sixteenth for bodies without a key, and never more than is still "
    "free; beyond that the response is 503 `busy`",
)
CONNECTIONS_PER_ADDRESS = env.whole(
    "CAUSEWAY_CONNECTIONS_PER_ADDRESS",
    1_000,
    10,
    1_000_000,
    "connections of one address to a web process; those of trusted proxies do not count",
)
STREAMS_PER_ADDRESS = env.whole(
    "CAUSEWAY_STREAMS_PER_ADDRESS", 1_000, 1, 1_000_000, "tickets that one address of a tenant follows at once"
)
STREAMS_PER_TENANT = env.whole(
    "CAUSEWAY_STREAMS_PER_TENANT", 5_000, 1, 1_000_000, "tickets that the players of one tenant follow at once"
)

# Static files are collected into CAUSEWAY_STATIC_ROOT and served under hashed names, or served from the packages.
STATIC_URL = STATIC_PATH = "/static/"
STATIC_ROOT = (
    env.text(
        "CAUSEWAY_STATIC_ROOT",
        help="folder into which `manage.py collectstatic` collects static files, which are then served under hashed "
        "names. Empty: they are served from the packages",
    )
    or None
)

# Limits of a minute. "One address" is an IPv4 address or the /64 of an IPv6 address (web/http/client_address.py).
FAILED_AUTHENTICATIONS_PER_MINUTE = env.whole(
    "CAUSEWAY_FAILED_AUTHENTICATIONS_PER_MINUTE",
    60,
    1,
    1_000_000,
    "wrong keys from one address before the response is 429; a valid key is never locked out",
)
FAILED_LOGINS_PER_MINUTE = env.whole(
    "CAUSEWAY_FAILED_LOGINS_PER_MINUTE",
    5,
    1,
    1_000_000,
    "failed logins to the console from one address, and five times as many for one name; a browser that has logged in "
    "with the name before has a limit of its own",
)
UNAUTHENTICATED_REQUESTS_PER_MINUTE = env.whole(
    "CAUSEWAY_UNAUTHENTICATED_REQUESTS_PER_MINUTE",
    300,
    1,
    1_000_000,
    "requests of one address without a key: `/monitor`, the OpenAPI document, the page that shows it",
)
