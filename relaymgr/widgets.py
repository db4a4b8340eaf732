"""Django's fields of the admin, with names for those who hear the page instead of seeing it."""

from typing import Any

from django.contrib.admin.widgets import AdminSplitDateTime


class NamedDateTime(AdminSplitDateTime):
    """The one label of the two fields belongs to neither."""

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        for part, word in zip(context["widget"]["subwidgets"], ("Date", "Time"), strict=True):
            part["attrs"]["aria-label"] = word
        return context
