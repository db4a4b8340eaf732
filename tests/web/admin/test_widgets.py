from typing import Any

import pytest
from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError

from relaymgr.nodes.models import Location, RelayNode
from web.admin.widgets import AnyAutocomplete, FilledJSON, NamedDateTime


@pytest.mark.parametrize("given", ["", "null"])
@pytest.mark.parametrize(("initial", "expected"), [(dict, {}), ({"a": 1}, {"a": 1})])
def test_an_empty_json_field_becomes_the_default(given: str, initial: Any, expected: Any) -> None:
    assert FilledJSON(initial=initial, required=False).clean(given) == expected


def test_json_that_is_given_is_kept() -> None:
    field = FilledJSON(initial=dict, required=False)
    assert field.clean("[]") == []
    with pytest.raises(ValidationError):
        field.clean("{")


@pytest.mark.django_db
@pytest.mark.parametrize("choice", ["9" * 30, "not a number"])
def test_a_choice_that_cannot_be_a_primary_key_leaves_the_form_empty(choice: str, node: RelayNode) -> None:
    widget = AnyAutocomplete(RelayNode._meta.get_field("location"), admin.site)
    field = forms.ModelChoiceField(Location.objects.all(), widget=widget)
    assert f'<option value="{node.location_id}" selected>' in field.widget.render("location", str(node.location_id))
    shown = field.widget.render("location", choice)
    assert "<select" in shown and "selected" not in shown


def test_each_input_of_a_time_has_a_name() -> None:
    shown = NamedDateTime().render("until", None)
    assert 'aria-label="Date"' in shown and 'aria-label="Time"' in shown
