from collections.abc import Iterator

import pytest
from django.conf import LazySettings
from django.urls import get_script_prefix, set_script_prefix

from web.http.root_path import PlainStorage, root_path


@pytest.fixture(autouse=True)
def _prefix(settings: LazySettings) -> Iterator[None]:
    settings.FORCE_SCRIPT_NAME = None
    before = get_script_prefix()
    yield
    set_script_prefix(before)


@pytest.mark.parametrize(
    ("setting", "prefix", "expected"),
    [(None, "/", ""), (None, "/below/", "/below"), ("/relay", "/", "/relay"), ("/relay/", "/below/", "/relay")],
)
def test_the_setting_takes_precedence_over_the_web_servers_path(
    setting: str | None, prefix: str, expected: str, settings: LazySettings
) -> None:
    settings.FORCE_SCRIPT_NAME = setting
    set_script_prefix(prefix)
    assert root_path() == expected


def test_the_first_request_does_not_decide_the_links_of_later_ones(settings: LazySettings) -> None:
    storage = PlainStorage()
    urls = []
    for prefix in ("/", "/below/"):
        set_script_prefix(prefix)
        urls.append(storage.url("a.css"))
    assert urls == [f"{settings.STATIC_PATH}a.css", f"/below{settings.STATIC_PATH}a.css"]
