"""Text of players, studios and nodes as an operator may see it: nothing in it acts on what stands around it.

Control characters move a terminal's cursor or forge a line of a log. Bidirectional ones turn the text beside them
round, so that an executable's name reads as a picture's, and an address as another one. Both are shown as escapes. Text
that is written from right to left is isolated. Standard library only.
"""

import re
import unicodedata

BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
ISOLATE, END = "\u2068", "\u2069"  # FIRST STRONG ISOLATE, POP DIRECTIONAL ISOLATE

_bidi = re.compile(f"[{BIDI}]")
# Beside them what cannot be seen at all, breaks a line or is half of a character.
_unsafe = re.compile(f"[\x00-\x1f\x7f-\x9f{BIDI}\u200b-\u200d\u2028\u2029\u2060-\u2065\ufeff\ud800-\udfff]")
_unsafe_but_lines = re.compile(_unsafe.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def visible(text: str, *, lines: bool = False) -> str:
    """Control, bidirectional and invisible characters as escapes such as \\x1b and \\u202e; with `lines` all but tabs
    and ends of lines."""
    return (_unsafe_but_lines if lines else _unsafe).sub(_escape, text)


def without_bidi_controls(text: str) -> str:
    """The bidirectional control characters alone as escapes."""
    return _bidi.sub(_escape, text)


def may_reorder(text: str) -> bool:
    """Whether it could change the order of what stands beside it: it is written from right to left, or says so."""
    if text.isascii():
        return False
    return bool(_bidi.search(text)) or any(unicodedata.bidirectional(each) in ("R", "AL", "AN") for each in text)


def isolated(text: str) -> str:
    """For where there is no markup: a terminal, a title."""
    shown = visible(text)
    return f"{ISOLATE}{shown}{END}" if may_reorder(shown) else shown


def _escape(found: "re.Match[str]") -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
