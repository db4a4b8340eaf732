import io
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from relaymgr.nodes.models import JoinKey, Location
from relaymgr.nodes.selectors import join_key_get

pytestmark = pytest.mark.django_db
PLACE = ["--city", "Frankfurt", "--country", "Germany", "--continent", "Europe"]


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue().strip()


def test_location_and_join_key_from_a_script() -> None:
    where = ["--country-code", "DE", "--latitude", "50.11", "--longitude", "8.68", "--tag", "premium"]
    assert run("location_create", "frankfurt", *PLACE, *where) == "frankfurt"
    assert Location.objects.get().tags == ["premium"]
    key = join_key_get(presented=run("join_key", "frankfurt"))
    assert key is not None and key.location.slug == "frankfurt"


def test_wrong_place_is_refused_by_field() -> None:
    where = ["--country-code", "DEU", "--latitude", "91", "--longitude", "8.68"]
    with pytest.raises(CommandError) as refused:
        run("location_create", "frank furt", *PLACE, *where)
    assert all(field in str(refused.value) for field in ("slug", "country_code", "latitude"))
    assert not Location.objects.exists()


def test_join_key_may_live_shorter(location: Location) -> None:
    run("join_key", "frankfurt", "--hours", "0.5")
    assert JoinKey.objects.get().expires_at <= timezone.now() + timedelta(minutes=30)


def test_join_key_may_let_several_nodes_join(location: Location) -> None:
    run("join_key", "frankfurt", "--uses", "3")
    assert JoinKey.objects.get().uses_left == 3


@pytest.mark.parametrize("uses", ["0", "-1", "10001"])
def test_number_of_uses_that_makes_no_sense_is_refused(location: Location, uses: str) -> None:
    with pytest.raises(CommandError, match="uses"):
        run("join_key", "frankfurt", "--uses", uses)
    assert not JoinKey.objects.exists()


@pytest.mark.parametrize("hours", ["0", "-1", "9000", "nan"])
def test_lifetime_that_makes_no_sense_is_refused(location: Location, hours: str) -> None:
    with pytest.raises(CommandError, match="hours"):
        run("join_key", "frankfurt", "--hours", hours)


def test_unknown_location_is_refused_with_what_to_do() -> None:
    with pytest.raises(CommandError, match="location_create nowhere"):
        run("join_key", "nowhere")
