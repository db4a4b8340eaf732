"""The options of a profile for the sessions of its matches: those that the manager accepts, with the same limits.

The manager would refuse anything else at each match, so that no match could ever be played.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo, field_validator

from web.fields.session_options import filter_contradiction

from .values import filled_text, whole_within

IDLE_TIMEOUTS, MAX_LIFETIMES = range(10, 86_400 + 1), range(60, 86_400 + 1)  # seconds
DIALECTS = ("native", "edgegap")
MAX_DIALECTS, MAX_FILTERS, MAX_FILTER_VALUES = 10, 50, 500

Dialect = Literal["native", "edgegap"]
Rate = Annotated[int, PlainValidator(whole_within(range(1, 2**31 + 1)))]
FilterValue = Annotated[str, PlainValidator(filled_text(100))]


class StrictModel(BaseModel):
    # Built when it is used first: only some processes read profiles, and building takes a tenth of their start.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)


class Filter(StrictModel):
    field: Literal["location", "country", "continent", "region", "city", "tags"]
    values: list[FilterValue] = Field(min_length=1, max_length=100)
    filter_type: Literal["any", "all", "not"]


class Rates(StrictModel):
    packets: Rate | None = Field(default=None, validate_default=False)
    bytes: Rate | None = Field(default=None, validate_default=False)


class Limits(StrictModel):
    seat: Rates = Rates()
    session: Rates = Rates()


class SessionOptions(StrictModel):
    topology: Literal["host", "mesh"] = "host"
    objective: Literal["worst", "sum", "spread"] = "worst"
    idle_timeout: Annotated[int, PlainValidator(whole_within(IDLE_TIMEOUTS))] = IDLE_TIMEOUTS[0]
    max_lifetime: Annotated[int, PlainValidator(whole_within(MAX_LIFETIMES))] = MAX_LIFETIMES[-1]
    dialects: list[Dialect] = Field(default=[], min_length=1, max_length=MAX_DIALECTS)
    direct_mode: Literal["relay_only", "ask", "direct"] = "relay_only"
    filters: list[Filter] = Field(default=[], max_length=MAX_FILTERS)
    limits: Limits = Limits()

    @field_validator("direct_mode")
    @classmethod
    def has_native_players_only(cls, mode: str, info: ValidationInfo) -> str:
        if mode != "relay_only" and set(info.data.get("dialects", ("native",))) != {"native"}:
            raise ValueError('needs a session that admits the native dialect only: give "dialects": ["native"]')
        return mode

    @field_validator("filters")
    @classmethod
    def can_be_satisfied(cls, filters: list[Filter]) -> list[Filter]:
        if sum(len(each.values) for each in filters) > MAX_FILTER_VALUES:
            raise ValueError(f"must have at most {MAX_FILTER_VALUES} values in all filters together")
        if contradiction := filter_contradiction([each.model_dump() for each in filters]):
            raise ValueError(contradiction)
        return filters
