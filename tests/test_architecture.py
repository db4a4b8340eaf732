"""The import directions, each with the reason it exists. Read from the source: nothing is imported."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("configuration", "observability", "web", "nodeapi", "relaymgr", "relaynode", "causeway_client", "matchmaker")

# (who, must not import, because)
FORBIDDEN = [
    ("causeway_client", r"relaynode|relaymgr|matchmaker|django|celery", "it is what players install, alone"),
    (
        "configuration",
        r"observability|web|relaymgr|relaynode|matchmaker|causeway_client|django",
        "every process reads settings through it",
    ),
    ("observability", r"relaymgr|relaynode|matchmaker|causeway_client", "every process logs and counts through it"),
    ("web", r"relaymgr|relaynode|matchmaker|causeway_client", "manager and matchmaker are built on it"),
    ("relaynode", r"web", "a node runs without Django"),
    (
        "nodeapi",
        r"relaymgr|relaynode|matchmaker|web|observability|django|causeway_client\.(?!protocol)",
        "manager and node share it, and a node runs without Django",
    ),
    ("relaynode", r"observability\.database", "a node runs without the manager's stack"),
    ("causeway_client.protocol", r"causeway_client\.(?!protocol)", "the wire is the leaf everyone else builds on"),
    (
        "relaynode",
        r"relaymgr|matchmaker|django|rest_framework|celery|psycopg",
        "a node runs without the manager's stack",
    ),
    ("relaynode", r"causeway_client\.(?!protocol)", "a node speaks the wire, not a client's adapter"),
    ("relaymgr", r"relaynode|matchmaker", "the manager knows nodes and matchmaker over HTTP only"),
    ("relaymgr", r"causeway_client\.(?!protocol)", "the manager seals tokens, it does not play"),
    ("web.audit", r"relaymgr\.(tenants|nodes|telemetry|sessions)", "every app writes to it"),
    *(
        (f"relaymgr.{app}", r"relaymgr\.operations", "it looks at all apps; none looks at it")
        for app in ("audit", "tenants", "nodes", "telemetry", "sessions")
    ),
    ("relaymgr.tenants", r"relaymgr\.(nodes|telemetry|sessions)", "sessions > telemetry > nodes > tenants"),
    ("relaymgr.nodes", r"relaymgr\.(telemetry|sessions)", "sessions > telemetry > nodes > tenants"),
    ("relaymgr.telemetry", r"relaymgr\.sessions", "sessions > telemetry > nodes > tenants"),
    ("matchmaker", r"relaymgr|relaynode", "the matchmaker is a REST client, to be run or replaced apart"),
]

PURE = [
    "nodeapi",
    "causeway_client.protocol",
    "relaynode.core.addresses",
    "relaynode.core.dialects.connection_ids",
    "relaynode.core.timers",
    "relaynode.core.events",
    "relaynode.core.forwarding",
    "relaynode.core.path_quality",
    "relaynode.core.relay",
    "relaynode.core.relay_config",
    "relaynode.core.sessions",
    "relaynode.core.seats",
    "relaynode.core.admission",
    "relaynode.core.limits",
    "relaynode.core.counters",
    "relaynode.core.grants",
    "relaynode.core.stun",
    "relaynode.core.dialects",
    "relaymgr.telemetry.estimation.scoring",
    "relaymgr.telemetry.estimation.geography",
    "relaymgr.telemetry.estimation.coordinates",
    "relaymgr.telemetry.estimation.prefixes",
    "relaymgr.telemetry.estimation.estimates",
    "relaymgr.telemetry.estimation.beacons",
    "relaymgr.telemetry.estimation.latency_model",
    "relaymgr.telemetry.series",
    "relaymgr.telemetry.estimation.trust",
    "relaymgr.sessions.placement.ranking",
    "relaymgr.sessions.placement.filters",
    "relaymgr.sessions.placement.explanation",
    "relaymgr.sessions.placement.stored_explanation",
    "matchmaker.matching.budget",
    "matchmaker.matching.proposals",
    "matchmaker.matching.pool",
    "matchmaker.matching.rules",
    "matchmaker.matching.values",
    "matchmaker.matching.attributes",
    "matchmaker.matching.session_options",
    "matchmaker.matching.profile_config",
    "matchmaker.matching.profile_parser",
    "matchmaker.matching.search",
    "matchmaker.matching.explanation",
]
IMPURE = r"asyncio|socket|time|datetime|django|random|secrets|threading|select"

# Extras of the client package; each is imported by one module only.
PUBLISHED = re.compile(r"siphash24|cryptography|httpx|httpx_sse")


def modules() -> dict[str, Path]:
    found = {}
    for package in OURS:
        root = ROOT / "transports/python" if package == "causeway_client" else ROOT
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if "build" not in parts:
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path) -> set[str]:
    """Absolute names of everything the module imports, wherever in the file."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    return found


MODULES = modules()
IMPORTS = {name: imports_of(name, path) for name, path in MODULES.items()}


def offenders(who: str, pattern: str) -> list[str]:
    banned = re.compile(rf"(?:{pattern})(?:\.|$)" if not pattern.endswith(")") else pattern)
    return [
        f"{name} imports {imported}"
        for name, names in IMPORTS.items()
        if name == who or name.startswith(who + ".")
        for imported in sorted(names)
        if banned.match(imported)
    ]


@pytest.mark.parametrize(("who", "pattern", "because"), FORBIDDEN)
def test_import_direction(who: str, pattern: str, because: str) -> None:
    assert not offenders(who, pattern), because


@pytest.mark.parametrize("who", PURE)
def test_pure_module_takes_time_and_bytes_as_arguments(who: str) -> None:
    assert any(name == who or name.startswith(who + ".") for name in MODULES), f"{who} is gone: mend the list"
    assert not offenders(who, IMPURE), "no I/O, no clock, no Django: it must be testable without them"


def test_transports_needs_the_standard_library_only() -> None:
    import sys

    allowed = sys.stdlib_module_names | {"causeway_client"}
    for name in (name for name in MODULES if name.split(".")[0] == "causeway_client"):
        for imported in IMPORTS[name]:
            top = imported.split(".")[0]
            assert top in allowed or PUBLISHED.fullmatch(top), f"{name} imports {imported}"


def test_transports_names_each_extra_in_one_file() -> None:
    users = {
        extra: [
            name
            for name, names in IMPORTS.items()
            if name.startswith("causeway_client") and any(extra == n.split(".")[0] for n in names)
        ]
        for extra in ("siphash24", "cryptography", "httpx", "httpx_sse")
    }
    assert users == {
        "siphash24": ["causeway_client.protocol.siphash"],
        "cryptography": ["causeway_client.protocol.tokens"],
        "httpx": ["causeway_client.rest_requests"],
        "httpx_sse": ["causeway_client.rest_requests"],
    }
