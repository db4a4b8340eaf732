"""What every operation's schema says of errors."""

from rest_framework import serializers


class ErrorSerializer(serializers.Serializer):
    message = serializers.CharField()
    code = serializers.CharField()
    details = serializers.DictField()


def error_responses(*statuses: int) -> dict[int, type[ErrorSerializer]]:
    """For extend_schema(responses=...). Those that any call with a key may get come by themselves."""
    return dict.fromkeys((*statuses, 401, 403, 429, 503), ErrorSerializer)
