from datetime import UTC, datetime, timedelta

import pytest

from web.admin.age import age_s


@pytest.mark.parametrize(("ago", "age"), [(5, 5), (0, 0), (-1, 0), (-3600, 3600)])
def test_a_time_in_the_future_is_not_fresh(ago: float, age: float) -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    assert age_s(now - timedelta(seconds=ago), now) == age
