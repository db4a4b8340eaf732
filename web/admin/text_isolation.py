"""Isolation of bidirectional text in the console: a template loader adds a filter to the variables of every template.

A variable in the text of a page (`<td>{{ seat.player_id }}</td>`) gets the filter `bdi`, which wraps text that could
reorder its surroundings in <bdi>. In a title or an option, which cannot contain markup, it gets `bdi_plain`. This also
covers Django's own templates. Variables inside a tag, a script or a translated block are unchanged. In markup that was
built in Python, bidirectional control characters are made visible.
"""

import re
from typing import Any

from django import template
from django.template.base import tag_re
from django.template.loaders import app_directories
from django.utils.html import escape
from django.utils.safestring import SafeData, SafeString, mark_safe

from observability.plain_text import isolated, may_reorder, without_bidi_controls

register = template.Library()

PLAIN = ("title", "option", "textarea")  # elements that can contain only text
RAW = ("script", "style")
_MARKUP = re.compile(r"<!--.*?-->|<(/?[a-zA-Z][\w-]*)?|>", re.DOTALL)
_BLOCK = re.compile(r"\{%\s*(end)?(blocktranslate|blocktrans|comment|verbatim)\b")


@register.filter
def bdi(value: Any) -> Any:
    """Wraps text that could reorder its surroundings in <bdi>."""
    return _isolated(value, lambda text: mark_safe(f"<bdi>{escape(without_bidi_controls(text))}</bdi>"))  # noqa: S308  # nosec


@register.filter
def bdi_plain(value: Any) -> Any:
    return _isolated(value, isolated)


def _isolated(value: Any, isolate: Any) -> Any:
    if hasattr(value, "__html__") and not isinstance(value, str):
        return value  # a form or a field renders itself, and its values are sent back unchanged
    text = str(value)
    if not may_reorder(text):
        return value
    if not isinstance(value, SafeData):
        return isolate(text)
    if "<input" in text or "<textarea" in text:
        return value
    return SafeString(without_bidi_controls(text))  # nosec B703 B308 - `value` was safe already


class Loader(app_directories.Loader):
    def get_contents(self, origin: Any) -> str:
        return rewritten(super().get_contents(origin))


def rewritten(source: str) -> str:
    """The template's source with the filter added to each variable in text."""
    position, block = _Position(), ""
    parts = []
    for part in tag_re.split(source):
        if found := _BLOCK.match(part):
            block = "" if found[1] else found[2]
        elif part.startswith("{{") and not block:
            part = _with_filter(part, position)
        elif not part.startswith(("{%", "{#", "{{")) and not block:
            position.advance(part)
        parts.append(part)
    return "".join(parts)


def _with_filter(variable: str, position: "_Position") -> str:
    if position.is_in_tag or position.element in RAW:
        return variable
    return f"{{{{ {variable[2:-2].strip()}|{'bdi_plain' if position.element in PLAIN else 'bdi'} }}}}"


class _Position:
    """The position in the HTML: inside a tag, or inside one of the elements PLAIN and RAW."""

    def __init__(self) -> None:
        self.is_in_tag = False
        self.element = ""

    def advance(self, text: str) -> None:
        for found in _MARKUP.finditer(text):
            name = (found[1] or "").lower()
            if found[0].startswith("<!--"):
                continue
            if found[0] == ">":
                self.is_in_tag = False
            elif name:
                self.is_in_tag = True
                if name in (*PLAIN, *RAW):
                    self.element = name
                elif name == f"/{self.element}":
                    self.element = ""
