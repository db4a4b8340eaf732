"""A profile: what a match is. Configuration in, frozen rules out, or every problem with its path and reason. Pure.

The form is Edgegap's (compat spec 5.4, 5.5) for one profile, with `host` and `session` added:

    {"ticket_expiration_period": "5m", "ticket_removal_period": "1m", "group_inactivity_removal_period": "5m",
     "max_deployment_retry_count": 3, "host": "best_connected", "session": {"topology": "host", "idle_timeout": 120},
     "rules": {"initial": {"match_size": {"type": "player_count", "attributes": {"team_count": 2, ...}},
                           "elo": {"type": "number_difference", "attributes": {"max_difference": 50}}},
               "expansions": {"30": {"elo": {"max_difference": 150}}}}}

A rule's name is the name of the attribute a ticket brings for it. An expansion overwrites settings of rules from that
many seconds of waiting on.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from web.origins import origins_problem

MAX_SEATS = 255  # of a relay session
MAX_ATTRIBUTES = 32
MAX_VALUES = 64  # in an array of strings, beacons in an object
MAX_TEXT = 128
LARGEST = 1e12
MAX_LATENCY = 60_000.0  # ms
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST = 24 * 3600.0

DEFAULTS = {
    "ticket_expiration_period": "5m",
    "ticket_removal_period": "1m",
    "group_inactivity_removal_period": "5m",
}
# What each type of rule is set by: name -> (smallest, whether it is a whole number).
SETTINGS: dict[str, dict[str, tuple[float, bool]]] = {
    "player_count": {"team_count": (1, True), "min_team_size": (1, True), "max_team_size": (1, True)},
    "latencies": {"difference": (0, False), "max_latency": (0, False), "unmeasured": (0, False)},
    "number_difference": {"max_difference": (0, False)},
    "string_equality": {},
    "intersection": {"overlap": (1, True)},
}
OPTIONAL = frozenset({"unmeasured"})
HOSTS = ("first", "best_connected")
# Passed on to the manager with the request for a session; it checks the values of the last four.
SESSION_OPTIONS: dict[str, type | tuple[str, ...]] = {
    "topology": ("host", "mesh"),
    "objective": ("worst", "sum", "spread"),
    "idle_timeout": int,
    "max_lifetime": int,
    "dialects": list,
    "filters": list,
    "limits": dict,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """`path` as in JavaScript: rules.initial.elo.attributes.max_difference."""

    path: str
    reason: str


class ProfileInvalid(ValueError):
    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{problem.path}: {problem.reason}" for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Stage:
    """The rules as they are for a ticket that has waited `since` seconds. Each dictionary: rule -> its setting."""

    since: float
    team_count: int
    min_team_size: int
    max_team_size: int
    difference: float  # ms; of the latencies rule, infinite without one
    max_latency: float  # ms
    numbers: dict[str, float]
    overlaps: dict[str, int]


@dataclass(frozen=True, slots=True)
class Profile:
    """Times in seconds. `stages` by rising `since`, the first at 0."""

    stages: tuple[Stage, ...]
    latencies: str | None
    unmeasured: float | None  # ms, to every city, that a player counts with who measured none; None: it is refused
    strings: tuple[str, ...]
    expiration: float
    removal: float
    group_inactivity: float
    max_retries: int
    host: str
    session: dict[str, Any] = field(default_factory=dict)

    def stage_at(self, age: float) -> int:
        """Index of the stage for a ticket of this age."""
        index = 0
        while index + 1 < len(self.stages) and self.stages[index + 1].since <= age:
            index += 1
        return index

    @property
    def rules(self) -> dict[str, str]:
        """Attribute -> type of the rule that wants it."""
        named = dict.fromkeys(self.stages[0].numbers, "number_difference")
        named |= dict.fromkeys(self.strings, "string_equality")
        named |= dict.fromkeys(self.stages[0].overlaps, "intersection")
        return named | ({self.latencies: "latencies"} if self.latencies else {})

    @property
    def max_group(self) -> int:
        """Players: the largest team any stage allows."""
        return max(stage.max_team_size for stage in self.stages)


# -- configuration -> profile ----------------------------------------------------------------------


def parse(config: Any) -> Profile:
    """Raises ProfileInvalid with all that is wrong, not just the first."""
    return _Parser(config).profile()


class _Parser:
    def __init__(self, config: Any) -> None:
        self.config = config
        self.problems: list[Problem] = []

    def profile(self) -> Profile:
        config = self._object(self.config, "")
        known = {*DEFAULTS, "rules", "host", "session", "application", "max_deployment_retry_count"}
        known.add("allowed_cors_origins")
        if problem := origins_problem(config.get("allowed_cors_origins", [])):
            self._problem("allowed_cors_origins", problem)
        for name in config.keys() - known:
            self._problem(name, "is not a setting of a profile")
        periods = {name: self._period(config.get(name, text), name) for name, text in DEFAULTS.items()}
        stages = self._stages(self._object(config.get("rules"), "rules"), periods["ticket_expiration_period"])
        retries = config.get("max_deployment_retry_count", 3)
        if not _is_whole(retries) or not 0 <= retries <= 10:
            self._problem("max_deployment_retry_count", "must be a whole number from 0 to 10")
        if config.get("host", "first") not in HOSTS:
            self._problem("host", f"must be one of {', '.join(HOSTS)}")
        session = self._session(config.get("session", {}))
        if self.problems:
            raise ProfileInvalid(sorted(self.problems, key=lambda problem: problem.path))
        named = {name: rule["type"] for name, rule in config["rules"]["initial"].items()}
        latencies = next((name for name, kind in named.items() if kind == "latencies"), None)
        return Profile(
            stages=stages,
            latencies=latencies,
            unmeasured=(config["rules"]["initial"][latencies].get("attributes") or {}).get("unmeasured")
            if latencies
            else None,
            strings=tuple(name for name, kind in named.items() if kind == "string_equality"),
            expiration=periods["ticket_expiration_period"],
            removal=periods["ticket_removal_period"],
            group_inactivity=periods["group_inactivity_removal_period"],
            max_retries=retries,
            host=config.get("host", "first"),
            session=session,
        )

    def _stages(self, rules: Mapping[str, Any], expiration: float) -> tuple[Stage, ...]:
        for name in rules.keys() - {"initial", "expansions"}:
            self._problem(f"rules.{name}", "is not known here; there are initial and expansions")
        kinds, settings = self._initial(self._object(rules.get("initial"), "rules.initial"))
        expansions = self._object(rules.get("expansions", {}), "rules.expansions")
        timed = sorted(self._times(expansions, expansion_limit=expiration))
        if self.problems:
            return ()
        stages = [self._stage(0, kinds, settings, "rules.initial")]
        for since, key in timed:
            path = f"rules.expansions.{key}"
            self._expand(self._object(expansions[key], path), kinds, settings, path)
            if self.problems:
                break
            stages.append(self._stage(since, kinds, settings, path))
        for name, setting in settings.items():
            if setting.get("unmeasured", 0) > max(stage.max_latency for stage in stages):
                self._problem(f"rules.initial.{name}.attributes.unmeasured", "is above every max_latency: no match")
        return tuple(stages)

    def _initial(self, rules: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
        kinds: dict[str, str] = {}
        settings: dict[str, dict[str, float]] = {}
        if len(rules) > MAX_ATTRIBUTES:
            self._problem("rules.initial", f"has more than {MAX_ATTRIBUTES} rules")
        for name, rule in rules.items():
            path = f"rules.initial.{name}"
            kind = self._object(rule, path).get("type")
            if not isinstance(kind, str) or kind not in SETTINGS:
                self._problem(f"{path}.type", f"must be one of {', '.join(SETTINGS)}")
                continue
            for other in rule.keys() - {"type", "attributes"}:
                self._problem(f"{path}.{other}", "is not known here; a rule has type and attributes")
            given = dict(self._object(rule.get("attributes") or {}, f"{path}.attributes"))
            if kind == "player_count" and "team_size" in given:  # the older name of both
                given |= dict.fromkeys(("min_team_size", "max_team_size"), given.pop("team_size"))
            for missing in SETTINGS[kind].keys() - given.keys() - OPTIONAL:
                self._problem(f"{path}.attributes.{missing}", "is missing")
            kinds[name], settings[name] = kind, self._settings(kind, given, f"{path}.attributes")
        self._count(kinds, "player_count", least=1)
        self._count(kinds, "latencies", least=0)
        return kinds, settings

    def _count(self, kinds: Mapping[str, str], kind: str, least: int) -> None:
        found = list(kinds.values()).count(kind)
        if not least <= found <= 1:
            wanted = "exactly one" if least else "at most one"
            self._problem("rules.initial", f"needs {wanted} rule of type {kind} and has {found}")

    def _settings(self, kind: str, given: Mapping[str, Any], path: str) -> dict[str, float]:
        checked = {}
        for name, value in given.items():
            if name not in SETTINGS[kind]:
                self._problem(f"{path}.{name}", f"is not a setting of {kind}")
                continue
            least, whole = SETTINGS[kind][name]
            if not (_is_whole(value) if whole else _is_number(value)) or not least <= value <= LARGEST:
                self._problem(f"{path}.{name}", f"must be a {'whole ' if whole else ''}number of at least {least:g}")
                continue
            checked[name] = value
        return checked

    def _times(self, expansions: Mapping[str, Any], expansion_limit: float) -> Iterator[tuple[float, str]]:
        for key in expansions:
            if not re.fullmatch(r"[1-9]\d{0,5}", key):
                self._problem(f"rules.expansions.{key}", "must be named by a whole number of seconds")
            elif float(key) >= expansion_limit:
                self._problem(f"rules.expansions.{key}", "comes after the ticket has expired")
            else:
                yield float(key), key

    def _expand(
        self, changes: Mapping[str, Any], kinds: Mapping[str, str], settings: dict[str, dict[str, float]], path: str
    ) -> None:
        for name, change in changes.items():
            if name not in kinds:
                self._problem(f"{path}.{name}", "is not a rule of rules.initial")
                continue
            new = self._settings(kinds[name], self._object(change, f"{path}.{name}"), f"{path}.{name}")
            if "unmeasured" in new:
                self._problem(f"{path}.{name}.unmeasured", "is fixed when a ticket is made: it cannot change with time")
            settings[name] = settings[name] | new

    def _stage(
        self, since: float, kinds: Mapping[str, str], settings: Mapping[str, Mapping[str, float]], path: str
    ) -> Stage:
        by_kind = {kind: {name: settings[name] for name in kinds if kinds[name] == kind} for kind in SETTINGS}
        [(count_name, count)] = by_kind["player_count"].items()
        latencies = next(iter(by_kind["latencies"].values()), {})
        if count["min_team_size"] > count["max_team_size"]:
            self._problem(f"{path}.{count_name}", "min_team_size is above max_team_size")
        if not 2 <= count["team_count"] * count["max_team_size"] <= MAX_SEATS:
            self._problem(f"{path}.{count_name}", f"a full match must have 2 to {MAX_SEATS} players")
        return Stage(
            since=since,
            team_count=int(count["team_count"]),
            min_team_size=int(count["min_team_size"]),
            max_team_size=int(count["max_team_size"]),
            difference=latencies.get("difference", math.inf),
            max_latency=latencies.get("max_latency", math.inf),
            numbers={name: rule["max_difference"] for name, rule in by_kind["number_difference"].items()},
            overlaps={name: int(rule["overlap"]) for name, rule in by_kind["intersection"].items()},
        )

    def _session(self, session: Any) -> dict[str, Any]:
        options = self._object(session, "session")
        for name, value in options.items():
            wanted = SESSION_OPTIONS.get(name)
            if wanted is None:
                self._problem(f"session.{name}", f"is not one of {', '.join(SESSION_OPTIONS)}")
            elif isinstance(wanted, tuple) and value not in wanted:
                self._problem(f"session.{name}", f"must be one of {', '.join(wanted)}")
            elif isinstance(wanted, type) and (not isinstance(value, wanted) or isinstance(value, bool)):
                self._problem(f"session.{name}", f"must be of the type {wanted.__name__}")
        return dict(options)

    def _period(self, text: Any, path: str) -> float:
        found = re.fullmatch(r"(\d{1,9})(ms|s|m|h)", text) if isinstance(text, str) else None
        seconds = int(found[1]) * UNITS[found[2]] if found else 0.0
        if not 0 < seconds <= LONGEST:
            self._problem(path, 'must be a time such as "500ms", "30s", "5m" or "1h", up to a day')
        return seconds

    def _object(self, value: Any, path: str) -> Mapping[str, Any]:
        if isinstance(value, dict):
            return value
        self._problem(path or "config", "must be an object")
        return {}

    def _problem(self, path: str, reason: str) -> None:
        self.problems.append(Problem(path, reason))


# -- a ticket's attributes -------------------------------------------------------------------------


def attribute_problems(profile: Profile, attributes: Mapping[str, Any]) -> list[Problem]:
    """What keeps these attributes from being matched: missing, surplus, of a wrong type or size (M12)."""
    rules = profile.rules
    problems = [Problem(name, "is not an attribute of this profile") for name in sorted(attributes.keys() - rules)]
    for name, kind in sorted(rules.items()):
        reason = CHECKS[kind](attributes[name]) if name in attributes else "is missing"
        if reason:
            problems.append(Problem(name, reason))
    return problems


def with_unmeasured(profile: Profile, attributes: Mapping[str, Any], cities: Iterable[str]) -> Mapping[str, Any]:
    """The attributes; of a player who measured nothing with what the profile's `unmeasured` says, for these cities.

    0 is no measurement: it is what clients send that cannot measure."""
    name = profile.latencies
    if name is None or profile.unmeasured is None:
        return attributes
    found = attributes.get(name)
    if found and not (isinstance(found, dict) and all(_is_number(ms) and ms <= 0 for ms in found.values())):
        return attributes
    return {**attributes, name: dict.fromkeys(sorted(cities)[:MAX_VALUES], profile.unmeasured)}


def group_problems(profile: Profile, members: list[Mapping[str, Any]]) -> list[Problem]:
    """What keeps players whose attributes are each valid from being matched as one group."""
    problems = []
    for name in profile.strings:
        if len({member[name] for member in members}) > 1:
            problems.append(Problem(name, "differs within the group"))
    for name in profile.stages[0].overlaps:
        overlap = min(stage.overlaps[name] for stage in profile.stages)
        if len(frozenset[str].intersection(*(frozenset(member[name]) for member in members))) < overlap:
            problems.append(Problem(name, f"the group has fewer than {overlap} values in common"))
    return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT


def _number(value: Any) -> str:
    return "" if _is_number(value) and abs(value) <= LARGEST else f"must be a number of at most {LARGEST:g}"


def _text(value: Any) -> str:
    return "" if _is_text(value) else f"must be a string of 1 to {MAX_TEXT} characters"


def _texts(value: Any) -> str:
    if isinstance(value, list) and 0 < len(value) <= MAX_VALUES and all(map(_is_text, value)):
        return ""
    return f"must be an array of 1 to {MAX_VALUES} strings of 1 to {MAX_TEXT} characters"


def _latencies(value: Any) -> str:
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_VALUES or not all(map(_is_text, value)):
        return f"must be an object of 1 to {MAX_VALUES} beacons and their milliseconds"
    if not all(_is_number(ms) and 0 <= ms <= MAX_LATENCY for ms in value.values()):
        return f"every latency must be a number of milliseconds from 0 to {MAX_LATENCY:g}"
    return ""


CHECKS = {"latencies": _latencies, "number_difference": _number, "string_equality": _text, "intersection": _texts}


# -- two configurations ----------------------------------------------------------------------------


def differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, before, after) of each leaf that differs; None where there is none."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from differences(before.get(name), after.get(name), f"{path}.{name}" if path else name)
    elif before != after:
        yield path, before, after
