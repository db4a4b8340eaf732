from typing import Any, NoReturn

from rest_framework import serializers


class Choice(serializers.ChoiceField):
    """A choice whose error names what there is to choose from."""

    default_error_messages = {"invalid_choice": '"{input}" is not one of: {choices}.'}

    def fail(self, key: str, **values: Any) -> NoReturn:
        super().fail(key, choices=", ".join(map(str, self.choices)), **values)
