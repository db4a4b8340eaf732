"""The response of /monitor, in the format that Edgegap's SDKs read (EDGEGAP.md 5.2)."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from .fields.numbers import Count


class HealthSerializer(serializers.Serializer):
    status = serializers.ChoiceField(["HEALTHY", "UNHEALTHY"])
    message = serializers.CharField(help_text="Names the components that do not work.")
    healthy_components = Count(help_text="Number of components that work.")
    unhealthy_components = Count(help_text="Number of components that do not work.")
    components = serializers.DictField(
        child=serializers.BooleanField(), help_text="Whether each component works, by its name."
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
