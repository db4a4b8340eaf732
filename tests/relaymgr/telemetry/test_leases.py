from datetime import timedelta

import pytest
from django.utils import timezone

from relaymgr.telemetry.leases import lease_held, lease_release, lease_take
from relaymgr.telemetry.models import Lease
from tests.support.manager import in_threads

pytestmark = pytest.mark.django_db


def test_lease_is_had_by_one() -> None:
    owner = lease_take(name="probe", seconds=10)
    assert owner
    assert lease_take(name="probe", seconds=10) is None
    assert lease_take(name="another", seconds=10)


def test_released_lease_is_free_at_once() -> None:
    owner = lease_take(name="probe", seconds=10)
    assert owner and lease_release(name="probe", owner=owner)
    assert lease_take(name="probe", seconds=10)


def test_lease_of_one_who_died_runs_out() -> None:
    lease_take(name="probe", seconds=10)
    Lease.objects.update(until=timezone.now() - timedelta(seconds=0.001))
    assert lease_take(name="probe", seconds=10)


def test_one_who_was_too_slow_releases_nothing() -> None:
    slow = lease_take(name="probe", seconds=0)
    assert slow
    assert lease_take(name="probe", seconds=10)
    assert not lease_release(name="probe", owner=slow)
    assert lease_take(name="probe", seconds=10) is None


def test_lease_is_given_back_after_an_error() -> None:
    with pytest.raises(RuntimeError), lease_held("probe", 10) as held:
        assert held
        with lease_held("probe", 10) as again:
            assert not again
        raise RuntimeError
    assert lease_take(name="probe", seconds=10)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("exists", [False, True])
def test_of_many_at_once_one_gets_it(exists: bool) -> None:
    if exists:
        Lease.objects.create(name="probe", until=timezone.now())
    owners = in_threads(*[lambda: lease_take(name="probe", seconds=10)] * 6)
    assert sum(isinstance(owner, str) for owner in owners) == 1, owners
    assert owners.count(None) == 5
