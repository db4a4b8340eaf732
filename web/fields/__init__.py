"""Serializer fields with their ranges, which the OpenAPI documents state too."""
