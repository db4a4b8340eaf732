"""The programs that can play: how each is started, and what it needs on this machine."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WEBRTC = Path(__file__).parent / "players" / "webrtc"


@dataclass(frozen=True)
class Program:
    """`is_causeway`: it plays through the relay node; the others exchange candidates by the lab. `hard_nats`: with port
    prediction and birthday probing (PROTOCOL.md 12.8)."""

    name: str
    title: str
    command: tuple[str, ...]
    is_causeway: bool = False
    hard_nats: bool = False
    needs_node: bool = False

    def missing(self) -> str:
        """Why it cannot run here; "" if it can."""
        if not self.needs_node:
            return ""
        if shutil.which("node") is None:
            return f"{self.title} needs Node.js"
        if not (WEBRTC / "node_modules").exists():
            return f"{self.title} needs its packages: npm ci --prefix {WEBRTC.relative_to(ROOT)}"
        return ""


def _python(module: str) -> tuple[str, ...]:
    return sys.executable, "-m", f"natlab.players.{module}"


RAW = Program("raw", "raw punching each 20 ms", _python("raw_punch"))
AIOICE = Program("aioice", "aioice", _python("ice"))
WEBRTC_PROGRAM = Program("webrtc", "libwebrtc", ("node", str(WEBRTC / "player.mjs")), needs_node=True)
CAUSEWAY = Program("causeway", "Causeway", _python("causeway"), is_causeway=True, hard_nats=True)
CAUSEWAY_PLAIN = Program("causeway-plain", "Causeway, plain punching only", _python("causeway"), is_causeway=True)

ALL = (CAUSEWAY, CAUSEWAY_PLAIN, RAW, AIOICE, WEBRTC_PROGRAM)


def by_names(names: Sequence[str]) -> list[Program]:
    """Raises KeyError for an unknown one."""
    known = {program.name: program for program in ALL}
    return [known[name] for name in names]
