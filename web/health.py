"""The answer of /monitor, in the shape that Edgegap's SDKs read (EDGEGAP.md 5.2): the components are counted."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from .fields.numbers import Count


class HealthSerializer(serializers.Serializer):
    status = serializers.ChoiceField(["HEALTHY", "UNHEALTHY"])
    message = serializers.CharField(help_text="Names what does not work.")
    healthy_components = Count(help_text="How many components work.")
    unhealthy_components = Count(help_text="How many do not.")
    components = serializers.DictField(
        child=serializers.BooleanField(), help_text="Each component by name: whether it works."
    )


def health_report(components: Mapping[str, bool]) -> dict[str, Any]:
    """For HealthSerializer. `components`: whether each works, by its name."""
    unhealthy = [name for name, works in components.items() if not works]
    return {
        "status": "UNHEALTHY" if unhealthy else "HEALTHY",
        "message": f"Not working: {', '.join(unhealthy)}." if unhealthy else "Everything works.",
        "healthy_components": len(components) - len(unhealthy),
        "unhealthy_components": len(unhealthy),
        "components": dict(components),
    }
