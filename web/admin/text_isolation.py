"""The console isolates all text from outside, by one mechanism: templates are rewritten as they are loaded.

A variable in the text of a page (`<td>{{ seat.player_id }}</td>`) passes the filter `bdi`, which puts what could change
the order of the text around it into <bdi>; in a title or an option, where there is no markup, the filter `bdi_plain`.
So no template has to think of it, Django's own included. Variables inside a tag, a script or a translated block are
left as they are. What Python has put together as markup has its bidirectional control characters made visible.
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

PLAIN = ("title", "option", "textarea")  # elements that hold text alone
RAW = ("script", "style")
_MARKUP = re.compile(r"<!--.*?-->|<(/?[a-zA-Z][\w-]*)?|>", re.DOTALL)
_BLOCK = re.compile(r"\{%\s*(end)?(blocktranslate|blocktrans|comment|verbatim)\b")


@register.filter
def bdi(value: Any) -> Any:
    """<bdi> around what could reorder its surroundings; all else as it is."""
    return _isolated(value, lambda text: mark_safe(f"<bdi>{escape(without_bidi_controls(text))}</bdi>"))  # noqa: S308  # nosec


@register.filter
def bdi_plain(value: Any) -> Any:
    return _isolated(value, isolated)


def _isolated(value: Any, isolate: Any) -> Any:
    if hasattr(value, "__html__") and not isinstance(value, str):
        return value  # a form or a field: it renders itself, and what it shows is what it sends back
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
    """The template's source with the filter at each variable in text."""
    place, block = _Place(), ""
    parts = []
    for part in tag_re.split(source):
        if found := _BLOCK.match(part):
            block = "" if found[1] else found[2]
        elif part.startswith("{{") and not block:
            part = _with_filter(part, place)
        elif not part.startswith(("{%", "{#", "{{")) and not block:
            place.read(part)
        parts.append(part)
    return "".join(parts)


def _with_filter(variable: str, place: "_Place") -> str:
    if place.is_in_tag or place.element in RAW:
        return variable
    return f"{{{{ {variable[2:-2].strip()}|{'bdi_plain' if place.element in PLAIN else 'bdi'} }}}}"


class _Place:
    """Where in the HTML the source has come to."""

    def __init__(self) -> None:
        self.is_in_tag = False
        self.element = ""  # one of PLAIN or RAW that is open

    def read(self, text: str) -> None:
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
