"""A profile: what a match is. Configuration in, frozen rules out, or every problem with its path and reason. Pure.

The form is Edgegap's (EDGEGAP.md 5.4, 5.5) for one profile, with `host` and `session` added:

    {"ticket_expiration_period": "5m", "ticket_removal_period": "1m", "group_inactivity_removal_period": "5m",
     "max_deployment_retry_count": 3, "host": "best_connected", "session": {"topology": "host", "idle_timeout": 120},
     "rules": {"initial": {"match_size": {"type": "player_count", "attributes": {"team_count": 2, ...}},
                           "elo": {"type": "number_difference", "attributes": {"max_difference": 50}}},
               "expansions": {"30": {"elo": {"max_difference": 150}}}}}

A rule's name is the name of the attribute a ticket brings for it. An expansion overwrites settings of rules from that
many seconds of waiting on.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from web.fields.session_options import filter_contradiction, option_conflicts
from web.http.origins import origins_problem

MAX_SEATS = 255  # of a relay session
MAX_ATTRIBUTES = 32
MAX_VALUES = 64  # in an array of strings, beacons in an object
MAX_TEXT = 128
# Of every number: what is between 0 and the smallest would overflow in a division.
SMALLEST, LARGEST = 1e-6, 1e12
MAX_LATENCY = 60_000.0  # ms
MAX_ATTRIBUTES_BYTES = 16_384  # of a ticket's attributes, as JSON
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST = 24 * 3600.0

DEFAULTS = {
    "ticket_expiration_period": "5m",
    "ticket_removal_period": "1m",
    "group_inactivity_removal_period": "5m",
}


class Setting(NamedTuple):
    """The values that a setting may have; both ends are included."""

    least: float
    most: float = LARGEST
    is_whole: bool = False
    is_required: bool = True


# What each type of rule is set by.
SETTINGS: dict[str, dict[str, Setting]] = {
    "player_count": dict.fromkeys(("team_count", "min_team_size", "max_team_size"), Setting(1, is_whole=True)),
    "latencies": {
        "difference": Setting(0),
        "max_latency": Setting(SMALLEST),
        "default_latency": Setting(SMALLEST, is_required=False),
    },
    "number_difference": {"max_difference": Setting(0)},
    "string_equality": {},
    "intersection": {"overlap": Setting(1, MAX_VALUES, is_whole=True)},
}
HOSTS = ("longest_waiting", "best_connected")
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
MAX_PROFILES = 50  # in a configuration file
SHARED = ("max_deployment_retry_count",)  # what such a file says once for all of its profiles
# Passed on to the manager with the request for a session, with the values that it accepts.
SESSION_OPTIONS: dict[str, type | tuple[str, ...] | range] = {
    "topology": ("host", "mesh"),
    "objective": ("worst", "sum", "spread"),
    "idle_timeout": range(10, 86_400 + 1),
    "max_lifetime": range(60, 86_400 + 1),
    "dialects": list,
    "filters": list,
    "limits": dict,
}
DIALECTS = ("native", "edgegap")
FILTER_FIELDS = ("location", "country", "continent", "region", "city", "tags")
FILTER_TYPES = ("any", "all", "not")
MAX_FILTER_VALUES, MAX_DIALECTS = 500, 10  # as the manager takes them
MIN_EXPIRATION = 1.0  # seconds: a ticket that ends before the next pass over its pool is never matched


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
    default_latency: float  # ms to every beacon that a player counts as who measured none
    accepts_smaller: bool  # an expansion has lowered min_team_size: a match that is not full is made at once


@dataclass(frozen=True, slots=True)
class Profile:
    """Times in seconds. `stages` by rising `since`, the first at 0."""

    stages: tuple[Stage, ...]
    latencies: str | None
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

    @property
    def max_players(self) -> int:
        """Of the largest match that any stage allows."""
        return max(stage.team_count * stage.max_team_size for stage in self.stages)


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
        if isinstance(config.get("profiles"), dict):
            names = ", ".join(map(repr, sorted(map(str, config["profiles"]))[:20])) or "there are none"
            reason = f"this is a whole configuration file: give one of its profiles ({names}), or import it as a whole"
            raise ProfileInvalid([Problem("profiles", reason)])
        known = {*DEFAULTS, "rules", "host", "session", "application", "max_deployment_retry_count"}
        known.add("allowed_cors_origins")
        if problem := origins_problem(config.get("allowed_cors_origins", [])):
            self._problem("allowed_cors_origins", problem)
        for name in config.keys() - known:
            self._problem(name, "is not a setting of a profile")
        periods = {name: self._period(config.get(name, text), name) for name, text in DEFAULTS.items()}
        if 0 < periods["ticket_expiration_period"] < MIN_EXPIRATION:
            self._problem(
                "ticket_expiration_period", f"must be {MIN_EXPIRATION:g} s at least: no pass would see a ticket"
            )
        stages = self._stages(self._object(config.get("rules"), "rules"), periods["ticket_expiration_period"])
        retries = config.get("max_deployment_retry_count", 3)
        if not _is_whole(retries) or not 0 <= retries <= 10:
            self._problem("max_deployment_retry_count", "must be a whole number from 0 to 10")
        self._host(config)
        session = self._session(config.get("session", {}))
        if self.problems:
            raise ProfileInvalid(sorted(self.problems, key=lambda problem: problem.path))
        named = {name: rule["type"] for name, rule in config["rules"]["initial"].items()}
        latencies = next((name for name, kind in named.items() if kind == "latencies"), None)
        return Profile(
            stages=stages,
            latencies=latencies,
            strings=tuple(name for name, kind in named.items() if kind == "string_equality"),
            expiration=periods["ticket_expiration_period"],
            removal=periods["ticket_removal_period"],
            group_inactivity=periods["group_inactivity_removal_period"],
            max_retries=retries,
            host=config.get("host", "longest_waiting"),
            session=session,
        )

    def _host(self, config: Mapping[str, Any]) -> None:
        host = config.get("host", "longest_waiting")
        if host not in HOSTS:
            self._problem("host", f"must be one of {', '.join(HOSTS)}")
        elif host == "best_connected":
            rules = config.get("rules")
            initial = rules.get("initial") if isinstance(rules, dict) else None
            found = initial.values() if isinstance(initial, dict) else ()
            if not any(isinstance(rule, dict) and rule.get("type") == "latencies" for rule in found):
                self._problem("host", "best_connected has no effect without a rule of type latencies")

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
            stages.append(self._stage(since, kinds, settings, path, stages[0].min_team_size))
            if replace(stages[-1], since=stages[-2].since, accepts_smaller=stages[-2].accepts_smaller) == stages[-2]:
                self._problem(path, "changes nothing")
        for name, setting in settings.items():
            if setting.get("default_latency", 0) > max(stage.max_latency for stage in stages):
                self._problem(
                    f"rules.initial.{name}.attributes.default_latency", "is above every max_latency: no match"
                )
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
            for missing, setting in SETTINGS[kind].items():
                if setting.is_required and missing not in given:
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
            if reason := _setting_problem(SETTINGS[kind][name], value):
                self._problem(f"{path}.{name}", reason)
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
            settings[name] = settings[name] | new

    def _stage(
        self,
        since: float,
        kinds: Mapping[str, str],
        settings: Mapping[str, Mapping[str, float]],
        path: str,
        first_min: int = 0,
    ) -> Stage:
        by_kind = {kind: {name: settings[name] for name in kinds if kinds[name] == kind} for kind in SETTINGS}
        [(count_name, count)] = by_kind["player_count"].items()
        latencies = next(iter(by_kind["latencies"].values()), {})
        if count["min_team_size"] > count["max_team_size"]:
            self._problem(f"{path}.{count_name}", "min_team_size is above max_team_size")
        if not 2 <= count["team_count"] * count["max_team_size"] <= MAX_SEATS:
            self._problem(f"{path}.{count_name}", f"a full match must have 2 to {MAX_SEATS} players")
        max_latency = latencies.get("max_latency", math.inf)
        default_latency = latencies.get("default_latency", max_latency / 2)
        return Stage(
            since=since,
            team_count=int(count["team_count"]),
            min_team_size=int(count["min_team_size"]),
            max_team_size=int(count["max_team_size"]),
            difference=latencies.get("difference", math.inf),
            max_latency=max_latency,
            numbers={name: rule["max_difference"] for name, rule in by_kind["number_difference"].items()},
            overlaps={name: int(rule["overlap"]) for name, rule in by_kind["intersection"].items()},
            default_latency=default_latency,
            accepts_smaller=count["min_team_size"] < first_min,
        )

    def _session(self, session: Any) -> dict[str, Any]:
        options = self._object(session, "session")
        for name, value in options.items():
            wanted = SESSION_OPTIONS.get(name)
            if wanted is None:
                self._problem(f"session.{name}", f"is not one of {', '.join(SESSION_OPTIONS)}")
            elif isinstance(wanted, tuple) and value not in wanted:
                self._problem(f"session.{name}", f"must be one of {', '.join(wanted)}")
            elif isinstance(wanted, range) and not (_is_whole(value) and value in wanted):
                self._problem(f"session.{name}", f"must be a whole number from {wanted[0]} to {wanted[-1]}")
            elif isinstance(wanted, type) and (not isinstance(value, wanted) or isinstance(value, bool)):
                self._problem(f"session.{name}", f"must be of the type {wanted.__name__}")
            elif name in SESSION_CHECKS and (reason := SESSION_CHECKS[name](value)):
                self._problem(f"session.{name}", reason)
        if not self.problems:
            for path, reason in option_conflicts(options):
                self._problem(f"session.{path}", reason)
        return dict(options)

    def _period(self, text: Any, path: str) -> float:
        found = re.fullmatch(r"(\d{1,9})(ms|s|m|h)", text) if isinstance(text, str) else None
        seconds = int(found[1]) * UNITS[found[2]] if found else 0.0
        if not 0 < seconds <= LONGEST:
            self._problem(path, 'must be a time such as "500ms", "30s", "5m" or "1h", up to a day')
        return seconds

    def _object(self, value: Any, path: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self._problem(path or "config", "must be an object")
        return {}

    def _problem(self, path: str, reason: str) -> None:
        self.problems.append(Problem(path, reason))


def _setting_problem(setting: Setting, value: Any) -> str:
    """The reason why the setting cannot have this value; "" where it can."""
    whole = "whole " if setting.is_whole else ""
    if not (_is_whole(value) if setting.is_whole else _is_number(value)) or value < setting.least:
        return f"must be a {whole}number of at least {setting.least:g}"
    if value > setting.most:
        return f"must be a {whole}number of at most {setting.most:g}"
    if 0 < value < SMALLEST:
        return f"must be 0, or at least {SMALLEST:g}"
    return ""


# What the manager would refuse at each match, and so no match could ever be played.


def _dialects_problem(value: list[Any]) -> str:
    fits = 0 < len(value) <= MAX_DIALECTS and all(name in DIALECTS for name in value)
    return "" if fits else f"must name one or more of {', '.join(DIALECTS)}"


def _filters_problem(value: list[Any]) -> str:
    if not (len(value) <= 50 and all(map(_is_filter, value))):
        return (
            f"must be up to 50 objects of field ({', '.join(FILTER_FIELDS)}), filter_type ({', '.join(FILTER_TYPES)}) "
            "and values (1 to 100 strings of up to 100 characters)"
        )
    if sum(len(each["values"]) for each in value) > MAX_FILTER_VALUES:
        return f"must have at most {MAX_FILTER_VALUES} values in all filters together"
    return filter_contradiction(value)


def _is_filter(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"field", "values", "filter_type"}:
        return False
    values = value["values"]
    are_texts = isinstance(values, list) and 1 <= len(values) <= 100 and all(map(_is_text, values))
    is_known = value["field"] in FILTER_FIELDS and value["filter_type"] in FILTER_TYPES
    return are_texts and is_known and all(len(text) <= 100 and text.strip() for text in values)


def _limits_problem(value: dict[Any, Any]) -> str:
    for scope, rates in value.items():
        if scope not in ("seat", "session") or not isinstance(rates, dict):
            return "must have the objects seat and session"
        for unit, rate in rates.items():
            if unit not in ("packets", "bytes") or not _is_whole(rate) or not 1 <= rate <= 2**31:
                return f"{scope} must have packets and bytes, whole numbers from 1 to 2147483648"
    return ""


SESSION_CHECKS: Mapping[str, Callable[[Any], str]] = {
    "dialects": _dialects_problem,
    "filters": _filters_problem,
    "limits": _limits_problem,
}


# -- a whole configuration file --------------------------------------------------------------------


def profiles_of(config: Any) -> dict[str, Any]:
    """Each profile of Edgegap's configuration file, with what the file says for all of them. Raises ProfileInvalid."""
    found = config.get("profiles") if isinstance(config, dict) else None
    if not isinstance(found, dict) or not 0 < len(found) <= MAX_PROFILES:
        raise ProfileInvalid([Problem("profiles", f"must be an object of 1 to {MAX_PROFILES} profiles by name")])
    known = {"version", "inspect", "allowed_cors_origins", "profiles", *SHARED}
    problems = [Problem(name, "is not a setting of a configuration file") for name in config.keys() - known]
    problems += [
        Problem(f"profiles.{name}", "is no name: letters, digits, _ . and -, up to 64")
        for name in found
        if not re.fullmatch(NAME, str(name))
    ]
    shared = {name: config[name] for name in SHARED if name in config}
    profiles = {
        name: {**shared, **profile} if isinstance(profile, dict) else profile for name, profile in found.items()
    }
    for name, profile in profiles.items():
        try:
            parse(profile)
        except ProfileInvalid as error:
            problems += [Problem(f"profiles.{name}.{problem.path}", problem.reason) for problem in error.problems]
    if problems:
        raise ProfileInvalid(sorted(problems, key=lambda problem: problem.path))
    return profiles


