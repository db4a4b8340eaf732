"""The fleet at a glance: the figures of the admin's front page, and whether what makes them still runs."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.conf import settings
from rich.console import RenderableType
from rich.text import Text

from relaymgr.operations.doctor.background_jobs import look_at_beat, look_at_broker
from relaymgr.operations.doctor.database import look as look_at_database
from relaymgr.operations.doctor.external_services import look_at_web
from relaymgr.operations.doctor.findings import Finding, Level
from relaymgr.operations.selectors import Now, fleet_now
from relaymgr.sessions.models import LIVE_STATES, RelaySession

from ..output import STYLES, Document, Json, cell, facts, printable, show


def status(as_json: Json = False) -> None:
    """The fleet at a glance. `doctor` looks closer."""
    now = fleet_now()
    parts = {
        "database": next(iter(look_at_database())),
        "web": next(iter(look_at_web())),
        "broker": next(iter(look_at_broker())),
        "worker_and_beat": next(iter(look_at_beat())),
    }
    show(_document(now, parts), as_json, _render)


def _document(now: Now, parts: dict[str, Finding]) -> Document:
    silences = [node.silence for node in now.nodes if node.silence is not None and node.state != "lost"]
    live = dict.fromkeys((str(state) for state in LIVE_STATES), 0)
    for state in live:
        live[state] = RelaySession.objects.filter(state=state).count()
    return {
        "at": now.at,
        "version": settings.SPECTACULAR_SETTINGS["VERSION"],
        "parts": {name: {"level": part.level, "text": part.text} for name, part in parts.items()},
        "nodes": {state: count for state, _, count in now.states},
        "sessions": live,
        "players": now.connected,
        "players_last_known": now.connected_last_known,
        "silent_nodes": len(now.silent),
        "packets_per_second": now.packets,
        "megabits_per_second": now.megabits,
        "drops_per_second": dict(now.drops),
        "seats": {"taken": now.taken, "capacity": now.capacity},
        "oldest_probe_s": max(silences, default=None),
        "restarts": [asdict(each) for each in now.restarts],
        "alerts": [{"level": _level(alert.tone), "text": alert.sentence} for alert in now.alerts],
    }


def _level(tone: str) -> Level:
    return Level.PROBLEM if tone == "bad" else Level.WARNING


def _render(status: Document) -> Iterator[RenderableType]:
    seats, drops = status["seats"], status["drops_per_second"]
    oldest = status["oldest_probe_s"]
    yield facts(
        [
            ("version", status["version"]),
            *((name.replace("_", " "), _part(part)) for name, part in status["parts"].items()),
            ("nodes", _counts(status["nodes"])),
            ("sessions", _counts(status["sessions"])),
            ("players", _players(status)),
            ("seats", f"{seats['taken']} of {seats['capacity']} taken"),
            ("packets a second", f"{status['packets_per_second']:.0f} ({status['megabits_per_second']:.2f} Mbit/s)"),
            ("drops a second", ", ".join(f"{name} {rate:.1f}" for name, rate in drops.items()) or "none"),
            ("restarts in the last hour", _restarts(status["restarts"])),
            ("oldest probe", "none" if oldest is None else f"{oldest:.1f} s ago"),
        ]
    )
    for alert in status["alerts"]:
        line = Text(f"{alert['level']:9}", style=STYLES[alert["level"]])
        yield line.append(printable(alert["text"]), style="default")


def _players(status: Document) -> str:
    of = f", {status['players_last_known']} of them last known" if status["silent_nodes"] else ""
    return f"{status['players']}{of}"


def _part(part: dict[str, Any]) -> Text:
    return cell(part["level"]).append(printable(f": {part['text']}"), style="default")


def _restarts(restarts: list[Document]) -> str:
    return ", ".join(f"{each['count']} of {each['supervisor']} {each['process']}" for each in restarts) or "none"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"
