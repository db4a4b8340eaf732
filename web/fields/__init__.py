"""Fields of serializers, each with its range, so that the OpenAPI documents state them too."""