# -- a ticket's attributes -------------------------------------------------------------------------


def without_failed_pings(profile: Profile, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that `attribute_problems` accepts, without latencies of 0 and less: those are beacons that did not
    answer (EDGEGAP.md B1)."""
    if profile.latencies is None:
        return dict(attributes)
    measured = {beacon: ms for beacon, ms in attributes[profile.latencies].items() if ms > 0}
    return {**attributes, profile.latencies: measured}


def attribute_problems(profile: Profile, attributes: Mapping[str, Any]) -> list[Problem]:
    """What keeps these attributes from being matched: missing, surplus, of a wrong type or size (EDGEGAP.md M12)."""
    rules = profile.rules
    problems = [Problem(name, "is not an attribute of this profile") for name in sorted(attributes.keys() - rules)]
    for name, kind in sorted(rules.items()):
        reason = CHECKS[kind](attributes[name]) if name in attributes else "is missing"
        if reason:
            problems.append(Problem(name, reason))
    if not problems and len(json.dumps(attributes)) > MAX_ATTRIBUTES_BYTES:
        problems.append(Problem("", f"the attributes are longer than {MAX_ATTRIBUTES_BYTES} bytes of JSON"))
    return problems


def group_problems(profile: Profile, members: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """What keeps players whose attributes are each valid from being matched as one group."""
    problems = []
    if len(members) > profile.max_group:
        problems.append(Problem("", f"a team of this profile has at most {profile.max_group} players"))
    for name in profile.strings:
        if len({member[name] for member in members}) > 1:
            problems.append(Problem(name, "differs within the group"))
    for name in profile.stages[0].overlaps:
        overlap = min(stage.overlaps[name] for stage in profile.stages)
        if len(frozenset[str].intersection(*(frozenset(member[name]) for member in members))) < overlap:
            problems.append(Problem(name, f"the group has fewer than {overlap} values in common"))
    return problems


def _is_number(value: Any) -> bool:
    """Finite. An integer is not asked: one of 400 digits is no float."""
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT


def _number(value: Any) -> str:
    return "" if _is_number(value) and abs(value) <= LARGEST else f"must be a number from {-LARGEST:g} to {LARGEST:g}"


def _text(value: Any) -> str:
    return "" if _is_text(value) else f"must be a string of 1 to {MAX_TEXT} characters"


def _texts(value: Any) -> str:
    if isinstance(value, list) and 0 < len(value) <= MAX_VALUES and all(map(_is_text, value)):
        return ""
    return f"must be an array of 1 to {MAX_VALUES} strings of 1 to {MAX_TEXT} characters"


def _latencies(value: Any) -> str:
    """0 and less is a beacon that did not answer; no latency at all is a player who could measure none."""
    if not isinstance(value, dict) or len(value) > MAX_VALUES or not all(map(_is_text, value)):
        return f"must be an object of up to {MAX_VALUES} beacons and their milliseconds"
    if not all(_is_number(ms) and -LARGEST <= ms <= MAX_LATENCY for ms in value.values()):
        return f"every latency must be a number of milliseconds up to {MAX_LATENCY:g}"
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
