"""Strict reading of JSON that the other side wrote: whatever is accepted can be encoded again."""

import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_PATH = re.compile(r"\A(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?\Z", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `([A-Za-z0-9_]+)`")
_ENUM_VALUE = re.compile(r"(Invalid enum value).*", re.DOTALL)  # the value itself is left out


class InvalidDocument(ValueError):
    """A document breaks its definition. `field` names where, as in `seats[2].token`; empty: the document itself.

    The message starts with the field and repeats nothing of the document's values.
    """

    def __init__(self, problem: str, field: str = "") -> None:
        super().__init__(f"{field or 'the document'}: {problem}")
        self.field = field


def read_json(content: bytes | bytearray) -> Any:
    """Raises ValueError, which repeats nothing of the content: also for NaN and infinity, for numbers that no float can
    hold, for unpaired surrogates, which cannot be encoded, and for unbounded nesting. Integers may have any size."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("it is not JSON") from None


def read_document(data: object, kind: type[T]) -> T:
    """What `read_json` gave, as a struct. Raises InvalidDocument."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except RecursionError:
        raise InvalidDocument("is nested too deeply") from None
    except UnicodeEncodeError:
        raise InvalidDocument("holds an unpaired surrogate, which cannot be encoded") from None


def _invalid(text: str) -> InvalidDocument:
    found = _PATH.match(text)
    problem, path = (found["problem"], found["path"] or "") if found else (text, "")
    if missing := _MISSING.match(problem):
        return InvalidDocument("is missing", f"{path}.{missing[1]}" if path else missing[1])
    problem = _ENUM_VALUE.sub(r"\1", problem)
    return InvalidDocument(problem[:1].lower() + problem[1:], path)


def as_builtins(document: msgspec.Struct) -> dict[str, Any]:
    """The document as the other side reads it: dictionaries, lists and JSON's scalar types."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document))
    return found
