"""The configuration of one profile: what may be written where, and every deviation from it. Pure.

The form is Edgegap's (EDGEGAP.md 5.4, 5.5) for one profile, with `host` and `session` added:

    {"ticket_expiration_period": "5m", "ticket_removal_period": "1m", "group_inactivity_removal_period": "5m",
     "max_deployment_retry_count": 3, "host": "best_connected", "session": {"topology": "host", "idle_timeout": 120},
     "rules": {"initial": {"match_size": {"type": "player_count", "attributes": {"team_count": 2, ...}},
                           "elo": {"type": "number_difference", "attributes": {"max_difference": 50}}},
               "expansions": {"30": {"elo": {"max_difference": 150}}}}}

The name of a rule is the name of the attribute that a ticket has for it. An expansion overwrites settings of rules for
tickets that have waited that many seconds.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from web.http.origins import origins_problem

from .rules import MAX_ATTRIBUTES, MAX_VALUES, SMALLEST, Problem
from .session_options import SessionOptions, StrictModel
from .values import number, period, whole_within

MIN_EXPIRATION = 1.0  # seconds: a ticket that expires before the next pass over its pool is never matched
HOSTS = ("longest_waiting", "best_connected")

Size = Annotated[int, PlainValidator(number(1, whole=True))]
Difference = Annotated[float, PlainValidator(number(0))]
Latency = Annotated[float, PlainValidator(number(SMALLEST))]
Period = Annotated[float, PlainValidator(period)]


# What each type of rule is set by. The names of the settings are Edgegap's, but default_latency.


class PlayerCount(StrictModel):
    team_count: Size
    min_team_size: Size
    max_team_size: Size


class Latencies(StrictModel):
    difference: Difference
    max_latency: Latency
    default_latency: Latency | None = Field(default=None, validate_default=False)


class NumberDifference(StrictModel):
    max_difference: Difference


class StringEquality(StrictModel):
    pass


class Intersection(StrictModel):
    overlap: Annotated[int, PlainValidator(number(1, MAX_VALUES, whole=True))]


Settings = PlayerCount | Latencies | NumberDifference | StringEquality | Intersection


class _Rule(StrictModel):
    @model_validator(mode="before")
    @classmethod
    def with_attributes(cls, rule: Any) -> Any:
        """A rule without settings may leave `attributes` out; `team_size` is the older name of both sizes."""
        if not isinstance(rule, dict):
            return rule
        attributes = rule.get("attributes") or {}
        if rule.get("type") == "player_count" and isinstance(attributes, dict) and "team_size" in attributes:
            size = attributes["team_size"]
            others = {name: value for name, value in attributes.items() if name != "team_size"}
            attributes = {**others, "min_team_size": size, "max_team_size": size}
        return {**rule, "attributes": attributes}


class PlayerCountRule(_Rule):
    type: Literal["player_count"]
    attributes: PlayerCount


class LatenciesRule(_Rule):
    type: Literal["latencies"]
    attributes: Latencies


class NumberDifferenceRule(_Rule):
    type: Literal["number_difference"]
    attributes: NumberDifference


class StringEqualityRule(_Rule):
    type: Literal["string_equality"]
    attributes: StringEquality


class IntersectionRule(_Rule):
    type: Literal["intersection"]
    attributes: Intersection


Rule = Annotated[
    PlayerCountRule | LatenciesRule | NumberDifferenceRule | StringEqualityRule | IntersectionRule,
    Field(discriminator="type"),
]
TYPES = ("player_count", "latencies", "number_difference", "string_equality", "intersection")


class RulesConfig(StrictModel):
    initial: dict[str, Rule]
    expansions: dict[str, dict[str, dict[str, Any]]] = {}

    @field_validator("initial")
    @classmethod
    def has_each_singleton_once(cls, initial: dict[str, Rule]) -> dict[str, Rule]:
        if len(initial) > MAX_ATTRIBUTES:
            raise ValueError(f"has more than {MAX_ATTRIBUTES} rules")
        types = [rule.type for rule in initial.values()]
        if (found := types.count("player_count")) != 1:
            raise ValueError(f"needs exactly one rule of type player_count and has {found}")
        if (found := types.count("latencies")) > 1:
            raise ValueError(f"needs at most one rule of type latencies and has {found}")
        return initial


class ProfileConfig(StrictModel):
    rules: RulesConfig
    ticket_expiration_period: Period = 300.0
    ticket_removal_period: Period = 60.0
    group_inactivity_removal_period: Period = 300.0
    max_deployment_retry_count: Annotated[int, PlainValidator(whole_within(range(11)))] = 3
    host: Literal["longest_waiting", "best_connected"] = "longest_waiting"
    session: SessionOptions = SessionOptions()
    allowed_cors_origins: list[str] = []
    application: Any = None  # of an Edgegap configuration; it has no meaning here

    @field_validator("ticket_expiration_period")
    @classmethod
    def is_seen_by_a_pass(cls, seconds: float) -> float:
        if seconds < MIN_EXPIRATION:
            raise ValueError(f"must be at least {MIN_EXPIRATION:g} s, so that a pass considers the ticket")
        return seconds

    @field_validator("allowed_cors_origins", mode="before")
    @classmethod
    def are_origins(cls, origins: Any) -> Any:
        if problem := origins_problem(origins):
            raise ValueError(problem)
        return origins


def problems_of(error: ValidationError, under: tuple[str, ...] = ()) -> list[Problem]:
    """The errors of pydantic, each with its path in the configuration and a reason."""
    return [_problem(each, under) for each in error.errors(include_url=False)]


def _problem(error: ErrorDetails, under: tuple[str, ...]) -> Problem:
    location = [*under, *error["loc"]]
    if location[:2] == ["rules", "initial"] and len(location) > 3:
        del location[3]  # the type of the rule, by which pydantic chose the model
    if error["type"].startswith("union_tag"):
        location.append("type")
    location = [part for part in location if part != "[key]"]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
    return Problem(path or "config", _reason(error, location))


def _reason(error: ErrorDetails, location: list[int | str]) -> str:
    context: Mapping[str, Any] = error.get("ctx") or {}
    match error["type"]:
        case "value_error":
            return str(context["error"])
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return _reason_of_unknown(location, error["loc"])
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be an object"
        case "literal_error":
            return f"must be {_listed(context['expected'])}"
        case "union_tag_invalid" | "union_tag_not_found":
            return f"must be one of {', '.join(TYPES)}"
        case "list_type":
            return "must be an array"
        case "too_short" | "too_long":
            length = "min_length" if error["type"] == "too_short" else "max_length"
            return f"must have at {'least' if length == 'min_length' else 'most'} {context[length]} items"
        case "string_unicode":
            return "must be valid Unicode"
        case _:
            return error["msg"]


def _listed(expected: str) -> str:
    """Of pydantic's list: 'a', 'b' or 'c'."""
    names = expected.replace(" or ", ", ").replace("'", "")
    return f"one of {names}" if "," in names else names


def _reason_of_unknown(location: list[int | str], loc: tuple[int | str, ...]) -> str:
    match location:
        case [_]:
            return "is not a setting of a profile"
        case ["rules", _]:
            return "is not known here; rules has initial and expansions"
        case ["rules", "initial", _, _]:
            return "is not known here; a rule has type and attributes"
        case ["rules", "initial", _, "attributes", _]:
            return f"is not a setting of {loc[3]}"
        case ["session", _]:
            return f"is not one of {', '.join(SessionOptions.model_fields)}"
        case _:
            return "is not a setting of this object"
