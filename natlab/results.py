"""What the lab has measured, in a JSON file that later runs add to."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from natlab.pairs import Outcome


@dataclass
class Result:
    """The rounds of one program in one scenario. `direct_ms`: of each round that found a direct path, see
    pairs.Outcome. `relayed`: how many of the others played over the relay. `held`: how many of the direct ones carried
    packets after the scenario's silence."""

    scenario: str
    program: str
    date: str
    delay_ms: float
    loss: float
    rounds: int = 0
    direct_ms: list[float] = field(default_factory=list)
    paths: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    rendezvous_bytes: list[int] = field(default_factory=list)
    relayed: int = 0
    held: int | None = None

    def add(self, outcome: Outcome) -> None:
        self.rounds += 1
        if outcome.rendezvous_bytes:
            self.rendezvous_bytes.append(outcome.rendezvous_bytes)
        if outcome.seconds is None:
            self.relayed += outcome.is_relayed
            self.failures = dict(Counter(self.failures) + Counter([outcome.reason]))
            return
        self.direct_ms.append(round(outcome.seconds * 1000, 1))
        self.paths = dict(Counter(self.paths) + Counter([" / ".join(filter(None, outcome.paths))]))
        if outcome.held is not None:
            self.held = (self.held or 0) + outcome.held

    @property
    def share(self) -> float:
        """Of the rounds that found a direct path, 0.0 to 1.0."""
        return len(self.direct_ms) / self.rounds if self.rounds else 0.0

    @property
    def key(self) -> str:
        return f"{self.scenario} {self.program} {self.delay_ms:g} ms {self.loss:g}"


class Results:
    """Those of a file. A result replaces that of the same scenario and program over the same line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        stored = json.loads(path.read_text()) if path.exists() else []
        self._by_key = {result.key: result for result in (Result(**each) for each in stored)}

    def put(self, result: Result) -> None:
        """Writes the file."""
        self._by_key[result.key] = result
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(asdict(self._by_key[key])) for key in sorted(self._by_key))
        self._path.write_text("[\n" + ",\n".join(lines) + "\n]\n")

    def all(self) -> list[Result]:
        return list(self._by_key.values())

    def of(self, *, loss: float) -> dict[tuple[str, str], Result]:
        """By scenario and program."""
        return {(it.scenario, it.program): it for it in self._by_key.values() if it.loss == loss}


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed. Raises StatisticsError without
    values."""
    ordered = sorted(values)
    if not ordered:
        raise statistics.StatisticsError("no values")
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]
