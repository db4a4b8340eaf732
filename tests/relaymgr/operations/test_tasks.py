import pytest

from relaymgr.operations.tasks import ECHO, echo
from relaymgr.telemetry.leases import marks_take


@pytest.mark.django_db
def test_echo_leaves_a_mark_that_is_taken_once() -> None:
    echo("a")
    assert marks_take(names=[ECHO + "a", ECHO + "b"]) == [ECHO + "a"]
    assert marks_take(names=[ECHO + "a"]) == []
