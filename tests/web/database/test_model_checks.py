import pytest

from web.audit.models import AuditEntry
from web.audit.via import Via
from web.database.model_checks import check_fields
from web.errors import Invalid


def test_the_problems_of_all_fields_are_reported() -> None:
    with pytest.raises(Invalid) as raised:
        check_fields(AuditEntry(via="pigeon", actor="a" * 151, action="node.drain", target="fra-1"))
    codes = {field: [problem["code"] for problem in problems] for field, problems in raised.value.details.items()}
    assert codes == {"via": ["invalid_choice"], "actor": ["max_length"]}


def test_a_valid_row_passes() -> None:
    check_fields(AuditEntry(via=Via.ADMIN, actor="a" * 150, action="node.drain", target="fra-1"))
