"""The explanation of a placement as it was stored, also by another version of the manager, in today's shape. Pure."""

from typing import Any, TypeVar

from msgspec import UNSET, Struct, ValidationError, convert, field, structs, to_builtins

UNKNOWN_RULE = "unknown: another version of the manager placed the session"


class Term(Struct):
    name: str = ""
    ms: float | None = None
    reason: str = ""


class Tie(Struct):
    name: str = ""
    ms: float = 0.0


class Estimate(Struct):
    seat: int = 0
    ms: float = 0.0
    uncertainty_ms: float = 0.0
    source: str = "unknown"
    age_s: float | None = None
    jitter_ms: float = 0.0
    loss: float = 0.0


class Candidate(Struct):
    node: str = ""
    location: str = ""
    place: dict[str, Any] = {}
    state: str = ""
    free_seats: int = 0
    load: float = 0.0
    load_age_s: float | None = None
    price: float = 0.0
    address_families: list[str] = []
    cost: float | None = None
    terms: list[Term] = []
    tie_breakers: list[Tie] = []
    excluded_by: list[str] = []
    fallback_reasons: list[str] = []
    estimates: list[Estimate] = []


class Filter(Struct):
    field: str = ""
    values: list[str] = []
    filter_type: str = "any"


class Constraints(Struct):
    pin: list[str] = []
    ban: list[str] = []
    prefer: list[str] = []


class Unlisted(Struct):
    usable: int = 0
    excluded: int = 0


class Excluded(Struct):
    reason: str = ""
    count: int = 0
    nodes: list[str] = []


class Alternative(Struct):
    node: str = ""
    condition: str = ""


class Attempt(Struct):
    node: str = ""
    worker: int = 0
    outcome: str = ""
    ms: float = 0.0


class Explanation(Struct):
    topology: str = ""
    objective: str = ""
    filters: list[Filter] = []
    constraints: Constraints = field(default_factory=Constraints)
    current: str | None = None
    players: int = 0
    address_families: list[str] = []
    policy: dict[str, float] = {}
    considered_nodes: list[Candidate] = []
    unlisted_nodes: Unlisted = field(default_factory=Unlisted)
    excluded: list[Excluded] = []
    fallback_tier: str | None = None
    decided_by: str = UNKNOWN_RULE
    alternatives: list[Alternative] = []
    attempts: list[Attempt] = []
    chosen: str | None = None


S = TypeVar("S", bound=Struct)


def completed(document: Any) -> dict[str, Any]:
    """What is missing is empty, and so is each part that has another shape today. {} for what was never placed."""
    if not document or not isinstance(document, dict):
        return {}
    found: dict[str, Any] = to_builtins(_read(document, Explanation))
    return found


def _read(document: dict[str, Any], shape: type[S]) -> S:
    found = shape()
    for part in structs.fields(shape):
        value = document.get(part.encode_name, UNSET)
        if value is not UNSET:
            try:
                setattr(found, part.name, convert(value, part.type))
            except ValidationError:
                continue
    return found
