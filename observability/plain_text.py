"""Makes text from players, studios and nodes safe to display: it cannot change how the text around it appears.

Control characters can move a terminal's cursor or forge a log line. Bidirectional control characters can reorder the
text beside them, so that the name of an executable reads like that of a picture. Both are shown as escapes.
Right-to-left text is isolated. This module needs only the standard library.
"""

import re
import unicodedata

BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
ISOLATE, END = "\u2068", "\u2069"  # FIRST STRONG ISOLATE, POP DIRECTIONAL ISOLATE

_bidi = re.compile(f"[{BIDI}]")
# The bidirectional control characters, and all that are invisible, break a line or are half of a surrogate pair.
_unsafe = re.compile(f"[\x00-\x1f\x7f-\x9f{BIDI}\u200b-\u200d\u2028\u2029\u2060-\u2065\ufeff\ud800-\udfff]")
_unsafe_but_lines = re.compile(_unsafe.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def visible(text: str, *, lines: bool = False) -> str:
    """Replace control, bidirectional and invisible characters by escapes such as \\x1b and \\u202e. With `lines`, tabs
    and line feeds are kept."""
    return (_unsafe_but_lines if lines else _unsafe).sub(_escape, text)


def without_bidi_controls(text: str) -> str:
    """Replace only the bidirectional control characters by escapes."""
    return _bidi.sub(_escape, text)


def may_reorder(text: str) -> bool:
    """Whether the text could reorder the text beside it: it has right-to-left or bidirectional control characters."""
    if text.isascii():
        return False
    return bool(_bidi.search(text)) or any(unicodedata.bidirectional(each) in ("R", "AL", "AN") for each in text)


def isolated(text: str) -> str:
    """The text for places without markup, such as a terminal or a page title."""
    shown = visible(text)
    return f"{ISOLATE}{shown}{END}" if may_reorder(shown) else shown


def _escape(found: "re.Match[str]") -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
