import pytest

from nodeapi.ids import SessionId, is_session_id
from nodeapi.strict_json import InvalidDocument, read_document


def test_twelve_hexadecimal_digits_and_a_suffix_are_a_session_id() -> None:
    assert is_session_id("3960c873aafd-S")
    assert read_document("3960c873aafd-S", SessionId) == "3960c873aafd-S"


@pytest.mark.parametrize(
    "text", ["", "3960C873AAFD-S", "3960c873aafd", "3960c873aafd-S\n", " 3960c873aafd-S", "3960c873aafd-s", "x" * 14]
)
def test_anything_else_is_none_for_both_forms_of_the_check(text: str) -> None:
    assert not is_session_id(text)
    with pytest.raises(InvalidDocument):
        read_document(text, SessionId)
