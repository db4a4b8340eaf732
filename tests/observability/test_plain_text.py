"""Text from outside that is shown to operators."""

import pytest

from observability.plain_text import isolated, may_reorder, visible, without_bidi_controls

EVIL = "x\u202egnp.exe"
HEBREW = "\u05d0\u05d1\u05d2"


def test_plain_text() -> None:
    assert visible("a\tb\nc", lines=True) == "a\tb\nc"
    assert visible("a\rb", lines=True) == "a\\x0db"
    assert isolated("Zoë") == "Zoë"
    assert may_reorder(HEBREW) and may_reorder(EVIL) and not may_reorder("Zoë 日本 🎮")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("one\u2028two", "one\\u2028two"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("half \ud800", "half \\ud800"),
        (EVIL, "x\\u202egnp.exe"),
        (HEBREW, HEBREW),
    ],
)
def test_characters_that_cannot_be_seen_are_shown_as_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_only_bidirectional_controls_can_be_escaped_alone() -> None:
    assert without_bidi_controls(f"a\n{EVIL}") == "a\nx\\u202egnp.exe"


def test_right_to_left_text_is_isolated() -> None:
    assert isolated(HEBREW) == f"\u2068{HEBREW}\u2069"
    assert isolated(EVIL) == "x\\u202egnp.exe", "an escape needs no isolation"
