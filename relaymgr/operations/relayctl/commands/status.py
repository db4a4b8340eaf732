"""An overview: the figures of the console's front page, and the health of the components behind them."""

from collections.abc import Iterator
from dataclasses import asdict

from django.conf import settings
from rich.console import RenderableType
from rich.text import Text

from relaymgr.operations.doctor.background_jobs import check_beat, check_broker
from relaymgr.operations.doctor.database import check as check_database
from relaymgr.operations.doctor.external_services import check_web
from relaymgr.operations.selectors import FleetSnapshot, fleet_snapshot
from relaymgr.sessions.overview import live_sessions_by_state
from web.diagnostics import Finding, Level

from ..output import STYLES, Document, Json, cell, facts, printable, show


def status(as_json: Json = False) -> None:
    """Show an overview of the fleet. `doctor` checks more thoroughly."""
    fleet = fleet_snapshot()
    components = {
        "database": next(iter(check_database())),
        "web": next(iter(check_web())),
        "broker": next(iter(check_broker())),
        "background_jobs": next(iter(check_beat())),
    }
    show(_document(fleet, components), as_json, _render)


def _document(fleet: FleetSnapshot, components: dict[str, Finding]) -> Document:
    silences = [node.silence for node in fleet.nodes if node.silence is not None and node.state != "lost"]
    return {
        "at": fleet.at,
        "version": settings.SPECTACULAR_SETTINGS["VERSION"],
        "components": {name: {"level": each.level, "message": each.message} for name, each in components.items()},
        "nodes": {state: count for state, _, count in fleet.states},
        "sessions": live_sessions_by_state(),
        "players": fleet.connected,
        "players_last_known": fleet.connected_last_known,
        "silent_nodes": len(fleet.silent),
        "packets_per_second": fleet.packets,
        "megabits_per_second": fleet.megabits,
        "direct_megabits_per_second": fleet.direct_megabits,
        "drops_per_second": dict(fleet.drops),
        "seats": {"taken": fleet.taken, "capacity": fleet.capacity},
        "oldest_probe_age_s": max(silences, default=None),
        "restarts": [asdict(each) for each in fleet.restarts],
        "alerts": [{"level": _level(alert.tone), "message": alert.message} for alert in fleet.alerts],
    }


def _level(tone: str) -> Level:
    return Level.PROBLEM if tone == "bad" else Level.WARNING


def _render(status: Document) -> Iterator[RenderableType]:
    seats, drops = status["seats"], status["drops_per_second"]
    oldest = status["oldest_probe_age_s"]
    yield facts(
        [
            ("version", status["version"]),
            *((name.replace("_", " "), _component(each)) for name, each in status["components"].items()),
            ("nodes", _counts(status["nodes"])),
            ("sessions", _counts(status["sessions"])),
            ("players", _players(status)),
            ("seats", f"{seats['taken']} of {seats['capacity']} taken"),
            ("packets per second", f"{status['packets_per_second']:.0f} ({status['megabits_per_second']:.2f} Mbit/s)"),
            ("on direct paths", f"{status['direct_megabits_per_second']:.2f} Mbit/s"),
            ("drops per second", ", ".join(f"{name} {rate:.1f}" for name, rate in drops.items()) or "none"),
            ("restarts in the last hour", _restarts(status["restarts"])),
            ("oldest probe", "none" if oldest is None else f"{oldest:.1f} s ago"),
        ]
    )
    for alert in status["alerts"]:
        line = Text(f"{alert['level']:9}", style=STYLES[alert["level"]])
        yield line.append(printable(alert["message"]), style="default")


def _players(status: Document) -> str:
    of = f", {status['players_last_known']} of them last known" if status["silent_nodes"] else ""
    return f"{status['players']}{of}"


def _component(component: Document) -> Text:
    return cell(component["level"]).append(printable(f": {component['message']}"), style="default")


def _restarts(restarts: list[Document]) -> str:
    return ", ".join(f"{each['count']} of {each['supervisor']} {each['process']}" for each in restarts) or "none"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"
