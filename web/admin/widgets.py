"""Form fields and widgets for the admin that have labels for screen readers and accept any input without an error."""

from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminSplitDateTime, AutocompleteSelect
from django.core.exceptions import ValidationError


class FilledJSON(forms.JSONField):
    """Nothing, and null, stand for the default of the column, which cannot be null."""

    def clean(self, value: Any) -> Any:
        found = super().clean(value)
        if found is not None:
            return found
        return self.initial() if callable(self.initial) else self.initial


class AnyAutocomplete(AutocompleteSelect):
    """Shows a form again whose choice is a primary key that cannot exist; Django's own widget fails."""

    def optgroups(self, name: str, value: Any, attr: Any = None) -> Any:
        return super().optgroups(name, [each for each in value if self._may_be_a_row(each)], attr)

    def _may_be_a_row(self, value: Any) -> bool:
        if value in ("", None):
            return True
        try:
            number = self.field.remote_field.model._meta.pk.to_python(value)
        except ValidationError:
            return False
        return not isinstance(number, int) or number.bit_length() < 64


class NamedDateTime(AdminSplitDateTime):
    """Labels each of the two input fields; Django's one label belongs to neither."""

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        for part, word in zip(context["widget"]["subwidgets"], ("Date", "Time"), strict=True):
            part["attrs"]["aria-label"] = word
        return context
