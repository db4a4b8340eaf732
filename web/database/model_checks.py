"""Rows that are made of what people write, checked before a database sees them. PostgreSQL refuses a text that is
longer than its column, and SQLite keeps it."""

from django.core.exceptions import ValidationError
from django.db.models import Model

from web.errors import Invalid


def check_fields(row: Model) -> None:
    """Raises Invalid, with all that the model's fields say against their values."""
    try:
        row.clean_fields()
    except ValidationError as error:
        details = {
            field: [{"message": " ".join(problem.messages), "code": problem.code or "invalid"} for problem in problems]
            for field, problems in error.error_dict.items()
        }
        raise Invalid(details=details) from None
