from typing import Any

import pytest
from rest_framework import serializers

from web.fields.collections import BoundedDict, BoundedList


class Never(serializers.Field):
    def to_internal_value(self, data: Any) -> Any:
        raise AssertionError("an element was checked")


class Form(serializers.Serializer):
    numbers = BoundedList(child=serializers.IntegerField(), max_length=3, required=False)
    named = BoundedDict(child=serializers.IntegerField(), max_length=2, max_name=5, required=False)
    untouched_list = BoundedList(child=Never(), max_length=3, required=False)
    untouched_dict = BoundedDict(child=Never(), max_length=2, max_name=5, required=False)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"untouched_list": [1] * 4}, "untouched_list"),
        ({"untouched_dict": dict.fromkeys("abc", 1)}, "untouched_dict"),
        ({"untouched_dict": {"a longer name": 1}}, "untouched_dict"),
    ],
)
def test_the_length_is_checked_before_any_element(data: dict[str, Any], field: str) -> None:
    form = Form(data=data)
    assert not form.is_valid()
    assert [error.code for error in form.errors[field]] == ["max_length"]


def test_elements_are_checked_within_the_length() -> None:
    form = Form(data={"numbers": [1, 2, 3], "named": {"a": 1, "five5": 2}})
    assert form.is_valid()
    assert form.validated_data == {"numbers": [1, 2, 3], "named": {"a": 1, "five5": 2}}
    assert not Form(data={"numbers": ["x"]}).is_valid()
    assert not Form(data={"named": {"a": "x"}}).is_valid()
    assert not Form(data={"numbers": {"a": 1}}).is_valid()
