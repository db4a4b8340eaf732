"""The import directions, each with the reason it exists. Read from the source: nothing is imported."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("configuration", "observability", "web", "nodeapi", "relaymgr", "relaynode", "causeway_client", "matchmaker")

# (package, pattern that it must not import, reason). What import-linter can express is in pyproject.toml.
FORBIDDEN = [
    ("causeway_client.protocol", r"causeway_client\.(?!protocol)", "the protocol is below the adapters"),
    ("nodeapi", r"causeway_client\.(?!protocol)", "the documents use the protocol only"),
    ("relaynode", r"causeway_client\.(?!protocol)", "a node uses the protocol, not a client's adapter"),
    ("relaymgr", r"causeway_client\.(?!protocol)", "the manager seals tokens; it is not a client"),
    ("web.audit", r"relaymgr\.(tenants|nodes|telemetry|sessions)", "every app writes to it"),
    *(
        (f"relaymgr.{app}", r"relaymgr\.operations", "operations reads all apps; no app reads operations")
        for app in ("tenants", "nodes", "telemetry", "sessions")
    ),
    ("relaymgr.tenants", r"relaymgr\.(nodes|telemetry|sessions)", "sessions > telemetry > nodes > tenants"),
    ("relaymgr.nodes", r"relaymgr\.(telemetry|sessions)", "sessions > telemetry > nodes > tenants"),
    ("relaymgr.telemetry", r"relaymgr\.sessions", "sessions > telemetry > nodes > tenants"),
]

PURE = [
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
    "relaymgr.sessions.placement.record",
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
PUBLISHED = re.compile(r"siphash24|cryptography|httpx|httpx_sse|websockets|miniupnpc")


def modules() -> dict[str, Path]:
    found = {}
    for package in OURS:
        root = ROOT / "transports/python" if package == "causeway_client" else ROOT
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if "build" not in parts:
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


class _WithoutTypes(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.If | None:
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def imports_of(name: str, path: Path, *, types: bool = True) -> set[str]:
    """Absolute names of everything the module imports, anywhere in the file; with or without the blocks under
    `if TYPE_CHECKING`."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    if not types:
        tree = _WithoutTypes().visit(tree)
    for node in ast.walk(tree):
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
    assert any(name == who or name.startswith(who + ".") for name in MODULES), f"{who} is gone: update the list"
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
        for extra in ("siphash24", "cryptography", "httpx", "httpx_sse", "websockets", "miniupnpc")
    }
    assert users == {
        "siphash24": ["causeway_client.protocol.siphash"],
        "cryptography": ["causeway_client.protocol.tokens"],
        "httpx": ["causeway_client.rest_requests"],
        "httpx_sse": ["causeway_client.rest_requests"],
        "websockets": ["causeway_client.drivers.websocket_driver"],
        "miniupnpc": ["causeway_client.drivers.upnp"],
    }


def test_no_module_imports_itself_through_others() -> None:
    assert [sorted(cycle) for cycle in cycles() if len(cycle) > 1] == []


def cycles() -> list[list[str]]:
    """The strongly connected components of the imports (Tarjan). Imports for type checkers only do not count."""
    graph = {name: _imported_modules(name, path) for name, path in MODULES.items()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            start = stack.index(name)
            found.append(stack[start:])
            del stack[start:]

    for name in graph:
        if name not in index:
            visit(name)
    return found


def _imported_modules(name: str, path: Path) -> list[str]:
    found = {it if it in MODULES else it.rpartition(".")[0] for it in imports_of(name, path, types=False)}
    return sorted(it for it in found & MODULES.keys() if it != name and MODULES[it].name != "__init__.py")
