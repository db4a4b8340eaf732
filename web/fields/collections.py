"""Lists and objects in requests whose length is checked before their elements are.

Django REST framework checks every element first: a megabyte of them costs a large part of a second, and is refused
only then.
"""

from typing import Any

from rest_framework import serializers


class BoundedList(serializers.ListField):
    """`max_length`: elements."""

    def __init__(self, *, max_length: int, **options: Any) -> None:
        super().__init__(max_length=max_length, **options)

    def to_internal_value(self, data: Any) -> list[Any]:
        if isinstance(data, list) and self.max_length is not None and len(data) > self.max_length:
            raise serializers.ValidationError(f"Give at most {self.max_length} elements.", "max_length")
        return super().to_internal_value(data)


class BoundedDict(serializers.DictField):
    """`max_length`: entries; `max_name`: characters of each name."""

    def __init__(self, *, max_length: int, max_name: int, **options: Any) -> None:
        super().__init__(**options)
        self.max_length, self.max_name = max_length, max_name

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, dict) and (len(data) > self.max_length or any(len(name) > self.max_name for name in data)):
            message = f"Give at most {self.max_length}, with names of at most {self.max_name} characters."
            raise serializers.ValidationError(message, "max_length")
        return super().to_internal_value(data)
