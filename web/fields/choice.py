from typing import Any, NoReturn

from rest_framework import serializers


class Choice(serializers.ChoiceField):
    """A choice whose error message lists the valid values."""

    default_error_messages = {"invalid_choice": '"{input}" is not one of: {choices}.'}

    def fail(self, key: str, **values: Any) -> NoReturn:
        super().fail(key, choices=", ".join(map(str, self.choices)), **values)
