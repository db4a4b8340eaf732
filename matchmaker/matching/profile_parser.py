"""Configurations of profiles in, rules out; or every problem with its path and reason. Pure."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from web.fields.session_options import option_conflicts

from .profile_config import (
    HOSTS,
    Intersection,
    Latencies,
    NumberDifference,
    PlayerCount,
    ProfileConfig,
    Settings,
    problems_of,
)
from .rules import MAX_SEATS, NAT_RULE, Problem, Rules, Stage

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
MAX_PROFILES = 50  # in a configuration file
SHARED = ("max_deployment_retry_count",)  # settings that a configuration file has once for all of its profiles
AT = "rules.initial"


class ProfileInvalid(ValueError):
    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.path)
        super().__init__("; ".join(f"{problem.path}: {problem.reason}" for problem in self.problems))


def parse(config: Any) -> Rules:
    """Raises ProfileInvalid, with every problem and not just the first."""
    _refuse_configuration_file(config)
    try:
        profile = ProfileConfig.model_validate(config)
    except ValidationError as error:
        raise ProfileInvalid(problems_of(error)) from None
    session = dict(config.get("session", {}))
    problems = [Problem(f"session.{path}", reason) for path, reason in option_conflicts(session)]
    problems += _host_problems(profile)
    problems += _nat_problems(profile)
    stages = _stages(profile, problems)
    if problems:
        raise ProfileInvalid(problems)
    initial = profile.rules.initial
    return Rules(
        stages=tuple(stages),
        latencies=next((name for name, rule in initial.items() if rule.type == "latencies"), None),
        strings=tuple(name for name, rule in initial.items() if rule.type == "string_equality"),
        expiration=profile.ticket_expiration_period,
        removal=profile.ticket_removal_period,
        group_inactivity=profile.group_inactivity_removal_period,
        max_retries=profile.max_deployment_retry_count,
        host=profile.host,
        session=session,
    )


def _refuse_configuration_file(config: Any) -> None:
    if isinstance(config, dict) and isinstance(config.get("profiles"), dict):
        names = ", ".join(map(repr, sorted(map(str, config["profiles"]))[:20])) or "there are none"
        reason = f"this is a whole configuration file: give one of its profiles ({names}), or import it as a whole"
        raise ProfileInvalid([Problem("profiles", reason)])


def _host_problems(profile: ProfileConfig) -> Iterator[Problem]:
    if profile.host == HOSTS[1] and not any(rule.type == "latencies" for rule in profile.rules.initial.values()):
        yield Problem("host", "best_connected has no effect without a rule of type latencies")


def _nat_problems(profile: ProfileConfig) -> Iterator[Problem]:
    rule = profile.rules.initial.get(NAT_RULE)
    if rule is not None and rule.type != "number_difference":
        yield Problem(f"{AT}.{NAT_RULE}.type", "must be number_difference, which compares the classes of NATs")


def _stages(profile: ProfileConfig, problems: list[Problem]) -> list[Stage]:
    """The rules as they are at first, and after each expansion."""
    settings: dict[str, Settings] = {name: rule.attributes for name, rule in profile.rules.initial.items()}
    problems += _team_problems(settings, AT)
    stages = [_stage(0.0, settings)]
    for seconds, key in sorted(_times(profile, problems)):
        path = f"rules.expansions.{key}"
        found = len(problems)
        for name, change in profile.rules.expansions[key].items():
            if name in settings:
                settings[name] = _changed(settings[name], change, ("rules", "expansions", key, name), problems)
            else:
                problems.append(Problem(f"{path}.{name}", "is not a rule of rules.initial"))
        problems += _team_problems(settings, path)
        before, stage = stages[-1], _stage(seconds, settings, stages[0].min_team_size)
        is_same = replace(stage, since=before.since, accepts_smaller=before.accepts_smaller) == before
        if is_same and len(problems) == found:
            problems.append(Problem(path, "changes nothing"))
        stages.append(stage)
    problems += _latency_problems(settings, stages)
    return stages


def _times(profile: ProfileConfig, problems: list[Problem]) -> Iterator[tuple[float, str]]:
    for key in profile.rules.expansions:
        if not re.fullmatch(r"[1-9]\d{0,5}", key):
            problems.append(Problem(f"rules.expansions.{key}", "must be named by a whole number of seconds"))
        elif float(key) >= profile.ticket_expiration_period:
            problems.append(Problem(f"rules.expansions.{key}", "comes after the ticket has expired"))
        else:
            yield float(key), key


def _changed(
    settings: Settings, change: Mapping[str, Any], location: tuple[str, ...], problems: list[Problem]
) -> Settings:
    """The settings after the expansion; as they were, where that is not valid."""
    try:
        return type(settings).model_validate({**settings.model_dump(exclude_none=True), **change})
    except ValidationError as error:
        problems += problems_of(error, location)
        return settings


def _team_problems(settings: Mapping[str, Settings], path: str) -> Iterator[Problem]:
    for name, count in settings.items():
        if isinstance(count, PlayerCount):
            if count.min_team_size > count.max_team_size:
                yield Problem(f"{path}.{name}", "min_team_size is above max_team_size")
            if not 2 <= count.team_count * count.max_team_size <= MAX_SEATS:
                yield Problem(f"{path}.{name}", f"a full match must have 2 to {MAX_SEATS} players")


def _latency_problems(settings: Mapping[str, Settings], stages: list[Stage]) -> Iterator[Problem]:
    for name, each in settings.items():
        if isinstance(each, Latencies) and (each.default_latency or 0) > max(stage.max_latency for stage in stages):
            yield Problem(f"{AT}.{name}.attributes.default_latency", "is above every max_latency: no match is possible")


def _stage(since: float, settings: Mapping[str, Settings], first_min_team_size: int = 0) -> Stage:
    [count] = [each for each in settings.values() if isinstance(each, PlayerCount)]
    latencies = next((each for each in settings.values() if isinstance(each, Latencies)), None)
    max_latency = latencies.max_latency if latencies else math.inf
    default_latency = latencies.default_latency if latencies else None
    return Stage(
        since=since,
        team_count=count.team_count,
        min_team_size=count.min_team_size,
        max_team_size=count.max_team_size,
        difference=latencies.difference if latencies else math.inf,
        max_latency=max_latency,
        numbers={n: each.max_difference for n, each in settings.items() if isinstance(each, NumberDifference)},
        overlaps={n: each.overlap for n, each in settings.items() if isinstance(each, Intersection)},
        default_latency=max_latency / 2 if default_latency is None else default_latency,
        accepts_smaller=count.min_team_size < first_min_team_size,
    )


def profiles_of_file(config: Any) -> dict[str, Any]:
    """Each profile of an Edgegap configuration file, with the settings that the file has for all of them. Raises
    ProfileInvalid."""
    found = config.get("profiles") if isinstance(config, dict) else None
    if not isinstance(found, dict) or not 0 < len(found) <= MAX_PROFILES:
        raise ProfileInvalid([Problem("profiles", f"must be an object of 1 to {MAX_PROFILES} profiles by name")])
    known = {"version", "inspect", "allowed_cors_origins", "profiles", *SHARED}
    problems = [Problem(name, "is not a setting of a configuration file") for name in config.keys() - known]
    problems += [
        Problem(f"profiles.{name}", "is not a name: up to 64 letters, digits, _, . and -")
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
        raise ProfileInvalid(problems)
    return profiles


def differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, before, after) of each leaf in which two configurations differ; None where one has none."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from differences(before.get(name), after.get(name), f"{path}.{name}" if path else name)
    elif before != after:
        yield path, before, after
