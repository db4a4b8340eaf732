from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from nodeapi.strict_json import InvalidDocument, as_builtins, read_document, read_json


class Inner(Struct):
    size: Annotated[int, Meta(ge=0, le=9)]


class Outer(Struct):
    items: tuple[Inner, ...]
    kind: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    "content", [b"", b"NaN", b"[1e999]", b"-Infinity", b'"\\ud800"', b"\xff", b"[" * 100_000, b'{"a": 1,}', b"1 2"]
)
def test_what_could_not_be_encoded_again_is_no_json(content: bytes) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        read_json(content)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ([], ""),
        ({}, "items"),
        ({"items": 5}, "items"),
        ({"items": [{"size": 1}, {}]}, "items[1].size"),
        ({"items": [5]}, "items[0]"),
        ({"items": [{"size": 10}]}, "items[0].size"),
        ({"items": [{"size": True}]}, "items[0].size"),
        ({"items": [{"size": 1.0}]}, "items[0].size"),
        ({"items": [], "kind": "other"}, "kind"),
    ],
)
def test_an_invalid_document_names_the_field(data: object, field: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        read_document(data, Outer)
    assert caught.value.field == field
    assert str(caught.value).startswith(field or "the document")


def test_the_message_repeats_no_value() -> None:
    for data in ({"items": [], "kind": "secret"}, {"items": ["secret"]}, {"items": "secret"}):
        with pytest.raises(InvalidDocument) as caught:
            read_document(data, Outer)
        assert "secret" not in str(caught.value)


def test_unknown_fields_are_ignored() -> None:
    assert read_document({"items": [], "later": 5}, Outer) == Outer(())


def test_a_document_becomes_what_the_other_side_reads() -> None:
    assert as_builtins(Outer((Inner(5),))) == {"items": [{"size": 5}], "kind": "a"}
