import pytest
from rest_framework.exceptions import ValidationError

from web.fields.choice import Choice


def test_the_error_lists_the_valid_values() -> None:
    with pytest.raises(ValidationError) as raised:
        Choice(["star", "mesh"]).run_validation("ring")
    assert raised.value.detail == ['"ring" is not one of: star, mesh.']
    assert raised.value.get_codes() == ["invalid_choice"]
