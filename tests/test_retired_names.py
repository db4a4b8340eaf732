"""Names and phrases that the project has given up for the field's own terms do not come back.

Ordinary words stay allowed: what is listed here had a meaning of its own in this project alone.
"""

import ast
import re
import subprocess
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Classes, functions, constants, fields, settings, metrics: whole words.
IDENTIFIERS = [
    "CAUSEWAY_NODE_INTERFACES",
    "CAUSEWAY_NODE_FLOOD_CONNECTS",
    "CAUSEWAY_NODE_FLOOD_PINGS",
    "CAUSEWAY_NODE_UNAUTHENTICATED_ANSWERS",
    "causeway_node_drops",
    "causeway_node_manager_linked",
    "causeway_node_kernel_forwarded_packets",
    "CausewayNodeUnlinked",
    "FastLane",
    "KernelMirror",
    "kernelPath",
    "more_candidates",
    "would_change",
    "candidates_now",
    "stored_explanation",
    "session_place",
    "take_over",
    "log_lines",
    "RecordedAdmin",
    "KeptAdmin",
    "SealedField",
    "_Making",
    "Wishes",
    "wishes_of",
    "wishes_joined",
    "conceded",
    "whereabouts",
    "WhereaboutsSerializer",
    "grant_unwant",
    "grants_unwant",
    "is_forgotten",
    "session_settle",
    "grant_settle",
    "events_take",
    "worker_grow",
    "knowledge_now",
    "knowledge_to_json",
    "act_record",
    "repeated_act_record",
    "remembered_where",
    "KeptRedisCache",
    "OutwardNetwork",
    "causeway_sessions_over",
    "causeway-transports",
    "causeway_messages_set_aside",
    "causeway_matchmaker_outcomes",
    "causeway_matchmaker_versions_set_aside",
    "CausewayMessagesSetAside",
    "CAUSEWAY_STRANGER_REQUESTS_PER_MINUTE",
    "CAUSEWAY_REQUEST_SECONDS",
    "CAUSEWAY_SEAT_PACKETS",
    "CAUSEWAY_SEAT_BYTES",
    "CAUSEWAY_SESSION_PACKETS",
    "CAUSEWAY_SESSION_BYTES",
    "CAUSEWAY_NODE_DRAIN_SECONDS",
    "MATCHMAKER_THROTTLING",
    "MATCHMAKER_CLIENT_ADDRESS",
    "MATCHMAKER_ADMIN",
    "MATCHMAKER_ERROR_RESPONSES",
    "MATCHMAKER_ONE_TICKET_PER_PLAYER",
    "WEBHOOKS_AT_ONCE",
    "FLEET_MEMORY",
    "REMEMBERED_FOR",
    "MAX_REMEMBERED",
    "SAMPLE_AGE",
    "MINUTE_AGE",
    "HOUR_AGE",
    "tag_is_right",
    "connect_mac_is_right",
    "FellSilent",
    "STRAGGLERS",
    "by_reach",
    "fleet_unknown",
    "wanted_least",
    "fleet_names",
    "fleet_refresh",
    "manager_answers",
    "returns_to",
    "LIVED_LONG",
    "OR_SAY",
]

# Ordinary words that were names: only as names of Python.
PYTHON_NAMES = {
    "Incoming",
    "Leaving",
    "Heard",
    "Silent",
    "Tell",
    "Learnt",
    "Knowledge",
    "Passed",
    "PATIENCE",
    "EVER",
    "SELDOM",
    "TOLD",
    "wishes",
    "_obey",
    "Turns",
    "Lanes",
    "Filled",
    "Kept",
    "STATE_LOOKS",
}

# Dotted modules, which also stand for the paths of files: where they were.
MODULES = [
    "relaynode.exchange",
    "relaynode.fast_lane",
    "relaynode.kernel",
    "relaynode.deadlines",
    "relaynode.legs",
    "relaynode.channel",
    "relaynode.ports",
    "relaynode.relay",
    "relaynode.node",
    "relaynode.batching",
    "relaynode.server",
    "transports.control",
    "transports.asyncio_udp",
    "transports.blocking_udp",
    "transports.edgegap",
    "transports.sidecar",
    "causeway_client.control",
    "relaymgr.rows",
    "relaymgr.remembered",
    "relaymgr.hints",
    "relaymgr.requests",
    "relaymgr.logs",
    "relaymgr.parsing",
    "relaymgr.sealing",
    "relaymgr.errors",
    "relaymgr.throttling",
    "relaymgr.audit",
    "relaymgr.sessions.life",
    "relaymgr.sessions.upkeep",
    "relaymgr.sessions.recheck",
    "relaymgr.sessions.placing",
    "relaymgr.sessions.fields",
    "relaymgr.sessions.page",
    "relaymgr.telemetry.knowledge",
    "relaymgr.telemetry.learning",
    "matchmaker.life",
    "matchmaker.why",
    "matchmaker.whereabouts",
    "matchmaker.sealing",
    "matchmaker.page",
    "matchmaker.passes",
    "tests.nodeproc",
    "tests.simnet",
    "tests.servers",
    "tests.bench.bench_api",
    "tests.support.acts",
    "deploy.demo",
    "doctor.examination",
    "doctor.surroundings",
    "doctor.wire",
    "doctor.work",
]

PHRASES = (
    "Wrong now",
    "How it is, and why",
    "half way down to a faster sample",
    "there, ms",
    "back, ms",
    "whoever",
    "somebody",
    "nobody",
    "strangers",
    "the reason why somebody waits",
    "do not mind",
    "stop every process at its start",
    "as in life",
    " ".join(("compat", "spec")),  # apart: another test looks for citations that begin so
)

# What other people wrote, or is quoted from them, and this list itself.
EXEMPT = re.compile(
    r"^(LICENSE|LICENSES/|tests/test_retired_names\.py|tests/fuzz/corpus/|docs/assets/|.*/migrations/"
    r"|tests/matchmaker/edgegap_configurations/|(tests/)?requirements\.txt|CHANGELOG\.md)"
)


def texts() -> dict[str, str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    found = {}
    for name in listed:
        if name and not EXEMPT.match(name) and (ROOT / name).is_file():
            try:
                found[name] = (ROOT / name).read_text()
            except UnicodeDecodeError:
                continue
    return found


TEXTS = texts()


def found(words: Collection[str], token: str) -> dict[str, set[str]]:
    """File -> those of the words that are whole tokens in it."""
    pattern, wanted = re.compile(token), set(words)
    hits = {name: wanted.intersection(pattern.findall(text)) for name, text in TEXTS.items()}
    return {name: words for name, words in hits.items() if words}


def names_of_python(text: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
    return found


def test_files_were_read() -> None:
    assert len(TEXTS) > 300


def test_retired_identifiers_are_gone() -> None:
    assert not found(IDENTIFIERS, r"[\w-]+")


def test_retired_names_of_python_are_gone() -> None:
    hits = {name: names_of_python(text) & PYTHON_NAMES for name, text in TEXTS.items() if name.endswith(".py")}
    assert not {name: names for name, names in hits.items() if names}


def test_retired_modules_are_gone() -> None:
    assert not found(MODULES, r"[\w.]+")
    assert not found([f"{module.replace('.', '/')}.py" for module in MODULES], r"[\w/]+\.py")


def test_retired_phrases_are_gone() -> None:
    """Tests have users and tenants with such names."""
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, PHRASES))})\b", re.IGNORECASE)
    hits = {name: pattern.findall(text) for name, text in TEXTS.items() if not name.startswith("tests/")}
    assert not {name: phrases for name, phrases in hits.items() if phrases}
