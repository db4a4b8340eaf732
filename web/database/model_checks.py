"""Validation of rows made from user input before they reach the database: PostgreSQL refuses a text that is longer than
its column, and SQLite stores it."""

from django.core.exceptions import ValidationError
from django.db.models import Model

from web.errors import Invalid


def check_fields(row: Model) -> None:
    """Raises Invalid with the problems of all fields."""
    try:
        row.clean_fields()
    except ValidationError as error:
        details = {
            field: [{"message": " ".join(problem.messages), "code": problem.code or "invalid"} for problem in problems]
            for field, problems in error.error_dict.items()
        }
        raise Invalid(details=details) from None
